"""Draws motions of the 15 activities of Human3.6M for the procedural body.

Read `ACTIVITIES` first, at the end. Each of its functions draws one motion: tracks of angles, and
how far the person walks in each frame, in mm. The angles are those of `kinematics`; values outside
the joints' limits are held at the limits later.

Shape letters: F frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from selfpose.data.synthetic.bodies.angle_tracks import (
    FPS,
    FRAMES,
    KeyPose,
    Tracks,
    eased,
    eased_over_motion,
    smooth,
    start_heading,
)
from selfpose.data.synthetic.bodies.postures import (
    ARM_POSES,
    any_side,
    arm_angles,
    arm_pose,
    both,
    eased_leg,
    other_side,
    reaching,
    resting_arms,
    seated_legs,
    talking,
    torso,
)

__all__ = ["ACTIVITIES", "Activity"]

Activity = Callable[[np.random.Generator], tuple[Tracks, NDArray[np.float64]]]
"""Function that draws one motion: its tracks, and the steps (F,) in mm per frame."""


def _walk(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Walk along a winding path, arms swinging against the legs."""
    seconds = np.arange(FRAMES) / FPS
    pace = rng.uniform(0.65, 1.15)
    phase = 2 * np.pi * (pace * seconds + rng.random())
    stride, lift = rng.uniform(20, 36), rng.uniform(45, 70)
    swing, carry = rng.uniform(10, 38), rng.uniform(5, 70)
    stoop = rng.uniform(-4, 14)
    tracks: Tracks = {
        "heading": start_heading(rng) + np.cumsum(smooth(rng, 0.7)) / FPS,
        "lean": np.radians(stoop + 2 * np.cos(2 * phase)),
        "roll": np.radians(4 * np.sin(phase)),
        "spine_flexion": np.full(FRAMES, np.radians(rng.uniform(-5, 15))),
        "spine_twist": np.radians(rng.uniform(4, 14) * np.sin(phase)),
        "neck_twist": smooth(rng, 0.4),
        "neck_flexion": np.radians(rng.uniform(-10, 20)) + smooth(rng, 0.1),
    }
    for side, own in (("left", phase), ("right", phase + np.pi)):
        forward = np.sin(own)
        raised = np.maximum(0.0, np.cos(own + 0.35)) ** 1.5  # the swing leads the thigh
        tracks |= {
            f"{side}_hip_flexion": np.radians(stoop + 5 + stride * forward + 8 * raised),
            f"{side}_knee": np.radians(8 + lift * raised + 6 * np.maximum(0, forward)),
            f"{side}_hip_abduction": np.full(FRAMES, np.radians(rng.uniform(0, 6))),
            f"{side}_shoulder_flexion": np.radians(carry / 8 - swing * forward),
            f"{side}_shoulder_abduction": np.full(FRAMES, np.radians(rng.uniform(4, 16))),
            f"{side}_elbow": np.radians(carry + swing / 2 * (1 - forward)),
        }
    step_mm = np.full(FRAMES, 2 * pace * stride * 22 / FPS)
    return tracks, step_mm


