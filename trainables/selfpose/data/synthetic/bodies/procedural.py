"""Makes motions of an articulated body, for a store without any motion file.

Read `make_corpus` first. A motion is ten seconds of one activity. Its angle tracks (periodic for
walking, eased between key poses for other activities, with a small drift on top) are held within
the joint limits and turned into joints by forward kinematics, and the lower foot is put on the
floor.

Frames and units: see `selfpose.data.synthetic.bodies.kinematics`.
Shape letters: F frames, J joints.
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
from selfpose.data.synthetic.motions import (
    ANKLE_HEIGHT_MM,
    Corpus,
    Motion,
    check_corpus,
    half_of,
    place_in_room,
)

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
"""Number of people in each group; the split `prior` shares those of `train`."""
MOTIONS = {"train": 6, "prior": 6, "val": 4, "test": 4}
"""Number of motions of each activity in each split if no limit is given; with 15 activities they
have 9000, 9000, 6000 and 6000 frames."""
LICENCE = "made by this program; free for all uses"
MOTIONS_AT_LEAST = 4
"""Smallest number of motions of each activity, whatever the limit; macro averages need three."""


class ProceduralOptions(DrawingOptions):
    """Holds the options of an import that makes its own motions."""

    views: int = Field(
        1,
        ge=1,
        le=4,
        description="Number of cameras; each frame of a motion gives one image per camera.",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="Highest number of frames in each split. Default: 600 to train on and 400 to "
        "test on, for each activity.",
    )


def make_corpus(options: ProceduralOptions) -> Corpus:
    """Make the motions of all splits; all activities have equally many motions and frames."""

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
        options: the seed and the limit.
        activities: names of the activities; all get equally many motions.
        make: function that makes one motion: `make(activity, subject, rng)` returns joints
            (F, J, 3) in mm in world axes, placed in the room.

    Returns:
        Names of the subjects, and the motions.
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
    """Make one motion of one person.

    Args:
        activity: name of the activity, a key of `ACTIVITIES`.
        subject: name of the person, which decides the lengths of the bones.
        seed: seed of the person's bones.
        rng: generator of the movement.

    Returns:
        Joints, (F, J, 3), in mm in world axes, with the lower foot of each frame on the floor.
    """
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
    """Yield names for the motions of a split and activity.

    The hash of a name decides between `train` and `prior`, so names of the other split are passed
    over.
    """
    group = "train" if split == "prior" else split
    number = 0
    while count > 0:
        name = f"{group}/{activity}/{number:04d}"
        number += 1
        if group != "train" or half_of(name) == split:
            count -= 1
            yield name


def _run(file: Path | None, out: Path, options: ProceduralOptions, progress: Progress) -> None:
    corpus = check_corpus(make_corpus(options), "procedural")
    run_import(draw_corpus(corpus, options), out, options, progress)


IMPORTER = Importer(
    summary="an articulated body in motion; needs no file",
    needs_file=False,
    options=ProceduralOptions,
    run=_run,
)
