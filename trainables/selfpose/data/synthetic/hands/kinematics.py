"""Poses an articulated right hand of 21 joints: bone lengths, joint limits, forward kinematics.

Frames and units:
    world       right-handed, z up, mm
    hand        x along the middle finger, y to the thumb's side, z out of the back of the hand;
                with all turns at 0 the fingers point up and the palm faces the world's +x
    angles      radians; flexion bends a finger to the palm, spread moves it to the thumb's side
Shape letters: F frames, J joints.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from selfpose.data.synthetic.bodies.kinematics import Angles, rotation_about
from selfpose.method.skeleton import FINGERS, HAND_21

__all__ = ["HAND_LIMITS_DEG", "hand_bone_lengths", "pose_hand"]

_FINGER = {"flexion": (0, 90), "knuckle": (0, 100), "spread": (-15, 15)}
_THUMB = {"flexion": (0, 60), "knuckle": (0, 80), "spread": (-30, 20), "lift": (-5, 50)}

HAND_LIMITS_DEG: Mapping[str, tuple[float, float]] = {
    **{f"thumb_{name}": limit for name, limit in _THUMB.items()},
    **{f"{finger}_{name}": limit for finger in FINGERS[1:] for name, limit in _FINGER.items()},
}
"""Lowest and highest value of every angle, in degrees. `flexion` is at the base of a finger and at
the second joint of the thumb; `knuckle` is at the next joint. A finger's last joint bends by two
thirds of its knuckle. `lift` takes the thumb's base out of the palm's plane. `heading`, `tilt` and
`lean`, which turn the whole hand, have no limit, because the arm is free."""

_LAST_JOINT_SHARE = 2 / 3

_MEAN_BONE_MM = 42.0
"""Mean length of the bones of a hand of middling size, in mm; the layout's ratios are lengths over
the mean."""

# Direction from the wrist to the base of each finger: degrees to the thumb's side, and degrees
# towards the palm, which is an arch. The fingers themselves fan out less than their bases.
_BASE_DEG = {
    "thumb": (52.0, 18.0),
    "index": (14.0, 0.0),
    "middle": (2.0, -2.0),
    "ring": (-10.0, 0.0),
    "little": (-22.0, 6.0),
}
_FAN_DEG = {"index": 5.0, "middle": 0.0, "ring": -5.0, "little": -11.0}
_THUMB_DEG = (38.0, -62.0)
"""Direction of the thumb from its base in degrees: to the thumb's side, and rolled so that it bends
over the palm."""


def hand_bone_lengths(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the bones of one hand at random.

    The hand has 0.85 to 1.15 times the middling size, and each bone is up to 5 % longer or shorter.

    Returns:
        Length of the limb that ends at each joint, (J,), in mm; 0 for the wrist.
    """
    scale = _MEAN_BONE_MM * rng.uniform(0.85, 1.15)
    ratios = np.asarray(HAND_21.bone_ratios) * rng.uniform(0.95, 1.05, len(HAND_21.bone_ratios))
    return np.concatenate([[0.0], ratios * scale])


def pose_hand(lengths_j: NDArray[np.float64], angles: Angles) -> NDArray[np.float64]:
    """Return the joints of a hand in each frame, with the wrist at the origin.

    Args:
        lengths_j: length of the limb that ends at each joint, (J,), in mm.
        angles: the tracks `heading`, `tilt`, `lean` and those of `HAND_LIMITS_DEG`, (F,) each, in
            radians; a missing one is 0, but `heading` must be there.

    Returns:
        Joints, (F, J, 3), in mm in world axes.
    """
    frames = len(angles["heading"])
    zero = np.zeros(frames)
    joints_fj3 = np.zeros((frames, len(HAND_21.joints), 3))
    for number, finger in enumerate(FINGERS):
        own = {name: angles.get(f"{finger}_{name}", zero) for name in (*_THUMB, *_FINGER)}
        turns = [_base_turn(finger, frames), *_finger_turns(finger, own)]
        joint = 4 * number + 1
        at_f3 = np.zeros((frames, 3))
        for turn_f33, length in zip(turns, lengths_j[joint : joint + 4], strict=True):
            at_f3 = at_f3 + length * turn_f33[:, :, 0]  # a bone lies along its part's x axis
            joints_fj3[:, joint] = at_f3
            joint += 1
    whole_f33 = (
        rotation_about("z", angles["heading"])
        @ rotation_about("x", angles.get("lean", zero))
        @ rotation_about("y", angles.get("tilt", zero) - np.pi / 2)
    )
    return np.asarray(joints_fj3 @ whole_f33.transpose(0, 2, 1))


def _base_turn(finger: str, frames: int) -> NDArray[np.float64]:
    """Return the rotation (F, 3, 3) of the bone from the wrist to a finger's base."""
    aside, down = np.radians(_BASE_DEG[finger])
    return rotation_about("z", np.full(frames, aside)) @ rotation_about("y", np.full(frames, down))


def _finger_turns(finger: str, own: Angles) -> list[NDArray[np.float64]]:
    """Return the rotations (F, 3, 3), part to hand, of a finger's three bones beyond its base."""
    if finger == "thumb":
        aside, roll = np.radians(_THUMB_DEG)
        first = (
            rotation_about("z", aside + own["spread"])
            @ rotation_about("y", own["lift"])
            @ rotation_about("x", np.full(len(own["lift"]), roll))
        )
        second = first @ rotation_about("y", own["flexion"])
        return [first, second, second @ rotation_about("y", own["knuckle"])]
    fan = np.radians(_FAN_DEG[finger])
    first = rotation_about("z", fan + own["spread"]) @ rotation_about("y", own["flexion"])
    second = first @ rotation_about("y", own["knuckle"])
    return [first, second, second @ rotation_about("y", own["knuckle"] * _LAST_JOINT_SHARE)]
