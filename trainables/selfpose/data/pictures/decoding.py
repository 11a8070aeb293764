"""Cuts square crops out of picture files and decodes no more pixels than the crop needs.

A JPEG decoder can leave out the high frequencies of its blocks and give a picture of 1/2, 1/4 or
1/8 of the side at a fraction of the cost; the size of the crop decides which one is used.

Frames and units: annotations are in frame pixels, u right, v down; a picture file may be a scaled
copy of the frame. Shape letters: S side of a crop in pixels.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from selfpose.data.pictures.headers import MOST_PIXELS, jpeg_size, picture_size
from selfpose.data.synthetic.cameras import Crop

__all__ = ["BadPictureError", "cut_crop", "decode_reduced", "read_crop", "read_picture_bytes"]

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


class BadPictureError(ValueError):
    """Says why a picture cannot be used, in the words of the store's table `skipped.csv`."""


def read_crop(
    file: Path, crop: Crop, size: int, *, frame_size: tuple[int, int] | None
) -> NDArray[np.uint8]:
    """Read a square crop of a picture file.

    Args:
        file: a JPEG file, or another that OpenCV reads.
        crop: the square, in frame pixels; the part of it outside the picture becomes black.
        size: side S of the result in pixels.
        frame_size: width and height of the frame in pixels; None if the picture is the frame.

    Returns:
        The crop, uint8 (S, S, 3), RGB.

    Raises:
        BadPictureError: there is no such file, it is no picture, or its end is missing.
    """
    data = read_picture_bytes(file)
    width = jpeg_size(data)[0]
    scale = width / frame_size[0] if width and frame_size else 1.0
    reduction = 1
    while width and reduction < 8 and crop.side_px * scale >= 2 * reduction * size:
        reduction *= 2
    picture = decode_reduced(data, reduction)
    if not width and frame_size:
        scale = picture.shape[1] / frame_size[0]
    bgr = cut_crop(picture, crop, size, scale=scale / reduction)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def read_picture_bytes(file: Path) -> bytes:
    """Return a picture file's bytes.

    Raises:
        BadPictureError: the file cannot be read, or the end of a JPEG file is missing.
    """
    if file.exists() and not file.is_file():  # a pipe would be waited for
        raise BadPictureError("it is no file")
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise BadPictureError("no such picture") from None
    except OSError as error:
        raise BadPictureError(f"picture cannot be read: {error.strerror}") from None
    # OpenCV's decoder fills missing rows with grey and reports no error. Some writers put zeros
    # behind the end of the picture.
    if data.startswith(b"\xff\xd8") and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise BadPictureError("JPEG cut short")
    return data


def decode_reduced(data: bytes, reduction: int) -> NDArray[np.uint8]:
    """Return a picture at a fraction of its size.

    Args:
        data: the picture file's bytes.
        reduction: divisor of both sides: 1, 2, 4 or 8.

    Returns:
        The picture, uint8 (height, width, 3), BGR.

    Raises:
        BadPictureError: the bytes are no picture, or one of too many pixels.
    """
    width, height = picture_size(data)
    if width * height > MOST_PIXELS:
        raise BadPictureError(f"{width}x{height} px, more than {MOST_PIXELS // 10**6} million")
    # Annotations refer to the pixels as the file has them, so its orientation tag is ignored.
    flags = _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:
        picture = None
    if picture is None:
        raise BadPictureError("not a picture")
    return np.asarray(picture, dtype=np.uint8)


def cut_crop(
    picture: NDArray[np.uint8], crop: Crop, size: int, *, scale: float
) -> NDArray[np.uint8]:
    """Cut a square out of a picture that is a scaled copy of the frame.

    Pixel i of the crop lies at -1 + 2 i / (S - 1) in crop coordinates, as in the whole package.

    Args:
        picture: the picture, uint8 (height, width) or (height, width, 3).
        crop: the square, in frame pixels; the part of it outside the picture becomes black.
        size: side S of the result in pixels.
        scale: pixels of the picture per pixel of the frame.

    Returns:
        The crop, uint8 (S, S) or (S, S, 3).
    """
    step = crop.side_px * scale / (size - 1)
    if step >= 2:  # linear interpolation alone would leave out pixels
        shrink = int(step)
        height, width = picture.shape[0] // shrink, picture.shape[1] // shrink
        scale *= width / picture.shape[1]
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
        step = crop.side_px * scale / (size - 1)
    corner = [(centre - crop.side_px / 2 + 0.5) * scale - 0.5 for centre in crop.centre_px]
    to_picture = np.asarray([[step, 0, corner[0]], [0, step, corner[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(picture, to_picture, (size, size), flags=flags), np.uint8)
