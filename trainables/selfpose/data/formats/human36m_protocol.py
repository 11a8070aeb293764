"""What Human3.6M is made of, and which frames go where.

Subjects S1, S5, S6, S7, S8 train and S9, S11 test. Of a training sequence the first half gives
images and the second the 2D prior, so that they never share a frame; one training subject is held
out for validation. Of the test sequences every 64th frame is used, as most papers do. Parts of
S9's Greeting, SittingDown and Waiting are said to have shifted poses: they are kept, as papers do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from selfpose.data.photographs import PhotoOptions
from selfpose.data.synthetic.motions import first_half
from selfpose.method.skeleton import H36M_17, KEYPOINTGAN_17, Layout

__all__ = [
    "ACTIVITIES",
    "CAMERA_IDS",
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
    *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases"),
    *("Sitting", "SittingDown", "Smoking", "TakingPhoto", "Waiting", "Walking", "WalkingDog"),
    "WalkingTogether",
)
"""In the order of the dataset's numbers, which start at 2; papers' tables have another."""
SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
TEST_SUBJECTS = ("S9", "S11")
CAMERA_IDS = (54138969, 55011271, 58860488, 60457274)
FRAME_SIZES = ((1000, 1002), (1000, 1000), (1000, 1000), (1000, 1002))
"""Width and height of each camera's video, pixels."""
TEST_STRIDE = 64
LICENCE = "Human3.6M: free for academic use only, not to be passed on; vision.imar.ro/human3.6m"

JOINTS: Mapping[str, tuple[Layout, tuple[int, ...]]] = {
    "h36m17": (H36M_17, (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)),
    "keypointgan17": (
        KEYPOINTGAN_17,
        (1, 2, 3, 5, 6, 7, 8, 10, 11, 13, 15, 17, 18, 19, 25, 26, 27),
    ),
}
"""Each layout and which of the dataset's 32 joints it takes."""


class Human36MOptions(PhotoOptions):
    """How a store of Human3.6M is made."""

    layout: Literal["h36m17", "keypointgan17"] = Field("h36m17", description="Which 17 joints.")
    val: Literal["S1", "S5", "S6", "S7", "S8", "none"] = Field(
        "S8", description="The training subject that validates; none: all train."
    )
    frames: Literal["sampled", "all"] = Field(
        "sampled", description="Of the test subjects every 64th frame, or all that there are."
    )
    scale: Literal["real", "universal"] = Field(
        "real", description="Poses as they are, or of one body height."
    )


def split_frames(
    subject: str, frame_n: NDArray[Any], options: Human36MOptions
) -> dict[str, NDArray[np.bool_]]:
    """Say which rows of a sequence go into which split.

    Args:
        subject: whose sequence it is.
        frame_n: the video frame of each row, from 1; the same frame of several cameras is one.
        options: which subject validates, which frames test.
    """
    if subject in TEST_SUBJECTS:
        every = options.frames == "all"
        return {"test": np.full(len(frame_n), every) | ((frame_n - 1) % TEST_STRIDE == 0)}
    if subject == options.val:
        return {"val": np.ones(len(frame_n), dtype=bool)}
    first_half_n = first_half(frame_n)
    splits = {"train": first_half_n, "prior": ~first_half_n}
    if options.val == "none":  # something to watch; it decides nothing
        _, place_n = np.unique(frame_n[~first_half_n], return_inverse=True)
        splits["val"] = np.zeros(len(frame_n), dtype=bool)
        splits["val"][~first_half_n] = place_n.reshape(-1) % TEST_STRIDE == 0
    return splits


def describe_protocol(options: Human36MOptions) -> dict[str, str]:
    """Say in words how the frames were split."""
    every = "all frames" if options.frames == "all" else f"every {TEST_STRIDE}th frame"
    held_out = f"subject {options.val}"
    if options.val == "none":
        held_out = "NOT held out: some frames of the prior's halves, to watch a final training by"
    return {
        "scale": options.scale,
        "train and prior": "first and second halves of the other subjects' sequences",
        "val": held_out,
        "test": f"S9 and S11, {every}",
    }
