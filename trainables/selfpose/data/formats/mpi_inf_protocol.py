"""What MPI-INF-3DHP is made of, and which frames go where.

Of a training sequence the first half gives images and the second the 2D prior. Training frames
are every 10th whose joints are all inside the picture (as SPIN does); of the test set the valid
frames. Poses are universal, of one body height, as the test's errors are measured on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from selfpose.data.photographs import Photographs, PhotoOptions
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
    "TRAIN_STRIDE",
    "TRAIN_SUBJECTS",
    "USABLE_FRAMES",
    "VALID_FRAMES",
    "Gathered",
    "MpiInf3dhpOptions",
]

TEST_ACTIVITIES = (
    *("Standing/Walking", "Exercising", "Sitting", "Reaching/Crouching", "On The Floor"),
    *("Sports", "Miscellaneous"),
)
ACTIVITIES = (*TEST_ACTIVITIES, "Sequence 1", "Sequence 2")
"""The test set's, by number from 1; training frames say only which sequence they are of."""
TRAIN_SUBJECTS = tuple(f"S{i}" for i in range(1, 9))
SUBJECTS = (*TRAIN_SUBJECTS, *(f"TS{i}" for i in range(1, 7)))
CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
"""Those at chest height, which all papers use; the others hang from the ceiling or stand low."""
STUDIO_SIZE, OUTDOORS_SIZE = (2048, 2048), (1920, 1080)
"""Width and height of the frames that annotations are in, pixels."""
OUTDOORS = ("TS5", "TS6")
TRAIN_STRIDE = 10
VALID_FRAMES = 2929
TEST_SLACK = 0.25
"""A test frame counts though a joint is outside the picture; this far out it is a fault."""

# Frames that the videos have: annotations can go on. From the dataset's mpii_get_sequence_info.
USABLE_FRAMES = {
    **{"S1/Seq1": 6416, "S1/Seq2": 12430, "S2/Seq1": 6502, "S2/Seq2": 6081},
    **{"S3/Seq1": 12488, "S3/Seq2": 12283, "S4/Seq1": 6171, "S4/Seq2": 6675},
    **{"S5/Seq1": 12820, "S5/Seq2": 12312, "S6/Seq1": 6188, "S6/Seq2": 6145},
    **{"S7/Seq1": 6239, "S7/Seq2": 6320, "S8/Seq1": 6468, "S8/Seq2": 6054},
}
SHORT_VIDEOS = (("S6/Seq2", 2),)

TRAIN_JOINTS = [4, 23, 24, 25, 18, 19, 20, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16]
"""Which of the 28 are the joints of h36m17: spine, neck as thorax, head as neck, top as head."""
TEST_JOINTS = [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]
"""Which of the test set's 17."""

LICENCE = "MPI-INF-3DHP: free for research only; vcai.mpi-inf.mpg.de/3dhp-dataset"


class MpiInf3dhpOptions(PhotoOptions):
    """How a store of MPI-INF-3DHP is made."""

    val: Literal["S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "none"] = Field(
        "S8", description="The training subject that validates; none: all train."
    )
    frames: Literal["sampled", "all"] = Field(
        "sampled", description="Of the training sequences every 10th frame, or all."
    )
    scale: Literal["real", "universal"] = Field(
        "universal",
        description="Poses of one body height, as results are measured, or as they are.",
    )


@dataclass
class Gathered:
    """What one sequence gives: its rows by split, and what is left out of it."""

    name: str
    sha256: str
    """Of the annotations."""
    parts: dict[str, list[Photographs]] = field(default_factory=dict)
    skipped: list[Skip] = field(default_factory=list)
    excluded: list[Skip] = field(default_factory=list)