def _sit_down(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Stand, sit down on something low or high, move there, stand up again."""
    depth = rng.uniform(75, 105)
    spread = rng.uniform(2, 20)
    legs = {
        **both("hip_flexion", depth),
        **both("knee", depth * rng.uniform(0.85, 1.05)),
        **both("hip_abduction", spread),
    }
    seated = [{**legs, **torso(rng, 12), **resting_arms(rng)} for _ in range(3)]
    if rng.random() < 0.4:  # one leg stretched or drawn back
        side = any_side(rng)
        seated[1] |= {f"{side}_knee": rng.uniform(10, 130), f"{side}_hip_flexion": depth + 5}
    bowed = {
        **both("hip_flexion", depth * 0.75),
        **both("knee", depth * 0.7),
        **both("shoulder_flexion", rng.uniform(10, 60)),
        **both("elbow", 25),
        "lean": rng.uniform(20, 38),
        "spine_flexion": rng.uniform(5, 25),
    }
    standing = [{**torso(rng, 8), **resting_arms(rng)} for _ in range(2)]
    keys = [standing[0], bowed, seated[0], seated[1], seated[2], bowed, standing[1]]
    times = np.cumsum([0.0, 1.2, 1.0, 2.2, 2.0, 1.6, 1.2]) + rng.uniform(-0.5, 1.0)
    return _turning(rng, eased(keys, times), 0.15)


def _reach(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Reach for things high, far, aside and on the floor, with one hand or both."""
    keys: list[KeyPose] = [{**torso(rng, 8), **resting_arms(rng)}]
    for _ in range(5):
        keys.append(reaching(rng))
        if rng.random() < 0.4:
            keys.append({**torso(rng, 8), **resting_arms(rng)})
    times = np.cumsum(rng.uniform(0.9, 2.0, len(keys)))
    return _turning(rng, eased(keys, times * (FRAMES / FPS) / times[-1]), 0.5)


def _wait(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Stand about: shift the weight, fold the arms, look around, wave."""
    keys: list[KeyPose] = []
    for _ in range(6):
        leg = eased_leg(rng)
        look = {"neck_twist": rng.uniform(-50, 50), "neck_flexion": rng.uniform(-15, 35)}
        keys.append({**torso(rng, 8), **resting_arms(rng), **leg, **look})
    tracks = eased(keys, np.linspace(0, FRAMES / FPS, len(keys)) + rng.uniform(-0.5, 0.5))
    if rng.random() < 0.4:
        side = any_side(rng)
        wave = np.sin(2 * np.pi * rng.uniform(0.8, 1.6) * np.arange(FRAMES) / FPS)
        tracks[f"{side}_shoulder_abduction"] = np.radians(95 + 12 * wave)
        tracks[f"{side}_shoulder_twist"] = np.radians(-60 + 10 * wave)
        tracks[f"{side}_elbow"] = np.radians(75 + 25 * wave)
    return _turning(rng, tracks, 0.6)


def _direct(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Stand and point the way: an arm stretched out, the eyes on where it points."""
    keys: list[KeyPose] = []
    for _ in range(5):
        side = any_side(rng)
        outward = 1 if side == "left" else -1
        aside = rng.uniform(-10, 75)
        keys.append(
            {
                **torso(rng, 8),
                **eased_leg(rng),
                **resting_arms(rng),
                **arm_angles(side, (rng.uniform(45, 110), aside, 0, 12), rng),
                "neck_twist": outward * (aside * 0.6 + rng.normal(0, 10)),
                "spine_twist": outward * rng.uniform(0, 20),
            }
        )
    return _turning(rng, eased_over_motion(keys, rng), 0.6)


def _discuss(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Stand and talk, with both hands beating time before the body."""
    keys = [{**talking(rng), **eased_leg(rng)} for _ in range(6)]
    tracks = eased_over_motion(keys, rng)
    for side in ("left", "right"):
        tracks[f"{side}_elbow"] = tracks[f"{side}_elbow"] + _beat(rng, rng.uniform(5, 25))
    return _turning(rng, tracks, 0.7)


def _eat(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Sit at a table; one hand goes between the plate and the mouth."""
    legs, side = seated_legs(rng), any_side(rng)
    keys: list[KeyPose] = []
    for number in range(9):
        arm = "mouth" if number % 2 else "plate"
        lean = {"lean": rng.uniform(0, 15), "neck_flexion": rng.uniform(5, 30)}
        other = arm_pose(other_side(side), str(rng.choice(["plate", "offer"])), rng)
        keys.append({**legs, **torso(rng, 6), **other, **arm_pose(side, arm, rng), **lean})
    return _turning(rng, eased_over_motion(keys, rng), 0.1)


def _greet(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Wave, bow, or reach out to shake hands or embrace, with pauses between."""
    keys: list[KeyPose] = []
    for _ in range(4):
        side = any_side(rng)
        manner = str(rng.choice(["wave", "bow", "shake", "embrace"]))
        pose: KeyPose = {**torso(rng, 6), **resting_arms(rng)}
        if manner == "bow":
            bend = rng.uniform(15, 45)
            pose |= {"lean": bend, **both("hip_flexion", bend), "neck_flexion": 25.0}
        elif manner == "embrace":
            for arm in ("left", "right"):
                angles = (rng.uniform(60, 90), rng.uniform(15, 45), 0.0, 25.0)
                pose |= arm_angles(arm, angles, rng)
        else:
            wave = (20.0, 95.0, -60.0, 75.0)
            pose |= arm_angles(side, wave if manner == "wave" else (48.0, 0.0, -10.0, 40.0), rng)
        keys += [{**torso(rng, 6), **resting_arms(rng), **eased_leg(rng)}, pose]
    tracks = eased_over_motion(keys, rng)
    side = any_side(rng)
    tracks[f"{side}_shoulder_twist"] = tracks[f"{side}_shoulder_twist"] + _beat(rng, 15)
    return _turning(rng, tracks, 0.4)


def _phone(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Hold a telephone to the ear, standing, seated or walking up and down."""
    side, manner = any_side(rng), str(rng.choice(["stand", "sit", "walk"]))
    legs = seated_legs(rng) if manner == "sit" else eased_leg(rng)
    keys: list[KeyPose] = [{**legs, **torso(rng, 6), **resting_arms(rng)} for _ in range(4)]
    if manner == "walk":
        tracks, step_mm = _walk(rng)
        step_mm = step_mm * 0.6
    else:
        tracks, step_mm = _turning(rng, eased_over_motion(keys, rng), 0.5)
    return _with_arm(rng, tracks, side, "ear"), step_mm


def _photograph(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Hold a camera before the face with both hands; stand, bend, crouch for the view."""
    keys: list[KeyPose] = []
    for _ in range(5):
        crouch = rng.uniform(0, 80) if rng.random() < 0.5 else rng.uniform(0, 10)
        bend = rng.uniform(-5, 30)
        keys.append(
            {
                **torso(rng, 8),
                **both("hip_flexion", bend + crouch * 0.6),
                **both("knee", crouch),
                "lean": bend,
                "neck_flexion": rng.uniform(-15, 15),
                "neck_twist": rng.normal(0, 8),
            }
        )
    tracks = eased_over_motion(keys, rng)
    for side in ("left", "right"):
        tracks = _with_arm(rng, tracks, side, "camera")
    return _turning(rng, tracks, 0.8)


def _pose(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Take one stance after the other and hold each for a while."""
    keys: list[KeyPose] = []
    for _ in range(4):
        side = any_side(rng)
        stance = {
            f"{side}_hip_flexion": rng.uniform(-15, 45),
            f"{side}_hip_abduction": rng.uniform(0, 30),
            f"{side}_knee": rng.uniform(0, 70),
        }
        arms = resting_arms(rng)
        if rng.random() < 0.5:  # arms in the air
            for arm in ("left", "right"):
                angles = (rng.uniform(0, 160), rng.uniform(0, 110), 0, rng.uniform(5, 100))
                arms = {**arms, **arm_angles(arm, angles, rng)}
        pose = {**torso(rng, 12), **arms, **stance}
        keys += [pose, pose]  # twice the same: held
    return _turning(rng, eased_over_motion(keys, rng), 0.6)


def _sit(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Sit and change how: legs apart, stretched or crossed, leaning, talking."""
    keys: list[KeyPose] = []
    for _ in range(5):
        arms = talking(rng) if rng.random() < 0.4 else resting_arms(rng)
        keys.append({**torso(rng, 12), **arms, **seated_legs(rng)})
    return _turning(rng, eased_over_motion(keys, rng), 0.25)


def _smoke(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Bring a hand to the mouth, let it sink, look about; standing or seated."""
    side = any_side(rng)
    legs = seated_legs(rng) if rng.random() < 0.4 else eased_leg(rng)
    rest = arm_pose(other_side(side), str(rng.choice(["hang", "hips", "folded"])), rng)
    keys: list[KeyPose] = []
    for number in range(7):
        arm = "mouth" if number % 2 else str(rng.choice(["hang", "offer"]))
        keys.append({**legs, **torso(rng, 7), **rest, **arm_pose(side, arm, rng)})
    return _turning(rng, eased_over_motion(keys, rng), 0.4)


def _walk_dog(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Walk with one arm ahead on the leash, which pulls, and an eye on the dog."""
    tracks, step_mm = _walk(rng)
    side = any_side(rng)
    tracks = _with_arm(rng, tracks, side, "leash")
    tracks[f"{side}_shoulder_flexion"] = tracks[f"{side}_shoulder_flexion"] + smooth(rng, 0.5)
    tracks["neck_flexion"] = np.radians(rng.uniform(10, 35)) + smooth(rng, 0.3)
    if rng.random() < 0.4:  # stoop to the dog for a moment
        seconds = np.arange(FRAMES) / FPS
        down = np.exp(-(((seconds - rng.uniform(3, 7)) / 1.3) ** 2))
        bend, squat = rng.uniform(30, 60), rng.uniform(10, 60)
        tracks["lean"] = tracks["lean"] + np.radians(bend) * down
        for leg in ("left", "right"):
            tracks[f"{leg}_hip_flexion"] = tracks[f"{leg}_hip_flexion"] + down * np.radians(
                bend + squat * 0.6
            )
            tracks[f"{leg}_knee"] = tracks[f"{leg}_knee"] + np.radians(squat) * down
        step_mm = step_mm * (1 - down)
    return tracks, step_mm


def _walk_together(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Walk beside somebody: the head turned to one side, a hand that talks."""
    tracks, step_mm = _walk(rng)
    side = any_side(rng)
    outward = 1 if side == "left" else -1
    tracks["neck_twist"] = np.radians(outward * rng.uniform(15, 50)) + smooth(rng, 0.5)
    talk = eased_over_motion([talking(rng) for _ in range(5)], rng)
    hand = side if rng.random() < 0.7 else other_side(side)
    arm = {name: track for name, track in talk.items() if name.startswith(hand)}
    return {**tracks, **arm}, step_mm


def _with_arm(rng: np.random.Generator, tracks: Tracks, side: str, kind: str) -> Tracks:
    """Return the tracks with one arm held in a way of `ARM_POSES` all the time, almost still."""
    pose = arm_angles(side, ARM_POSES[kind], rng)
    held = {name: np.radians(angle) + smooth(rng, 0.12) for name, angle in pose.items()}
    return {**tracks, **held}


def _beat(rng: np.random.Generator, degrees: float) -> NDArray[np.float64]:
    """Return a quick swing to and fro, (F,), in radians, whose strength rises and falls."""
    seconds = np.arange(FRAMES) / FPS
    swing = np.sin(2 * np.pi * rng.uniform(0.7, 1.5) * seconds + rng.uniform(0, 2 * np.pi))
    strength = (1 + np.sin(2 * np.pi * rng.uniform(0.1, 0.2) * seconds + rng.random() * 6)) / 2
    return np.asarray(np.radians(degrees) * strength * swing)


def _turning(
    rng: np.random.Generator, tracks: Tracks, turn_rad: float
) -> tuple[Tracks, NDArray[np.float64]]:
    """Return tracks and steps of a person who turns about slowly and stays in one place."""
    heading = start_heading(rng) + smooth(rng, turn_rad)
    return {**tracks, "heading": heading}, np.zeros(FRAMES)


# The names and their order are those of Human3.6M's result tables.
ACTIVITIES: Mapping[str, Activity] = {
    "Directions": _direct,
    "Discussion": _discuss,
    "Eating": _eat,
    "Greeting": _greet,
    "Phoning": _phone,
    "Photo": _photograph,
    "Posing": _pose,
    "Purchases": _reach,
    "Sitting": _sit,
    "SittingDown": _sit_down,
    "Smoking": _smoke,
    "Waiting": _wait,
    "Walking": _walk,
    "WalkDog": _walk_dog,
    "WalkTogether": _walk_together,
}
