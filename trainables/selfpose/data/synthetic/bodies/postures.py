"""Draws parts of postures at random: a trunk, an arm or a pair of legs at one moment.

Angles are in degrees, by the names of `selfpose.data.synthetic.bodies.kinematics`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from selfpose.data.synthetic.bodies.angle_tracks import KeyPose

__all__ = [
    "ARM_POSES",
    "any_side",
    "arm_angles",
    "arm_pose",
    "both",
    "eased_leg",
    "other_side",
    "reaching",
    "resting_arms",
    "seated_legs",
    "talking",
    "torso",
]

_ARM_ANGLES = ("shoulder_flexion", "shoulder_abduction", "shoulder_twist", "elbow")
ARM_POSES: Mapping[str, tuple[float, float, float, float]] = {
    "hang": (3, 8, 0, 12),
    "hips": (-22, 42, -30, 85),
    "folded": (32, 6, 45, 98),
    "face": (50, 12, 30, 132),
    "offer": (22, 12, 0, 80),
    "back": (-32, 12, 25, 40),
    "mouth": (60, 2, -32, 131),
    "ear": (80, 5, -15, 140),
    "camera": (71, -4, -15, 101),
    "plate": (32, 15, -25, 82),
    "leash": (38, 8, -10, 25),
}
"""Flexion, abduction and twist of the shoulder, and the elbow's angle, in degrees, of each way to
hold an arm. In the last five the hand is at the mouth, at the ear, at a camera before the eyes,
over a plate on a table, and on a leash."""


def torso(rng: np.random.Generator, spread_deg: float) -> KeyPose:
    """Draw how the trunk and head are held, with angles that spread by about `spread_deg`."""
    lean = float(rng.normal(0, spread_deg / 3))
    return {
        "lean": lean,
        "spine_flexion": float(rng.normal(4, spread_deg)),
        "spine_side": float(rng.normal(0, spread_deg / 2)),
        "spine_twist": float(rng.normal(0, spread_deg)),
        "neck_flexion": float(rng.normal(5, 12)),
        "neck_twist": float(rng.normal(0, 25)),
    }


def resting_arms(rng: np.random.Generator) -> KeyPose:
    """Draw how the arms are held at rest; in about half of the poses the two differ."""
    kinds = ("hang", "hips", "folded", "face", "offer", "back")
    first = str(rng.choice(kinds))
    second = first if rng.random() < 0.5 else str(rng.choice(kinds))
    return {**arm_pose("left", first, rng), **arm_pose("right", second, rng)}


def arm_pose(side: str, kind: str, rng: np.random.Generator) -> KeyPose:
    """Draw an arm that is held in one of the ways of `ARM_POSES`, with some spread."""
    return arm_angles(side, ARM_POSES[kind], rng)


def arm_angles(
    side: str, angles: tuple[float, float, float, float], rng: np.random.Generator
) -> KeyPose:
    """Draw an arm with angles in degrees near the given ones, in the order of `ARM_POSES`."""
    spread = rng.normal(0, (7, 5, 8, 10))
    return {
        f"{side}_{name}": float(angle + more)
        for name, angle, more in zip(_ARM_ANGLES, angles, spread, strict=True)
    }


def talking(rng: np.random.Generator) -> KeyPose:
    """Draw a moment of talking, with the hands apart or together before the body."""
    pose = {**torso(rng, 8)}
    for side in ("left", "right"):
        upper = (rng.uniform(-5, 50), rng.uniform(2, 35), rng.uniform(-45, 15))
        pose |= arm_angles(side, (*upper, rng.uniform(45, 120)), rng)
    return pose


def reaching(rng: np.random.Generator) -> KeyPose:
    """Draw a moment of reaching up, forward, aside or down to the floor."""
    side = any_side(rng)
    other = other_side(side)
    two_handed = rng.random() < 0.35
    pose: dict[str, float] = {**torso(rng, 10), **resting_arms(rng)}
    target = str(rng.choice(["up", "forward", "aside", "down"]))
    flexion = {"up": (125, 175), "forward": (65, 110), "aside": (-10, 50), "down": (40, 100)}
    abduction = {"up": (0, 35), "forward": (-15, 25), "aside": (60, 110), "down": (-10, 20)}
    for arm in (side, other) if two_handed else (side,):
        pose |= {
            f"{arm}_shoulder_flexion": rng.uniform(*flexion[target]),
            f"{arm}_shoulder_abduction": rng.uniform(*abduction[target]),
            f"{arm}_elbow": rng.uniform(3, 35),
        }
    if target == "down":
        bend, squat = rng.uniform(20, 65), rng.uniform(0, 95)
        pose |= {"lean": bend, "spine_flexion": rng.uniform(10, 50)}
        pose |= {**both("hip_flexion", bend + squat * 0.6), **both("knee", squat)}
    else:
        pose["spine_twist"] = rng.uniform(0, 30) * (-1 if side == "left" else 1)
    return pose


def eased_leg(rng: np.random.Generator) -> KeyPose:
    """Draw the legs of somebody who stands on one and rests the other."""
    side = any_side(rng)
    return {
        f"{side}_knee": rng.uniform(5, 45),
        f"{side}_hip_flexion": rng.uniform(5, 30),
        f"{side}_hip_abduction": rng.uniform(0, 18),
        "roll": rng.uniform(0, 6) * (1 if side == "right" else -1),
    }


def seated_legs(rng: np.random.Generator) -> KeyPose:
    """Draw the legs of somebody who sits: side by side, apart, stretched or crossed."""
    depth = rng.uniform(78, 100)
    legs = {
        **both("hip_flexion", depth),
        **both("knee", depth * rng.uniform(0.85, 1.1)),
        **both("hip_abduction", rng.uniform(0, 18)),
    }
    side, manner = any_side(rng), str(rng.choice(["even", "stretched", "drawn", "crossed"]))
    if manner == "stretched":
        legs |= {f"{side}_knee": rng.uniform(5, 50)}
    elif manner == "drawn":
        legs |= {f"{side}_knee": rng.uniform(100, 125)}
    elif manner == "crossed":
        legs |= {f"{side}_hip_flexion": depth + 14, f"{side}_hip_abduction": -14.0}
    return legs


def both(name: str, degrees: float) -> KeyPose:
    """Return one angle, in degrees, for the left and the right side."""
    return {f"left_{name}": degrees, f"right_{name}": degrees}


def any_side(rng: np.random.Generator) -> str:
    """Draw one of the sides `left` and `right`."""
    return str(rng.choice(["left", "right"]))


def other_side(side: str) -> str:
    """Return the other one of the sides `left` and `right`."""
    return "right" if side == "left" else "left"
