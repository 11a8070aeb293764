"""Makes a page on which predicted poses turn, beside what the model saw.

Shape letters: J joints, S side of the model's images in pixels.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from numpy.typing import NDArray

from posetune.api import Predictor

__all__ = ["MOST_POSES", "PoseSample", "ViewedPose", "build_viewer"]

MOST_POSES = 200
"""Number of poses that a page shows at most."""
_QUALITY = 85
"""Quality of the pictures as JPEG, of 100."""


@dataclass(frozen=True)
class ViewedPose:
    """Holds one pose of the page."""

    name: str
    """The file, and the frame if it is a video."""
    image_ss3: NDArray[np.uint8]
    """What the model saw, (S, S, 3), RGB, brightness 0 to 255."""
    pose_j3: NDArray[Any]
    """The pose, (J, 3), in camera axes, in units of its mean bone length."""


class PoseSample:
    """Keeps evenly spaced poses of a sequence whose length is not known beforehand.

    A long video is thinned while it is read, so its pictures never fill the memory.
    """

    def __init__(self) -> None:
        """Keep every pose at first."""
        self.poses: list[ViewedPose] = []
        self._step = 1
        self._seen = 0

    def add(self, pose: ViewedPose) -> None:
        """Take in the next pose; of too many that are kept, let every second one go."""
        if self._seen % self._step == 0:
            self.poses.append(pose)
        self._seen += 1
        if len(self.poses) > 2 * MOST_POSES:
            self.poses = self.poses[::2]
            self._step *= 2


def build_viewer(poses: Sequence[ViewedPose], predictor: Predictor, *, of: int) -> str:
    """Return the page.

    Args:
        poses: the poses; if there are more than `MOST_POSES`, evenly spaced ones are shown.
        predictor: the model, for its joints and limbs.
        of: number of poses that were predicted.
    """
    places = np.linspace(0, len(poses) - 1, min(len(poses), MOST_POSES)).round().astype(int)
    chosen = [poses[place] for place in places]
    sides = [_side(predictor.joint_names[child]) for child, _ in predictor.limbs]
    data = {
        "limbs": [[*limb, side] for limb, side in zip(predictor.limbs, sides, strict=True)],
        "names": [pose.name for pose in chosen],
        "poses": [_centred(pose.pose_j3) for pose in chosen],
        "pictures": [_jpeg(pose.image_ss3) for pose in chosen],
    }
    return _template().render(data=data, shown=len(chosen), of=of) + "\n"


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("posetune.report.pages"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("viewer.html")


def _centred(pose_j3: NDArray[Any]) -> list[list[float]]:
    centre_13 = (pose_j3.min(axis=0) + pose_j3.max(axis=0)) / 2
    return [[round(float(value), 3) for value in joint] for joint in pose_j3 - centre_13]


def _jpeg(image_ss3: NDArray[np.uint8]) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image_ss3[:, :, ::-1]), quality)
    return base64.b64encode(data.tobytes()).decode()


def _side(joint: str) -> str:
    return joint.partition("_")[0] if joint.startswith(("left", "right")) else "middle"
