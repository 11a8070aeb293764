"""Poses an articulated 17-joint body: bone lengths, joint limits, forward kinematics.

Frames and units:
    world       right-handed, z up, mm
    body        x to the front, y to the left, z up; a limb's rest direction is that of a person
                standing upright with hanging arms
    angles      radians; flexion swings a limb to the front (the knee: the shin to the back),
                abduction away from the middle, twist turns a part to its left
Shape letters: F frames, J joints.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from selfpose.method.skeleton import H36M_17, Layout

__all__ = [
    "LIMITS_DEG",
    "Angles",
    "bone_lengths",
    "limit_angles",
    "pose_joints",
    "rotation_about",
]

LAYOUT: Layout = H36M_17

Angles = Mapping[str, NDArray[np.float64]]
"""Angles in each frame, (F,) each, in radians, by the angle's name; a missing angle is 0."""

_ARM = {
    "shoulder_flexion": (-50, 175),
    "shoulder_abduction": (-25, 160),
    "shoulder_twist": (-80, 80),
    "elbow": (2, 145),
}
_LEG = {
    "hip_flexion": (-25, 120),
    "hip_abduction": (-20, 45),
    "hip_twist": (-40, 40),
    "knee": (1, 140),
}

LIMITS_DEG: Mapping[str, tuple[float, float]] = {
    "lean": (-20, 70),
    "roll": (-15, 15),
    "spine_flexion": (-20, 55),
    "spine_side": (-25, 25),
    "spine_twist": (-35, 35),
    "neck_flexion": (-35, 45),
    "neck_side": (-25, 25),
    "neck_twist": (-60, 60),
    **{f"{side}_{name}": limit for side in ("left", "right") for name, limit in _ARM.items()},
    **{f"{side}_{name}": limit for side in ("left", "right") for name, limit in _LEG.items()},
}
"""Lowest and highest value of every angle, in degrees. The heading has no limit."""

_REST: Mapping[str, tuple[float, float, float]] = {
    "hip": (0.0, 1.0, 0.0),
    "knee": (0.0, 0.0, -1.0),
    "ankle": (0.0, 0.0, -1.0),
    "spine": (-0.05, 0.0, 1.0),
    "thorax": (0.05, 0.0, 1.0),
    "neck": (0.14, 0.0, 1.0),
    "head": (0.14, 0.0, 1.0),
    "shoulder": (0.0, 1.0, 0.12),
    "elbow": (0.0, 0.0, -1.0),
    "wrist": (0.0, 0.0, -1.0),
}
"""Direction, in the axes of its parent part, of the limb that ends at a joint of the left side."""


