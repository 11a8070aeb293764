"""Finds how long the limbs of a store's people are beside each other, for `loss_weights.bone`.

They belong to the data: relative lengths that are published for one set of recordings are wrong
for another, whose joints lie elsewhere in the body. No 3D pose is needed: among many 2D poses
every limb lies in the plane of the picture now and then, and is then as long as it can appear.

Shape letters: N poses, J joints, E limbs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError
from selfpose.method.skeleton import Layout

__all__ = ["LEAST_POSES", "measure_bone_ratios", "read_bone_ratios"]

USUAL = "usual"

LEAST_POSES = 200
"""Number of 2D poses below which limbs may not have been seen in full."""

_LIMBS_IN_FULL = 3
"""How many limbs of a pose are taken to lie in the plane of the picture, or nearly so."""
_IN_FULL_PERCENT = 95.0
"""Share of the poses in which a limb appears shorter than it is, in percent."""
_TURNS = 30
"""Far more turns than the lengths need to settle."""


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


def measure_bone_ratios(joints_nj2: NDArray[Any], layout: Layout) -> tuple[float, ...]:
    """Return how long each limb is over the mean limb, as 2D poses tell it: (E,), no unit.

    How large a person appears is not known either. So the two are found in turns: a person's size
    is that by which some limbs reach their lengths, and a limb's length that which it reaches in
    some poses. Both sides of the body are equally long.

    Args:
        joints_nj2: 2D poses of people seen from many sides (N, J, 2), any length unit.
        layout: of the joints.
    """
    children, parents = np.asarray(layout.limbs).T
    seen_ne = np.linalg.norm(
        joints_nj2[:, children].astype(np.float64) - joints_nj2[:, parents], axis=-1
    )
    ratios_e = np.asarray(layout.bone_ratios)
    pairs_p2 = np.asarray(layout.limb_pairs, dtype=np.int64).reshape(-1, 2)
    for _ in range(_TURNS):
        size_n1 = np.sort(seen_ne / ratios_e, axis=1)[:, -_LIMBS_IN_FULL, None]
        longest_e = np.percentile(seen_ne / np.maximum(size_n1, 1e-9), _IN_FULL_PERCENT, axis=0)
        longest_e[pairs_p2] = longest_e[pairs_p2].mean(axis=1, keepdims=True)
        ratios_e = longest_e / longest_e.mean()
    return tuple(ratios_e.round(4).tolist())
