"""Says what MPI-INF-3DHP consists of, and which frames are used.

The first half of a training sequence gives images and the second half the 2D prior. Every 10th
training frame is used if all its joints are inside the picture (as SPIN does), and the valid frames
of the test set. Poses are universal, which means at one body height, because the test's errors are
measured on such poses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from selfpose.data.pictures.photographs import Photographs, PhotoOptions
from selfpose.data.sources import Skip

__all__ = [
    "ACTIVITIES",
    "CAMERAS",
    "LICENCE",
    "OUTDOORS",
    "OUTDOORS_SIZE",
    "SHORT_VIDEOS",
    "STUDIO_SIZE",
    "SUBJECTS",
    "TEST_ACTIVITIES",
    "TEST_JOINTS",
    "TEST_SLACK",
    "TRAIN_JOINTS",
    "TRAIN_SLACK",
    "TRAIN_STRIDE",
    "TRAIN_SUBJECTS",
    "USABLE_FRAMES",
    "VALID_FRAMES",
    "Gathered",
    "MpiInf3dhpOptions",
]

TEST_ACTIVITIES = (
    "Standing/Walking",
    "Exercising",
    "Sitting",
    "Reaching/Crouching",
    "On The Floor",
    "Sports",
    "Miscellaneous",
)
"""Names of the test set's activities, in the order of their numbers from 1."""
ACTIVITIES = (*TEST_ACTIVITIES, "Sequence 1", "Sequence 2")
"""Names of all activities. Training frames have no activity, so the names of the two sequences of
each subject stand for it."""
TRAIN_SUBJECTS = tuple(f"S{i}" for i in range(1, 9))
"""Names of the subjects to train on."""
SUBJECTS = (*TRAIN_SUBJECTS, *(f"TS{i}" for i in range(1, 7)))
"""Names of all subjects; each test sequence counts as one."""
CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
"""Numbers of the cameras at chest height, which all papers use; the other cameras hang from the
ceiling or stand low."""
STUDIO_SIZE = (2048, 2048)
"""Width and height in pixels of the frames in which studio sequences are annotated."""
OUTDOORS_SIZE = (1920, 1080)
"""Width and height in pixels of the frames in which outdoor sequences are annotated."""
OUTDOORS = ("TS5", "TS6")
"""Names of the test sequences that were recorded outdoors."""
TRAIN_STRIDE = 10
"""Distance in frames between the training frames that are used."""
VALID_FRAMES = 2929
"""Number of valid frames in the whole test set."""
TRAIN_SLACK = 0.5
"""How far outside the frame a joint of a training frame may lie, as a share of the frame's side.
People walk out of the picture, and pictures are cropped; a joint farther out is no part of it."""
TEST_SLACK = 0.25
"""How far outside the frame a joint of a test frame may lie, as a share of the frame's side. Joints
of valid test frames can be outside the picture; a joint farther out is a fault."""

USABLE_FRAMES = {
    "S1/Seq1": 6416,
    "S1/Seq2": 12430,
    "S2/Seq1": 6502,
    "S2/Seq2": 6081,
    "S3/Seq1": 12488,
    "S3/Seq2": 12283,
    "S4/Seq1": 6171,
    "S4/Seq2": 6675,
    "S5/Seq1": 12820,
    "S5/Seq2": 12312,
    "S6/Seq1": 6188,
    "S6/Seq2": 6145,
    "S7/Seq1": 6239,
    "S7/Seq2": 6320,
    "S8/Seq1": 6468,
    "S8/Seq2": 6054,
}
"""Number of frames of each sequence's videos, after which annotations can go on. Source: the
dataset's own mpii_get_sequence_info."""
SHORT_VIDEOS = (("S6/Seq2", 2),)
"""Sequence and camera of the videos that are too short in the dataset itself."""

TRAIN_JOINTS = [4, 23, 24, 25, 18, 19, 20, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16]
"""Indices of h36m17's joints among the 28 joints of training sequences. The dataset's neck is taken
as thorax, its head as neck and its top of the head as head."""
TEST_JOINTS = [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]
"""Indices of h36m17's joints among the 17 joints of test sequences."""

LICENCE = "MPI-INF-3DHP: free for research only; vcai.mpi-inf.mpg.de/3dhp-dataset"


class MpiInf3dhpOptions(PhotoOptions):
    """Holds the options of an import of MPI-INF-3DHP."""

    val: Literal["S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "none"] = Field(
        "S8",
        description="Training subject that is held out for validation; `none` trains on all.",
    )
    frames: Literal["sampled", "all"] = Field(
        "sampled",
        description="Which frames of the training sequences are used: every 10th (`sampled`), or "
        "all.",
    )
    scale: Literal["real", "universal"] = Field(
        "universal",
        description="Scale of the 3D poses: at one body height for all subjects (`universal`), as "
        "published results are measured, or as they were measured (`real`).",
    )
    whole_people: bool = Field(
        False,
        description="Whether training frames are left out in which a joint lies outside the "
        "picture, as SPIN does.",
    )


@dataclass
class Gathered:
    """Holds the rows of one sequence by split, and what is left out of it."""

    name: str
    """Name of the sequence, e.g. `S1/Seq1`."""
    sha256: str
    """SHA-256 of the file of annotations."""
    parts: dict[str, list[Photographs]] = field(default_factory=dict)
    """Rows of each split, by the split's name."""
    skipped: list[Skip] = field(default_factory=list)
    """Bad items."""
    excluded: list[Skip] = field(default_factory=list)
    """Items that are left out on purpose, from every copy of the dataset."""
