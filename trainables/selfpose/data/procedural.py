"""Motions of an own articulated body, for when there is no motion file.

Read `make_corpus` first. A motion is ten seconds of one activity: angle tracks (periodic for
walking, eased between key poses for the others, small drift on top), held within the joint
limits, turned into joints by forward kinematics, its lower foot put on the floor.

Frames and units: see `selfpose.data.kinematics`. Shape letters: F frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from posetune.api import Importer, Progress
from selfpose.data.importing import ImportOptions, run_import
from selfpose.data.kinematics import LAYOUT, bone_lengths, limit_angles, pose_joints
from selfpose.data.motions import ANKLE_HEIGHT_MM, Corpus, Motion, half_of, place_in_room
from selfpose.data.seeding import generator

__all__ = ["ACTIVITIES", "IMPORTER", "ProceduralOptions", "make_corpus", "make_motion"]

FPS = 10
FRAMES = 100
"""Length of a motion."""
SUBJECTS = {"train": 12, "val": 5, "test": 5}
"""How many people each group has; `prior` shares those of `train`."""
MOTIONS = {"train": 10, "prior": 10, "val": 4, "test": 4}
"""Motions of each activity when no limit is given: 4000, 4000, 1600 and 1600 frames."""
MOTIONS_AT_LEAST = 4
"""Motions of each activity with any limit: macro averages need three."""

Tracks = dict[str, NDArray[np.float64]]
KeyPose = Mapping[str, float]
"""Angles in degrees by name."""


class ProceduralOptions(ImportOptions):
    """How a procedural store is made."""

    views: int = Field(1, ge=1, le=4, description="Cameras; a frame gives one image for each.")
    limit: int | None = Field(
        None, ge=1, description="Frames per split; default 4000 to train on, 1600 to test on."
    )


def make_corpus(options: ProceduralOptions) -> Corpus:
    """Make the motions of all splits: each activity has as many motions and frames."""
    groups = {group: [f"{group}{i + 1:02d}" for i in range(n)] for group, n in SUBJECTS.items()}
    subjects = [name for names in groups.values() for name in names]
    motions: list[Motion] = []
    for split, count in MOTIONS.items():
        if options.limit is not None:
            count = max(MOTIONS_AT_LEAST, -(-options.limit // (FRAMES * len(ACTIVITIES))))
        group = groups["train" if split == "prior" else split]
        for number, activity in enumerate(ACTIVITIES):
            for name in _names(split, activity, count=count):
                rng = generator(options.seed, "motion", name)
                subject = str(rng.choice(group))
                joints_fj3 = make_motion(activity, subject, seed=options.seed, rng=rng)
                motions.append(
                    Motion(
                        name=name,
                        subject=subjects.index(subject),
                        split=split,
                        frame_f=np.arange(FRAMES, dtype=np.int32),
                        activity_f=np.full(FRAMES, number, dtype=np.int32),
                        joints_fj3=place_in_room(joints_fj3, LAYOUT, rng=rng),
                    )
                )
    return Corpus(
        format="procedural",
        layout=LAYOUT,
        licence="made by this program; free for all uses",
        source_digest="",
        activities=tuple(ACTIVITIES),
        subjects=tuple(subjects),
        motions=tuple(motions),
    )


def make_motion(
    activity: str, subject: str, *, seed: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Make one motion of one person: joints (F, J, 3), mm, world, feet on the floor."""
    person = generator(seed, "body", subject)
    lengths_j = bone_lengths(person.uniform(1500, 1900) * 0.955, person)
    tracks, step_mm = ACTIVITIES[activity](rng)
    tracks = _with_drift(tracks, rng)
    joints_fj3 = pose_joints(lengths_j, limit_angles(tracks))
    heading = tracks["heading"]
    path_f2 = np.cumsum(step_mm[:, None] * np.stack([np.cos(heading), np.sin(heading)], 1), axis=0)
    joints_fj3[..., :2] += path_f2[:, None]
    ankles = [LAYOUT.joints.index("left_ankle"), LAYOUT.joints.index("right_ankle")]
    lowest_f = joints_fj3[:, ankles, 2].min(axis=1)
    joints_fj3[..., 2] += ANKLE_HEIGHT_MM - lowest_f[:, None]
    return joints_fj3.astype(np.float32)


def _names(split: str, activity: str, *, count: int) -> Iterator[str]:
    """Yield motion names; those of `train` and `prior` fall there by the hash of the name."""
    group = "train" if split == "prior" else split
    number = 0
    while count > 0:
        name = f"{group}/{activity}/{number:04d}"
        number += 1
        if group != "train" or half_of(name) == split:
            count -= 1
            yield name


