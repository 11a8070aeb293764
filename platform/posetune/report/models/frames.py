"""Gives the pictures to predict from: picture files and the frames of videos, with crop boxes.

Shape letters: H and W height and width of a picture in pixels.
"""

from __future__ import annotations

import contextlib
import csv
import io
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from posetune.api import BadInputError
from posetune.storage.regular_file import refuse_pipe

__all__ = [
    "VIDEO_SUFFIXES",
    "Boxes",
    "Frame",
    "check_pixels",
    "count_frames",
    "frames_of",
    "is_video",
    "read_boxes",
]

VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
_COLUMNS = ("file", "x", "y", "width", "height")
_NEEDED = "file,x,y,width,height, and frame for videos"

_DAMAGED = "is not a picture, or is damaged"
_MOST_PIXELS = 100_000_000
"""Pixels of the largest picture, or of the largest square of one, that is read."""
_FARTHEST_PX = 1e9
"""Pixels from the corner of a picture within which its boxes lie."""
_LISTS = (b"#EXTM3U", b"ffconcat", b"<")
"""How texts begin that the reader of videos takes for lists of other files; it would open these."""
_MOST_BYTES = 500 * 10**6
"""Bytes of the largest file of a picture that is read."""

Square = tuple[int, int, int]
"""Left, top and side of a square, in pixels of the picture."""


@dataclass(frozen=True)
class Frame:
    """Holds one picture: a file, or a frame of a video."""

    file: Path
    """The file."""
    number: int | None
    """Number of the frame in its video, from 0; None if the file is a picture."""
    image_hw3: NDArray[np.uint8]
    """The picture as RGB, (H, W, 3), brightness 0 to 255."""


@dataclass(frozen=True)
class Boxes:
    """Holds the squares to look at, by file and frame."""

    source: Path
    """The CSV file that they come from."""
    squares: Mapping[tuple[str, int | None], Sequence[Square]] = field(default_factory=dict)
    """The squares, by the file as it is written there and the number of the frame."""

    def of(self, file: Path, number: int | None) -> Sequence[Square]:
        """Return the squares of a picture or frame; it is named by its path or its name alone."""
        for name in (str(file), file.as_posix(), file.name):
            found = self.squares.get((name, number))
            if found is not None:
                return found
        return ()


def read_boxes(file: Path) -> Boxes:
    """Read crop boxes from a CSV file with a row for each person.

    A box that is no square becomes the square about its middle whose side is its longer side.

    Raises:
        BadInputError: the file cannot be read, lacks a column, or has a box without a size.
    """
    squares: dict[tuple[str, int | None], list[Square]] = {}
    refuse_pipe(file)
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise BadInputError(
                    f"--boxes {file}: has no column {', '.join(missing)}; it needs {_NEEDED}"
                )
            for row in reader:
                key, square = _square_of(row, f"--boxes {file}, line {reader.line_num}")
                squares.setdefault(key, []).append(square)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"--boxes {file}: cannot be read ({error})") from error
    if not squares:
        raise BadInputError(f"--boxes {file}: has no row; it needs {_NEEDED}")
    return Boxes(file, squares)


def _square_of(row: Mapping[str, str], where: str) -> tuple[tuple[str, int | None], Square]:
    try:
        x, y, width, height = (float(row[name]) for name in _COLUMNS[1:])
        if not max(map(abs, (x, y, width, height))) < _FARTHEST_PX:
            raise ValueError("no picture reaches so far")
        number = int(row["frame"]) if row.get("frame") else None
        side = round(max(width, height))
        corner = round(x + width / 2 - side / 2), round(y + height / 2 - side / 2)
    except (TypeError, ValueError, OverflowError) as error:
        given = ",".join(f"{row.get(name, '')!s:.40}" for name in _COLUMNS)
        raise BadInputError(f"{where}: {given} are no numbers of pixels; give {_NEEDED}") from error
    if side <= 0 or min(width, height) <= 0:
        raise BadInputError(f"{where}: width {width:g} and height {height:g} must be above 0")
    return (row["file"], number), (*corner, side)


def is_video(file: Path) -> bool:
    """Return whether a file is a video, by its name."""
    return file.suffix.lower() in VIDEO_SUFFIXES


def count_frames(files: Iterable[Path], every: int) -> int:
    """Return about how many pictures `frames_of` gives; a video's own count may be wrong."""
    total = 0
    for file in files:
        frames = 1
        if is_video(file) and not _is_list(file):
            video = cv2.VideoCapture(str(file))
            frames = max(1, -(-int(video.get(cv2.CAP_PROP_FRAME_COUNT)) // every))
            video.release()
        total += frames
    return total


def frames_of(file: Path, every: int = 1) -> Iterator[Frame]:
    """Yield the picture of a file, or the frames of a video.

    Args:
        file: a picture or a video.
        every: of a video, take the first frame and then each that is so many frames later.

    Raises:
        BadInputError: the file is no picture and no video, or a damaged one.
    """
    if not is_video(file):
        yield Frame(file, None, _read(file))
        return
    if _is_list(file):
        raise BadInputError("is a list of other files, not a video")
    video = cv2.VideoCapture(str(file))
    try:
        width, height = (
            video.get(p) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        check_pixels("each of its frames", int(width), int(height))
        number = 0
        while video.grab():
            if number % every == 0:
                read, image_hw3 = video.retrieve()
                if read:
                    yield Frame(file, number, np.asarray(image_hw3[:, :, ::-1], dtype=np.uint8))
            number += 1
    finally:
        video.release()
    if number == 0:
        raise BadInputError("is not a video that can be read, or is damaged")


def _is_list(file: Path) -> bool:
    with contextlib.suppress(OSError), file.open("rb") as opened:
        return opened.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_LISTS)
    return False


def check_pixels(what: str, width: int, height: int) -> None:
    """Make sure that a picture, or a part of one, is not so large that it takes all memory.

    Raises:
        BadInputError: it is.
    """
    if width * height > _MOST_PIXELS:
        raise BadInputError(
            f"{what} has {width}x{height} px, more than {_MOST_PIXELS / 1e6:.0f} million"
        )


def _read(file: Path) -> NDArray[np.uint8]:
    """Return a picture as RGB (H, W, 3), brightness 0 to 255, turned as its EXIF entry says.

    What the picture takes is known from the file's header, and refused before it is decoded.
    """
    try:
        size = file.stat().st_size
        if size > _MOST_BYTES:
            raise BadInputError(f"is {size / 1e6:.0f} MB, more than {_MOST_BYTES / 1e6:.0f}")
        data = file.read_bytes()
        check_pixels("its picture", *_header_size(data))
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except (OSError, cv2.error) as error:
        raise BadInputError(f"cannot be read ({type(error).__name__})") from error
    if found is None:
        raise BadInputError(_DAMAGED)
    return np.asarray(found[:, :, ::-1], dtype=np.uint8)


def _header_size(data: bytes) -> tuple[int, int]:
    """Return a picture's width and height in pixels, from its header.

    Raises:
        BadInputError: the bytes are no picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a picture that is large, which is refused below
            with Image.open(io.BytesIO(data)) as picture:
                return picture.size
    except Image.DecompressionBombError:
        raise BadInputError(
            f"its picture has more than {_MOST_PIXELS / 1e6:.0f} million px"
        ) from None
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        raise BadInputError(_DAMAGED) from error
