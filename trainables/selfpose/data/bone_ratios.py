"""Finds how long the limbs of a store's people usually are, for `loss_weights.bone`.

They belong to the data: relative lengths that are published for one set of recordings are wrong
for another, whose joints lie elsewhere in the body. Measuring them reads the true 3D poses of the
training images, so a training with `loss_weights.bone` knows that much of the truth; the store
says so among its facts.

Shape letters: N poses, J joints, E limbs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError
from selfpose.method.skeleton import Layout

__all__ = ["measure_bone_ratios", "read_bone_ratios"]

USUAL = "usual"


def read_bone_ratios(text: str, layout: Layout) -> tuple[float, ...]:
    """Return what the import option `bone_ratios` gives (E,), with a mean of 1.

    Args:
        text: `usual`, or one number for each limb of the layout, with commas between.
        layout: of the joints.

    Raises:
        BadInputError: the text is neither.
    """
    if text.strip() == USUAL:
        return layout.bone_ratios
    limbs = [layout.joints[child] for child, _ in layout.limbs]
    try:
        ratios = [float(word) for word in text.split(",")]
    except ValueError:
        ratios = []
    if len(ratios) != len(limbs) or not all(math.isfinite(r) and r > 0 for r in ratios):
        raise BadInputError(
            f"bone_ratios: {text!r} must be `{USUAL}`, or {len(limbs)} lengths above 0 with commas "
            f"between: those of the limbs that end at {', '.join(limbs)}"
        )
    mean = sum(ratios) / len(ratios)
    return tuple(round(r / mean, 4) for r in ratios)


def measure_bone_ratios(joints_nj3: NDArray[Any], layout: Layout) -> tuple[float, ...]:
    """Return the median over poses of each limb's length over the pose's mean limb (E,), no unit.

    Args:
        joints_nj3: true 3D poses (N, J, 3), any length unit.
        layout: of the joints.
    """
    children, parents = np.asarray(layout.limbs).T
    length_ne = np.linalg.norm(joints_nj3[:, children] - joints_nj3[:, parents], axis=-1)
    relative_ne = length_ne / length_ne.mean(axis=1, keepdims=True)
    return tuple(np.median(relative_ne, axis=0).astype(np.float64).round(4).tolist())