def _walk(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Walk along a winding path, arms swinging against the legs."""
    seconds = np.arange(FRAMES) / FPS
    pace = rng.uniform(0.65, 1.15)
    phase = 2 * np.pi * (pace * seconds + rng.random())
    stride, lift = rng.uniform(20, 36), rng.uniform(45, 70)
    swing, carry = rng.uniform(10, 38), rng.uniform(5, 70)
    stoop = rng.uniform(-4, 14)
    tracks: Tracks = {
        "heading": _start_heading(rng) + np.cumsum(_smooth(rng, 0.7)) / FPS,
        "lean": np.radians(stoop + 2 * np.cos(2 * phase)),
        "roll": np.radians(4 * np.sin(phase)),
        "spine_flexion": np.full(FRAMES, np.radians(rng.uniform(-5, 15))),
        "spine_twist": np.radians(rng.uniform(4, 14) * np.sin(phase)),
        "neck_twist": _smooth(rng, 0.4),
        "neck_flexion": np.radians(rng.uniform(-10, 20)) + _smooth(rng, 0.1),
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
        **_both("hip_flexion", depth),
        **_both("knee", depth * rng.uniform(0.85, 1.05)),
        **_both("hip_abduction", spread),
    }
    seated = [{**legs, **_torso(rng, 12), **_arms(rng)} for _ in range(3)]
    if rng.random() < 0.4:  # one leg stretched or drawn back
        side = str(rng.choice(["left", "right"]))
        seated[1] |= {f"{side}_knee": rng.uniform(10, 130), f"{side}_hip_flexion": depth + 5}
    bowed = {
        **_both("hip_flexion", depth * 0.75),
        **_both("knee", depth * 0.7),
        **_both("shoulder_flexion", rng.uniform(10, 60)),
        **_both("elbow", 25),
        "lean": rng.uniform(20, 38),
        "spine_flexion": rng.uniform(5, 25),
    }
    standing = [{**_torso(rng, 8), **_arms(rng)} for _ in range(2)]
    keys = [standing[0], bowed, seated[0], seated[1], seated[2], bowed, standing[1]]
    times = np.cumsum([0.0, 1.2, 1.0, 2.2, 2.0, 1.6, 1.2]) + rng.uniform(-0.5, 1.0)
    return _turning(rng, _eased(keys, times), 0.15)


def _reach(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Reach for things high, far, aside and on the floor, with one hand or both."""
    keys: list[KeyPose] = [{**_torso(rng, 8), **_arms(rng)}]
    for _ in range(5):
        keys.append(_reaching_pose(rng))
        if rng.random() < 0.4:
            keys.append({**_torso(rng, 8), **_arms(rng)})
    times = np.cumsum(rng.uniform(0.9, 2.0, len(keys)))
    return _turning(rng, _eased(keys, times * (FRAMES / FPS) / times[-1]), 0.5)


def _wait(rng: np.random.Generator) -> tuple[Tracks, NDArray[np.float64]]:
    """Stand about: shift the weight, fold the arms, look around, wave."""
    keys: list[KeyPose] = []
    for _ in range(6):
        side = str(rng.choice(["left", "right"]))
        eased_leg = {
            f"{side}_knee": rng.uniform(5, 45),
            f"{side}_hip_flexion": rng.uniform(5, 30),
            f"{side}_hip_abduction": rng.uniform(0, 18),
            "roll": rng.uniform(0, 6) * (1 if side == "right" else -1),
        }
        look = {"neck_twist": rng.uniform(-50, 50), "neck_flexion": rng.uniform(-15, 35)}
        keys.append({**_torso(rng, 8), **_arms(rng), **eased_leg, **look})
    tracks = _eased(keys, np.linspace(0, FRAMES / FPS, len(keys)) + rng.uniform(-0.5, 0.5))
    if rng.random() < 0.4:
        side = str(rng.choice(["left", "right"]))
        wave = np.sin(2 * np.pi * rng.uniform(0.8, 1.6) * np.arange(FRAMES) / FPS)
        tracks[f"{side}_shoulder_abduction"] = np.radians(95 + 12 * wave)
        tracks[f"{side}_shoulder_twist"] = np.radians(-60 + 10 * wave)
        tracks[f"{side}_elbow"] = np.radians(75 + 25 * wave)
    return _turning(rng, tracks, 0.6)


ACTIVITIES: Mapping[str, Callable[[np.random.Generator], tuple[Tracks, NDArray[np.float64]]]] = {
    "Walking": _walk,
    "SittingDown": _sit_down,
    "Reaching": _reach,
    "Waiting": _wait,
}


def _reaching_pose(rng: np.random.Generator) -> KeyPose:
    """Draw one moment of reaching: up, forward, aside or down to the floor."""
    side = str(rng.choice(["left", "right"]))
    other = "right" if side == "left" else "left"
    both = rng.random() < 0.35
    pose: dict[str, float] = {**_torso(rng, 10), **_arms(rng)}
    target = str(rng.choice(["up", "forward", "aside", "down"]))
    flexion = {"up": (125, 175), "forward": (65, 110), "aside": (-10, 50), "down": (40, 100)}
    abduction = {"up": (0, 35), "forward": (-15, 25), "aside": (60, 110), "down": (-10, 20)}
    for arm in (side, other) if both else (side,):
        pose |= {
            f"{arm}_shoulder_flexion": rng.uniform(*flexion[target]),
            f"{arm}_shoulder_abduction": rng.uniform(*abduction[target]),
            f"{arm}_elbow": rng.uniform(3, 35),
        }
    if target == "down":
        bend, squat = rng.uniform(20, 65), rng.uniform(0, 95)
        pose |= {"lean": bend, "spine_flexion": rng.uniform(10, 50)}
        pose |= {**_both("hip_flexion", bend + squat * 0.6), **_both("knee", squat)}
    else:
        pose["spine_twist"] = rng.uniform(0, 30) * (-1 if side == "left" else 1)
    return pose


def _torso(rng: np.random.Generator, spread_deg: float) -> KeyPose:
    """Draw how the trunk and head are held; the thighs make up for the lean."""
    lean = float(rng.normal(0, spread_deg / 3))
    return {
        "lean": lean,
        "spine_flexion": float(rng.normal(4, spread_deg)),
        "spine_side": float(rng.normal(0, spread_deg / 2)),
        "spine_twist": float(rng.normal(0, spread_deg)),
        "neck_flexion": float(rng.normal(5, 12)),
        "neck_twist": float(rng.normal(0, 25)),
    }


def _arms(rng: np.random.Generator) -> KeyPose:
    """Draw what the arms do at rest; each arm its own in half of the poses."""
    kinds = ("hang", "hips", "folded", "face", "offer", "back")
    first = str(rng.choice(kinds))
    second = first if rng.random() < 0.5 else str(rng.choice(kinds))
    return {**_arm("left", first, rng), **_arm("right", second, rng)}


_ARM_POSES: Mapping[str, tuple[float, float, float, float]] = {
    "hang": (3, 8, 0, 12),
    "hips": (-22, 42, -30, 85),
    "folded": (32, 6, 45, 98),
    "face": (50, 12, 30, 132),
    "offer": (22, 12, 0, 80),
    "back": (-32, 12, 25, 40),
}
"""Flexion, abduction and twist of the shoulder, and the elbow; degrees."""


def _arm(side: str, kind: str, rng: np.random.Generator) -> KeyPose:
    names = ("shoulder_flexion", "shoulder_abduction", "shoulder_twist", "elbow")
    spread = rng.normal(0, (7, 5, 8, 10))
    angles = (float(a + b) for a, b in zip(_ARM_POSES[kind], spread, strict=True))
    return dict(zip((f"{side}_{name}" for name in names), angles, strict=True))


def _both(name: str, degrees: float) -> KeyPose:
    return {f"left_{name}": degrees, f"right_{name}": degrees}


def _eased(keys: Sequence[KeyPose], times_s: NDArray[np.float64]) -> Tracks:
    """Move from key pose to key pose, slowing down at each; angles become radians."""
    seconds = np.arange(FRAMES) / FPS
    place = np.interp(seconds, times_s, np.arange(len(keys)))
    before = np.minimum(place.astype(int), len(keys) - 2)
    share = (1 - np.cos(np.pi * (place - before))) / 2
    tracks: Tracks = {}
    for name in sorted({name for key in keys for name in key}):
        values = np.radians([key.get(name, 0.0) for key in keys])
        tracks[name] = values[before] + share * (values[before + 1] - values[before])
    return tracks


def _turning(
    rng: np.random.Generator, tracks: Tracks, turn_rad: float
) -> tuple[Tracks, NDArray[np.float64]]:
    """Let a standing or sitting person turn about slowly, without moving on."""
    heading = _start_heading(rng) + _smooth(rng, turn_rad)
    return {**tracks, "heading": heading}, np.zeros(FRAMES)


def _with_drift(tracks: Tracks, rng: np.random.Generator) -> Tracks:
    """Add a little slow movement to every joint: nobody stands still."""
    return {
        name: track if name == "heading" else track + _smooth(rng, 0.04)
        for name, track in tracks.items()
    }


def _start_heading(rng: np.random.Generator) -> float:
    return float(rng.uniform(-np.pi, np.pi))


def _smooth(rng: np.random.Generator, size: float) -> NDArray[np.float64]:
    """Draw a smooth random track (F,) of about this size: four slow waves."""
    seconds = np.arange(FRAMES) / FPS
    hertz, phase, weight = (
        rng.uniform(0.05, 0.35, 4),
        rng.uniform(0, 2 * np.pi, 4),
        rng.normal(size=4),
    )
    waves = np.sin(2 * np.pi * seconds[:, None] * hertz + phase)
    return size / 2 * (waves @ weight)


def _run(file: Path | None, out: Path, options: ProceduralOptions, progress: Progress) -> None:
    run_import(make_corpus(options), out, options, progress)


IMPORTER = Importer(
    summary="an articulated body in motion; needs no file",
    needs_file=False,
    options=ProceduralOptions,
    run=_run,
)
