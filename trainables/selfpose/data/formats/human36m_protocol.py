"""Says what Human3.6M consists of, and decides which frames go into which split.

Subjects S1, S5, S6, S7, S8 train and S9, S11 test. The first half of a training sequence gives
images and the second half the 2D prior, so that they never share a frame; one training subject is
held out for validation. Every 64th frame of the test sequences is used, as in most papers. The
poses of three of S9's sequences are known to be shifted against the pictures. They are kept, as in
most papers, unless `--exclude-drift` leaves them out; `evaluate` gives its figure both ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from selfpose.data.pictures.photographs import PhotoOptions
from selfpose.data.synthetic.motions import first_half
from selfpose.method.skeleton import H36M_17, KEYPOINTGAN_17, Layout

__all__ = [
    "ACTIVITIES",
    "CAMERA_IDS",
    "DRIFT",
    "DRIFTED",
    "DRIFTED_STEMS",
    "FRAME_SIZES",
    "JOINTS",
    "LICENCE",
    "SUBJECTS",
    "TEST_STRIDE",
    "TEST_SUBJECTS",
    "Human36MOptions",
    "describe_protocol",
    "split_frames",
]

ACTIVITIES = (
    "Directions",
    "Discussion",
    "Eating",
    "Greeting",
    "Phoning",
    "Posing",
    "Purchases",
    "Sitting",
    "SittingDown",
    "Smoking",
    "TakingPhoto",
    "Waiting",
    "Walking",
    "WalkingDog",
    "WalkingTogether",
)
"""Names of the activities in the order of the dataset's numbers, which begin at 2. The tables of
papers have another order."""
SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
"""Names of all subjects."""
TEST_SUBJECTS = ("S9", "S11")
"""Names of the subjects that are only tested on."""
CAMERA_IDS = (54138969, 55011271, 58860488, 60457274)
"""The dataset's numbers of the four cameras."""
FRAME_SIZES = ((1000, 1002), (1000, 1000), (1000, 1000), (1000, 1002))
"""Width and height of each camera's video in pixels."""
TEST_STRIDE = 64
"""Distance in frames between the frames of the test sequences that are used."""
DRIFTED = ("S9/Greeting-2", "S9/SittingDown-2", "S9/Waiting-1")
"""Sequences whose poses are shifted, by h36m-fetch's names. Source: Iskakov et al. 2019, Learnable
Triangulation, whose code leaves them out as damaged."""
DRIFTED_STEMS = ("S9/Greeting", "S9/SittingDown 1", "S9/Waiting 1")
"""The same sequences by the dataset's own names, which VideoPose3D's files have."""
DRIFT = "known to be shifted against the pictures (--exclude-drift)"
LICENCE = "Human3.6M: free for academic use only, not to be passed on; vision.imar.ro/human3.6m"

JOINTS: Mapping[str, tuple[Layout, tuple[int, ...]]] = {
    "h36m17": (H36M_17, (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)),
    "keypointgan17": (
        KEYPOINTGAN_17,
        (1, 2, 3, 5, 6, 7, 8, 10, 11, 13, 15, 17, 18, 19, 25, 26, 27),
    ),
}
"""Joint layouts by name, each with the indices of its joints among the dataset's 32."""


class Human36MOptions(PhotoOptions):
    """Holds the options of an import of Human3.6M."""

    layout: Literal["h36m17", "keypointgan17"] = Field(
        "h36m17",
        description="Which 17 of the dataset's joints are used: the usual ones, or KeypointGAN's.",
    )
    val: Literal["S1", "S5", "S6", "S7", "S8", "none"] = Field(
        "S8",
        description="Training subject that is held out for validation; `none` trains on all.",
    )
    frames: Literal["sampled", "all"] = Field(
        "sampled",
        description="Which frames of the test subjects are used: every 64th (`sampled`), or all.",
    )
    scale: Literal["real", "universal"] = Field(
        "real",
        description="Scale of the 3D poses: as they were measured (`real`), or at one body height "
        "for all subjects (`universal`).",
    )
    exclude_drift: bool = Field(
        False,
        description="Whether the three test sequences are left out whose poses are known to be "
        "shifted: S9 Greeting, SittingDown 1 and Waiting 1.",
    )


def split_frames(
    subject: str, frame_n: NDArray[Any], options: Human36MOptions
) -> dict[str, NDArray[np.bool_]]:
    """Decide which rows of a sequence go into which split.

    Args:
        subject: name of the sequence's subject.
        frame_n: number of each row's video frame, (N,), from 1; rows of several cameras share it.
        options: which subject validates, and which frames are tested on.

    Returns:
        For each split the rows that go into it, (N,); a row may be in no split.
    """
    if subject in TEST_SUBJECTS:
        every = options.frames == "all"
        return {"test": np.full(len(frame_n), every) | ((frame_n - 1) % TEST_STRIDE == 0)}
    if subject == options.val:
        return {"val": np.ones(len(frame_n), dtype=bool)}
    first_half_n = first_half(frame_n)
    splits = {"train": first_half_n, "prior": ~first_half_n}
    # Without a held-out subject, some frames of the prior's half let one watch the training.
    if options.val == "none":
        _, place_n = np.unique(frame_n[~first_half_n], return_inverse=True)
        splits["val"] = np.zeros(len(frame_n), dtype=bool)
        splits["val"][~first_half_n] = place_n.reshape(-1) % TEST_STRIDE == 0
    return splits


def describe_protocol(options: Human36MOptions) -> dict[str, str]:
    """Return how the frames were split, in words, for the store's facts."""
    every = "all frames" if options.frames == "all" else f"every {TEST_STRIDE}th frame"
    held_out = f"subject {options.val}"
    if options.val == "none":
        held_out = "NOT held out: some frames of the prior's halves, to watch a final training by"
    return {
        "scale": options.scale,
        "annotations": "pose/3d" if options.scale == "real" else "pose/3d-univ",
        "drift": "three shifted sequences of S9 left out" if options.exclude_drift else "kept",
        "train and prior": "first and second halves of the other subjects' sequences",
        "val": held_out,
        "test": f"S9 and S11, {every}",
    }
