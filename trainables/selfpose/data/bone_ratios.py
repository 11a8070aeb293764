"""Measures the relative lengths of people's limbs on 2D poses, for `loss_weights.bone`.

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

_USUAL = "usual"
"""The word for the lengths that a layout has."""
_SANE = (0.01, 100.0)
"""Shortest and longest limb over the mean limb that is believed."""

LEAST_POSES = 200
"""Number of 2D poses below which limbs may not have been seen in full."""

_LIMBS_IN_FULL = 3
"""How many limbs of a pose are taken to lie in the plane of the picture, or nearly so."""
_IN_FULL_PERCENT = 95.0
"""Share of the poses in which a limb appears shorter than it is, in percent."""
_ROUNDS = 30
"""Number of rounds; the lengths settle within ten."""


def read_bone_ratios(text: str, layout: Layout) -> tuple[float, ...]:
    """Return what the import option `bone_ratios` gives (E,), with a mean of 1.

    Args:
        text: `usual`, or one number for each limb of the layout, with commas between.
        layout: of the joints.

    Raises:
        BadInputError: the text is neither.
    """
    if text.strip() == _USUAL:
        return layout.bone_ratios
    limbs = [layout.joints[child] for child, _ in layout.limbs]
    try:
        ratios = [float(word) for word in text.split(",")]
    except ValueError:
        ratios = []
    mean = sum(ratios) / max(len(ratios), 1)
    relative = [r / mean if mean else math.nan for r in ratios]
    if len(ratios) != len(limbs) or not all(map(_is_sane, relative)):
        raise BadInputError(
            f"--bone-ratios: must be `{_USUAL}`, or {len(limbs)} lengths above 0 with commas "
            f"between, of the limbs that end at {', '.join(limbs)}; got {text!r}"
        )
    return tuple(round(r, 4) for r in relative)


def measure_bone_ratios(joints_nj2: NDArray[Any], layout: Layout) -> tuple[float, ...]:
    """Return how long each limb is over the mean limb, as 2D poses tell it: (E,), no unit.

    How large a person appears is not known either. So the two are found in turns: a person's size
    is that by which some limbs reach their lengths, and a limb's length that which it reaches in
    some poses. Both sides of the body are equally long.

    Args:
        joints_nj2: 2D poses of people seen from many sides (N, J, 2), any length unit.
        layout: of the joints.

    Returns:
        The lengths; nothing where they cannot be, because joints lie on each other in most poses.
    """
    children, parents = np.asarray(layout.limbs).T
    seen_ne = np.linalg.norm(
        joints_nj2[:, children].astype(np.float64) - joints_nj2[:, parents], axis=-1
    )
    ratios_e = np.asarray(layout.bone_ratios)
    pairs_p2 = np.asarray(layout.limb_pairs, dtype=np.int64).reshape(-1, 2)
    for _ in range(_ROUNDS):
        size_n1 = np.sort(seen_ne / ratios_e, axis=1)[:, -_LIMBS_IN_FULL, None]
        longest_e = np.percentile(seen_ne / np.maximum(size_n1, 1e-9), _IN_FULL_PERCENT, axis=0)
        longest_e[pairs_p2] = longest_e[pairs_p2].mean(axis=1, keepdims=True)
        shortest, mean = longest_e.min(), longest_e.mean()
        if shortest < _SANE[0] * mean or shortest == 0:
            return ()
        ratios_e = longest_e / mean
    return tuple(ratios_e.round(4).tolist())


def _is_sane(ratio: float) -> bool:
    return _SANE[0] <= ratio <= _SANE[1]
