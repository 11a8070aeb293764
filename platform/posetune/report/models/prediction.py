"""Predicts poses from pictures and videos: crops them, asks the model, writes poses.

Shape letters: N pictures, J joints, S side of the model's images in pixels, H and W height and
width of a picture in pixels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from posetune.api import BadInputError, Predictor, Progress, silent
from posetune.report.models.frames import (
    VIDEO_SUFFIXES,
    Boxes,
    check_pixels,
    count_frames,
    frames_of,
)
from posetune.report.pages.viewer import PoseSample, ViewedPose, build_viewer
from posetune.storage.whole_files import write_whole

__all__ = ["PictureCrop", "PicturePoses", "find_pictures", "predict_pictures"]

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_AT_ONCE = 64
"""Number of pictures in one call of the model."""
_COLOURS = {"left": "#0072b2", "right": "#e69f00", "middle": "#000000"}
"""Colour of each side of the body, from Okabe and Ito's palette, which people with any kind of
colour blindness tell apart."""
_VIEWS = {
    "camera": (0.0, 0.0),
    "half turned": (45.0, 0.0),
    "from the side": (90.0, 0.0),
    "from above": (0.0, 90.0),
}
"""Turn of each drawing about the vertical axis, then about the horizontal one, in degrees."""
_CELL_INCHES = 1.7
_FRAME = "camera axes: x right, y down, z away; first joint at 0; mean limb length 1"


@dataclass(frozen=True)
class PictureCrop:
    """Says which square of a picture the model sees."""

    how: str = "center"
    """How the square is found: `center` takes the largest square in the middle, `pad` the whole
    picture with borders, `box` the square `box`."""
    box: tuple[int, int, int] = (0, 0, 0)
    """Left, top and side of the square in pixels, for `how="box"`."""

    @classmethod
    def parse(cls, text: str) -> PictureCrop:
        """Read the option `--crop`: `center`, `pad` or `X,Y,SIDE` in pixels.

        Raises:
            BadInputError: the text is none of these.
        """
        if text in ("center", "pad"):
            return cls(text)
        parts = text.split(",")
        if len(parts) == 3 and all(part.strip().isdecimal() for part in parts):
            left, top, side = (int(part) for part in parts)
            if side > 0:
                return cls("box", (left, top, side))
        raise BadInputError(
            f"--crop {text}: write center, pad, or X,Y,SIDE in pixels, e.g. --crop 40,0,512"
        )

    def square(self, height: int, width: int) -> tuple[int, int, int]:
        """Return left, top and side of the square in pixels; it may reach over the picture's edge.

        Args:
            height: height of the picture in pixels.
            width: width of the picture in pixels.
        """
        if self.how == "box":
            return self.box
        side = min(height, width) if self.how == "center" else max(height, width)
        return (width - side) // 2, (height - side) // 2, side


@dataclass
class PicturePoses:
    """Holds what became of each picture."""

    poses: list[dict[str, Any]] = field(default_factory=list)
    """The pictures with a pose: file, size, crop and joints of each."""
    skipped: list[dict[str, str]] = field(default_factory=list)
    """The files that were skipped: file and reason of each."""


def find_pictures(given: Iterable[Path]) -> list[Path]:
    """Return the given files, and all files below the given folders that are pictures or videos.

    They are known by the ends of their names.

    Raises:
        BadInputError: a path does not exist or is neither file nor folder, or no file was found.
    """
    found: list[Path] = []
    suffixes = _SUFFIXES | VIDEO_SUFFIXES
    for path in given:
        if path.is_dir():
            found += sorted(
                p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file()
            )
        elif path.is_file():
            found.append(path)
        elif path.exists():
            raise BadInputError(f"{path}: is a pipe or a device, not a file; name a file or folder")
        else:
            raise BadInputError(f"{path}: no such file or folder")
    if not found:
        raise BadInputError(
            f"there is no picture in {', '.join(map(str, given))}; looked for "
            f"{', '.join(sorted(suffixes))}"
        )
    return list(dict.fromkeys(found))


def predict_pictures(
    files: Sequence[Path],
    predictor: Predictor,
    out: Path,
    *,
    crop: PictureCrop,
    boxes: Boxes | None = None,
    every: int = 1,
    draw: bool = True,
    progress: Progress = silent,
) -> PicturePoses:
    """Write `poses.json`, `poses.npz`, a drawing of each picture and a page to look at all.

    A file that is no picture and no video is skipped and named.

    Args:
        files: the pictures and videos.
        predictor: the model.
        out: folder to write to; it is made if it does not exist, and files in it are replaced.
        crop: the square of each picture that the model sees.
        boxes: the squares of each picture instead, one for each person; a picture without any is
            skipped. None takes `crop`.
        every: of a video, take each frame that is so many frames after the one before.
        draw: whether to write drawings.
        progress: hears how many pictures are done.

    Returns:
        The poses and the skipped files.

    Raises:
        BadInputError: none of the files is a picture, the model gives no numbers, or the folder
            cannot be written to.
    """
    done = PicturePoses()
    total = count_frames(files, every)
    shown = PoseSample()
    try:
        out.mkdir(parents=True, exist_ok=True)
        cuts = _cuts(files, predictor.image_size, crop=crop, boxes=boxes, every=every, done=done)
        for images_nss3, read in _batches(cuts):
            poses_nj3 = predictor(images_nss3)
            if not np.isfinite(poses_nj3).all():
                raise BadInputError(
                    "the model answers with numbers that are not finite, so its weights are "
                    "damaged; name another model"
                )
            for image_ss3, pose_j3, facts in zip(images_nss3, poses_nj3, read, strict=True):
                number = len(done.poses) + 1
                if draw:
                    facts["drawing"] = f"{number:05d}-{Path(facts['file']).stem[:80]}.png"
                    write_whole(out / facts["drawing"], _draw(image_ss3, pose_j3, predictor))
                done.poses.append({**facts, "joints": pose_j3.tolist()})
                shown.add(ViewedPose(_name(facts), image_ss3, pose_j3))
                finished = number + len(done.skipped)
                progress(finished, max(total, finished), f"{len(done.skipped)} skipped")
        if not done.poses:
            first = done.skipped[0]
            raise BadInputError(
                f"none of {len(files)} files is a picture: {first['file']}: {first['reason']}"
            )
        write_whole(out / "poses.npz", _arrays(done, predictor))
        write_whole(out / "poses.json", _document(done, predictor))
        write_whole(out / "viewer.html", build_viewer(shown.poses, predictor, of=len(done.poses)))
    except OSError as error:
        raise BadInputError(f"--out {out}: cannot be written ({error.strerror})") from error
    return done


def _cuts(
    files: Sequence[Path],
    side: int,
    *,
    crop: PictureCrop,
    boxes: Boxes | None,
    every: int,
    done: PicturePoses,
) -> Iterator[tuple[NDArray[np.uint8], dict[str, Any]]]:
    """Yield the images to predict from, (S, S, 3), with facts of each.

    Files that cannot be read and pictures without a box are added to `done`.
    """
    for file in files:
        try:
            for frame in frames_of(file, every):
                height, width = frame.image_hw3.shape[:2]
                squares, whose = [crop.square(height, width)], f"the square of --crop {crop.how}"
                if boxes is not None:
                    squares = list(boxes.of(file, frame.number))
                    whose = f"its box in {boxes.source}"
                where = {"file": str(file)} | (
                    {} if frame.number is None else {"frame": frame.number}
                )
                if not squares:
                    _skip(done, where, f"has no box in {'' if boxes is None else boxes.source}")
                for square in squares:
                    try:
                        check_pixels(whose, square[2], square[2])
                        image_ss3 = _cut(frame.image_hw3, square, side)
                    except BadInputError as error:
                        _skip(done, where, str(error))
                        continue
                    yield image_ss3, {**where, "size": [width, height], "crop": list(square)}
        except BadInputError as error:
            _skip(done, {"file": str(file)}, str(error))


def _skip(done: PicturePoses, where: dict[str, Any], reason: str) -> None:
    done.skipped.append({"file": _name(where), "reason": reason})


def _name(facts: dict[str, Any]) -> str:
    return str(facts["file"]) + (f", frame {facts['frame']}" if "frame" in facts else "")


def _batches(
    cuts: Iterable[tuple[NDArray[np.uint8], dict[str, Any]]],
) -> Iterator[tuple[NDArray[np.uint8], list[dict[str, Any]]]]:
    """Yield batches of images (N, S, S, 3) with facts of each."""
    images: list[NDArray[np.uint8]] = []
    read: list[dict[str, Any]] = []
    for image_ss3, facts in cuts:
        images.append(image_ss3)
        read.append(facts)
        if len(images) == _AT_ONCE:
            yield np.stack(images), read
            images, read = [], []
    if images:
        yield np.stack(images), read


def _cut(
    image_hw3: NDArray[np.uint8], square: tuple[int, int, int], side: int
) -> NDArray[np.uint8]:
    """Return a square of a picture, (S, S, 3) with S = `side`.

    Pixels of the square that lie outside the picture repeat the picture's edge.
    """
    height, width = image_hw3.shape[:2]
    left, top, length = square
    if left >= width or top >= height or left + length <= 0 or top + length <= 0:
        raise BadInputError(
            f"the square {left},{top},{length} lies outside its {width}x{height} pixels"
        )
    inside = image_hw3[max(top, 0) : top + length, max(left, 0) : left + length]
    above, before = max(-top, 0), max(-left, 0)
    whole = cv2.copyMakeBorder(
        np.ascontiguousarray(inside),
        above,
        length - above - inside.shape[0],
        before,
        length - before - inside.shape[1],
        cv2.BORDER_REPLICATE,
    )
    shrinks = cv2.INTER_AREA if length >= side else cv2.INTER_LINEAR
    small = cv2.resize(whole, (side, side), interpolation=shrinks)
    return np.asarray(small, dtype=np.uint8)


def _draw(image_ss3: NDArray[np.uint8], pose_j3: NDArray[Any], predictor: Predictor) -> bytes:
    """Return a PNG file that shows the image that the model saw and the pose from several sides."""
    figure = Figure(figsize=(_CELL_INCHES * (1 + len(_VIEWS)), _CELL_INCHES + 0.3), dpi=100)
    cells = figure.subplots(1, 1 + len(_VIEWS))
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.86, wspace=0.04)
    cells[0].imshow(image_ss3)
    cells[0].set_title("seen (left: blue)", fontsize=9)
    centre_13 = pose_j3.mean(axis=0, keepdims=True)
    reach = 1.1 * float(np.linalg.norm(pose_j3 - centre_13, axis=1).max()) or 1.0
    colours = [_COLOURS[_side(predictor.joint_names[child])] for child, _ in predictor.limbs]
    for axes, (name, angles) in zip(cells[1:], _VIEWS.items(), strict=True):
        turned_j3 = (pose_j3 - centre_13) @ _turn(*angles).T
        _draw_limbs(axes, turned_j3, limbs=predictor.limbs, colours=colours)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(reach, -reach)
        axes.set_facecolor("#f4f4f4")
        axes.set_title(name, fontsize=9)
    for axes in cells:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_aspect("equal")
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _draw_limbs(
    axes: Axes,
    joints_j3: NDArray[Any],
    *,
    limbs: Sequence[tuple[int, int]],
    colours: Sequence[str],
) -> None:
    """Draw the limbs by their first two coordinates, the far ones first."""
    order = sorted(range(len(limbs)), key=lambda i: -joints_j3[list(limbs[i]), 2].mean())
    axes.add_collection(
        LineCollection(
            [joints_j3[list(limbs[i]), :2] for i in order],
            colors=[colours[i] for i in order],
            linewidths=2.4,
            capstyle="round",
        )
    )


def _side(joint: str) -> str:
    return joint.partition("_")[0] if joint.startswith(("left", "right")) else "middle"


def _turn(around_y_deg: float, around_x_deg: float) -> NDArray[np.float64]:
    """Return the rotation about y, then about x, for column vectors in camera axes, (3, 3)."""
    y, x = np.deg2rad((around_y_deg, around_x_deg))
    turn_y_33 = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    turn_x_33 = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    return np.asarray(turn_x_33 @ turn_y_33, dtype=np.float64)


def _arrays(done: PicturePoses, predictor: Predictor) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(
        out,
        poses=np.array([pose["joints"] for pose in done.poses], dtype=np.float32),
        files=np.array([pose["file"] for pose in done.poses]),
        joint_names=np.array(predictor.joint_names),
        limbs=np.array(predictor.limbs),
    )
    return out.getvalue()


def _document(done: PicturePoses, predictor: Predictor) -> bytes:
    content = {
        "frame": _FRAME,
        "joint_names": list(predictor.joint_names),
        "limbs": [list(limb) for limb in predictor.limbs],
        "poses": done.poses,
        "skipped": done.skipped,
    }
    return (json.dumps(content, indent=1) + "\n").encode()
