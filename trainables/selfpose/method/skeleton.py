"""Joint layouts: which joints there are, how they hang together, which mirror which.

Everything that depends on the order of joints reads it from a `Layout`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FINGERS", "H36M_17", "HAND_21", "KEYPOINTGAN_17", "LAYOUTS", "Layout"]


@dataclass(frozen=True)
class Layout:
    """The joints of one kind of body and the limbs between them."""

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    """Parent of each joint; -1 for the root."""
    mirror: tuple[int, ...]
    """For each joint, the same joint of the other side (itself for those in the middle)."""
    root: int
    head: int
    """The joint whose distance to the root in 2D sets a pose's size (method: `h`)."""
    bone_ratios: tuple[float, ...]
    """Length of each limb over the mean limb length, in the order of `limbs`, unless a store has
    its own."""
    dim: tuple[int, ...]
    """The joints whose limbs are rendered dimmer than the others where sides are coded: a person's
    left ones, a hand's thumb and index finger."""

    @functools.cached_property
    def limbs(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) of each limb, in the order of the children."""
        return tuple((j, p) for j, p in enumerate(self.parents) if p >= 0)

    @functools.cached_property
    def limb_pairs(self) -> tuple[tuple[int, int], ...]:
        """Indices in `limbs` of each limb and of the same one on the other side; one entry each.

        Empty for a body that has no sides, as a hand.
        """
        index = {child: i for i, (child, _) in enumerate(self.limbs)}
        return tuple((i, index[self.mirror[j]]) for j, i in index.items() if j < self.mirror[j])


# The 17 joints that Human3.6M papers use (indices 0,1,2,3,6,7,8,12,13,14,15,17,18,19,25,26,27 of
# its 32; VideoPose3D, ElePose). The bone ratios are those of Human3.6M that ElePose publishes.
H36M_17 = Layout(
    name="h36m17",
    joints=(
        "pelvis",
        "right_hip",
        "right_knee",
        "right_ankle",
        "left_hip",
        "left_knee",
        "left_ankle",
        "spine",
        "thorax",
        "neck",
        "head",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "right_shoulder",
        "right_elbow",
        "right_wrist",
    ),
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    mirror=(0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13),
    root=0,
    head=10,
    bone_ratios=(
        *(0.5181, 1.7371, 1.7229),
        *(0.5181, 1.7371, 1.7229),
        *(0.9209, 0.9879, 0.4481, 0.4450),
        *(0.5746, 1.0812, 0.9652),
        *(0.5746, 1.0812, 0.9652),
    ),
    dim=(4, 5, 6, 11, 12, 13),
)

# The 17 joints of KeypointGAN (indices 1,2,3,5,6,7,8,10,11,13,15,17,18,19,25,26,27 of
# Human3.6M's 32): toes, and neither spine nor nose; the pelvis is joint 8. Bone ratios: those of
# H36M_17 where the limbs are the same; trunk and neck are 0.980 and 0.976 of the way over the
# joints between, measured on the mocap data; ankle to toe is three quarters of a foot's length,
# 0.152 of the height (Drillis and Contini).
KEYPOINTGAN_17 = Layout(
    name="keypointgan17",
    joints=(
        *("right_hip", "right_knee", "right_ankle", "right_toe"),
        *("left_hip", "left_knee", "left_ankle", "left_toe"),
        *("pelvis", "thorax", "head"),
        *("left_shoulder", "left_elbow", "left_wrist"),
        *("right_shoulder", "right_elbow", "right_wrist"),
    ),
    parents=(8, 0, 1, 2, 8, 4, 5, 6, -1, 8, 9, 9, 11, 12, 9, 14, 15),
    mirror=(4, 5, 6, 7, 0, 1, 2, 3, 8, 9, 10, 14, 15, 16, 11, 12, 13),
    root=8,
    head=10,
    bone_ratios=(
        *(0.4742, 1.5899, 1.5769, 0.7048),
        *(0.4742, 1.5899, 1.5769, 0.7048),
        *(1.7125, 0.7981),
        *(0.5259, 0.9896, 0.8834),
        *(0.5259, 0.9896, 0.8834),
    ),
    dim=(4, 5, 6, 7, 11, 12, 13),
)

FINGERS = ("thumb", "index", "middle", "ring", "little")

# Wrist to knuckle, then towards the tip, mm: bones and fingertip pulp of Buryanov & Kotiuk 2010
# (Int. J. Morphol. 28(3), 755-758); ours is the way across the carpus, 26 mm, and to the thumb's
# base, 30 mm.
_HAND_BONES_MM = (
    *(30.0, 46.2, 31.6, 27.4),
    *(94.1, 39.8, 22.4, 19.6),
    *(90.6, 44.6, 26.3, 21.4),
    *(84.0, 41.4, 25.7, 21.3),
    *(79.7, 32.7, 18.1, 19.7),
)

# The 21 points of OpenPose and HandDB; every hand is seen as a right one, left ones mirrored.
HAND_21 = Layout(
    name="hand21",
    joints=("wrist", *(f"{finger}_{i}" for finger in FINGERS for i in range(1, 5))),
    parents=(-1, *(0 if i == 0 else 4 * f + i for f in range(5) for i in range(4))),
    mirror=tuple(range(21)),
    root=0,
    head=9,  # the middle finger's knuckle: the palm does not bend
    bone_ratios=tuple(round(20 * length / sum(_HAND_BONES_MM), 4) for length in _HAND_BONES_MM),
    dim=tuple(range(1, 9)),
)

LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout for layout in (H36M_17, KEYPOINTGAN_17, HAND_21)
}