def bone_lengths(stature_mm: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the bones of one person at random.

    The proportions are the layout's, with each kind of bone up to 5 % longer or shorter; the left
    and the right side are alike.

    Args:
        stature_mm: height from the floor to the head's joint of the standing person, in mm.
        rng: generator of the proportions.

    Returns:
        Length of the limb that ends at each joint, (J,), in mm; 0 for the root.
    """
    lengths = np.zeros(len(LAYOUT.joints))
    kinds = dict.fromkeys(name.split("_")[-1] for name in LAYOUT.joints[1:])
    factors = {kind: rng.uniform(0.95, 1.05) for kind in kinds}
    for (joint, _), ratio in zip(LAYOUT.limbs, LAYOUT.bone_ratios, strict=True):
        lengths[joint] = ratio * factors[LAYOUT.joints[joint].split("_")[-1]]
    upright = ("right_knee", "right_ankle", "spine", "thorax", "neck", "head")
    tall = sum(lengths[LAYOUT.joints.index(name)] for name in upright)
    ankle_share = 0.055  # height of the ankle over the stature; the chain of limbs is the rest
    return lengths * (stature_mm * (1 - ankle_share) / tall)


def limit_angles(
    angles: Angles, limits_deg: Mapping[str, tuple[float, float]] = LIMITS_DEG
) -> dict[str, NDArray[np.float64]]:
    """Return angles that are held within the joint limits.

    Args:
        angles: tracks, (F,) each, in radians.
        limits_deg: lowest and highest value of each angle, in degrees.

    Returns:
        Tracks of all given angles and of all angles with a limit, (F,) each, in radians.
    """
    zero = np.zeros_like(next(iter(angles.values())))
    limited = {
        name: np.clip(angles.get(name, zero), *np.radians(limit))
        for name, limit in limits_deg.items()
    }
    return {**angles, **limited}


def pose_joints(lengths_j: NDArray[np.float64], angles: Angles) -> NDArray[np.float64]:
    """Return the joints of a body in each frame, with the pelvis at the origin.

    Args:
        lengths_j: length of the limb that ends at each joint, (J,), in mm.
        angles: the track `heading` and those of `LIMITS_DEG`, (F,) each, in radians.

    Returns:
        Joints, (F, J, 3), in mm in world axes.
    """
    frames = len(angles["heading"])
    zero = np.zeros(frames)
    turns = _part_rotations({name: angles.get(name, zero) for name in ("heading", *LIMITS_DEG)})
    joints_fj3 = np.zeros((frames, len(LAYOUT.joints), 3))
    for joint, parent in LAYOUT.limbs:
        name = LAYOUT.joints[joint]
        rest_3 = np.asarray(_REST[name.split("_")[-1]])
        if name.startswith("right_"):
            rest_3 = rest_3 * (1, -1, 1)
        offset_3 = rest_3 / np.linalg.norm(rest_3) * lengths_j[joint]
        joints_fj3[:, joint] = joints_fj3[:, parent] + turns[name] @ offset_3
    return joints_fj3


def _part_rotations(angles: Angles) -> dict[str, NDArray[np.float64]]:
    """Return for each joint the rotation (F, 3, 3), part to world, of the limb that ends at it."""
    pelvis = (
        rotation_about("z", angles["heading"])
        @ rotation_about("y", angles["lean"])
        @ rotation_about("x", angles["roll"])
    )
    half = {name: angles[f"spine_{name}"] / 2 for name in ("flexion", "side", "twist")}
    bend = (
        rotation_about("y", half["flexion"])
        @ rotation_about("x", half["side"])
        @ rotation_about("z", half["twist"])
    )
    waist = pelvis @ bend
    chest = waist @ bend
    neck = (
        chest @ rotation_about("z", angles["neck_twist"]) @ rotation_about("x", angles["neck_side"])
    )
    head = neck @ rotation_about("y", angles["neck_flexion"])
    turns = {"spine": waist, "thorax": chest, "neck": chest, "head": head}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        upper_arm = chest @ _ball(angles, f"{side}_shoulder", sign)
        thigh = pelvis @ _ball(angles, f"{side}_hip", sign)
        turns |= {
            f"{side}_shoulder": chest,
            f"{side}_elbow": upper_arm,
            f"{side}_wrist": upper_arm @ rotation_about("y", -angles[f"{side}_elbow"]),
            f"{side}_hip": pelvis,
            f"{side}_knee": thigh,
            f"{side}_ankle": thigh @ rotation_about("y", angles[f"{side}_knee"]),
        }
    return turns


def _ball(angles: Angles, joint: str, sign: float) -> NDArray[np.float64]:
    """Return the rotation (F, 3, 3) of a shoulder or hip; `sign` is 1 if left, -1 if right."""
    swing = rotation_about("y", -angles[f"{joint}_flexion"]) @ rotation_about(
        "x", sign * angles[f"{joint}_abduction"]
    )
    return swing @ rotation_about("z", sign * angles[f"{joint}_twist"])


def rotation_about(axis: str, angle_f: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return right-handed rotations about an axis, for column vectors.

    Args:
        axis: `x`, `y` or `z`.
        angle_f: angles, (F,), in radians.

    Returns:
        Rotations, (F, 3, 3).
    """
    cos, sin = np.cos(angle_f), np.sin(angle_f)
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    turn = np.zeros((len(angle_f), 3, 3))
    turn[:] = np.eye(3)
    turn[:, first, first] = turn[:, second, second] = cos
    turn[:, second, first], turn[:, first, second] = sin, -sin
    return turn
