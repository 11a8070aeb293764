"""Motions of an own articulated body, for when there is no motion file.

Read `make_corpus` first. A motion is ten seconds of one activity: angle tracks (periodic for
walking, eased between key poses for the others, small drift on top), held within the joint
limits, turned into joints by forward kinematics, its lower foot put on the floor.

Frames and units: see `selfpose.data.synthetic.bodies.kinematics`. Shape letters: F frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from posetune.api import Importer, Progress
from selfpose.data.importing import run_import
from selfpose.data.seeding import generator
from selfpose.data.synthetic.bodies.activities import ACTIVITIES
from selfpose.data.synthetic.bodies.angle_tracks import FRAMES, with_drift
from selfpose.data.synthetic.bodies.kinematics import (
    LAYOUT,
    bone_lengths,
    limit_angles,
    pose_joints,
)
from selfpose.data.synthetic.drawing import DrawingOptions, draw_corpus
from selfpose.data.synthetic.motions import ANKLE_HEIGHT_MM, Corpus, Motion, half_of, place_in_room

__all__ = [
    "ACTIVITIES",
    "IMPORTER",
    "LICENCE",
    "ProceduralOptions",
    "make_corpus",
    "make_motion",
    "make_motions",
]

SUBJECTS = {"train": 12, "val": 5, "test": 5}
"""How many people each group has; `prior` shares those of `train`."""
MOTIONS = {"train": 6, "prior": 6, "val": 4, "test": 4}
"""Motions of each activity when no limit is given: 9000, 9000, 6000 and 6000 frames."""
LICENCE = "made by this program; free for all uses"
MOTIONS_AT_LEAST = 4
"""Motions of each activity with any limit: macro averages need three."""


class ProceduralOptions(DrawingOptions):
    """How a procedural store is made."""

    views: int = Field(1, ge=1, le=4, description="Cameras; a frame gives one image for each.")
    limit: int | None = Field(
        None, ge=1, description="Frames per split; default 9000 to train on, 6000 to test on."
    )


def make_corpus(options: ProceduralOptions) -> Corpus:
    """Make the motions of all splits: each activity has as many motions and frames."""

    def make(activity: str, subject: str, rng: np.random.Generator) -> NDArray[np.float32]:
        joints_fj3 = make_motion(activity, subject, seed=options.seed, rng=rng)
        return place_in_room(joints_fj3, LAYOUT, rng=rng)

    subjects, motions = make_motions(options, tuple(ACTIVITIES), make)
    return Corpus(
        format="procedural",
        layout=LAYOUT,
        licence=LICENCE,
        source_digest="",
        activities=tuple(ACTIVITIES),
        subjects=subjects,
        motions=motions,
    )


def make_motions(
    options: ProceduralOptions,
    activities: Sequence[str],
    make: Callable[[str, str, np.random.Generator], NDArray[np.float32]],
) -> tuple[tuple[str, ...], tuple[Motion, ...]]:
    """Make the subjects and motions of all splits.

    Args:
        options: seed and limit.
        activities: their names; each gets as many motions.
        make: `make(activity, subject, rng)` returns joints (F, J, 3), placed in the room.
    """
    groups = {group: [f"{group}{i + 1:02d}" for i in range(n)] for group, n in SUBJECTS.items()}
    subjects = [name for names in groups.values() for name in names]
    motions: list[Motion] = []
    for split, count in MOTIONS.items():
        if options.limit is not None:
            count = max(MOTIONS_AT_LEAST, -(-options.limit // (FRAMES * len(activities))))
        group = groups["train" if split == "prior" else split]
        for number, activity in enumerate(activities):
            for name in _names(split, activity, count=count):
                rng = generator(options.seed, "motion", name)
                subject = str(rng.choice(group))
                motions.append(
                    Motion(
                        name=name,
                        subject=subjects.index(subject),
                        split=split,
                        frame_f=np.arange(FRAMES, dtype=np.int32),
                        activity_f=np.full(FRAMES, number, dtype=np.int32),
                        joints_fj3=make(activity, subject, rng),
                    )
                )
    return tuple(subjects), tuple(motions)


def make_motion(
    activity: str, subject: str, *, seed: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Make one motion of one person: joints (F, J, 3), mm, world, feet on the floor."""
    person = generator(seed, "body", subject)
    lengths_j = bone_lengths(person.uniform(1500, 1900) * 0.955, person)
    tracks, step_mm = ACTIVITIES[activity](rng)
    tracks = with_drift(tracks, rng)
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


def _run(file: Path | None, out: Path, options: ProceduralOptions, progress: Progress) -> None:
    run_import(draw_corpus(make_corpus(options), options), out, options, progress)


IMPORTER = Importer(
    summary="an articulated body in motion; needs no file",
    needs_file=False,
    options=ProceduralOptions,
    run=_run,
)
