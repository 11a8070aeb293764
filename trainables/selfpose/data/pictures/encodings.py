"""Encodes the pictures of a store as bytes of pixels (`raw`) or as JPEG and PNG files (`jpeg`).

`raw` is read at the speed of memory. `jpeg` takes about a tenth of the space, loses a little and
costs a tenth of a millisecond per picture. Masks are kept exactly in both.
Shape letters: N rows, S image side in pixels.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from selfpose.data.pictures.headers import header_size
from selfpose.data.shards import Blobs, Columns

__all__ = ["Encoding", "decode_image", "decode_mask", "encode_pictures"]

Encoding = Literal["raw", "jpeg"]
"""Name of an encoding."""

_HEADER_BYTES = 4096
"""Bytes in which the size of a picture that we wrote is found."""
JPEG_QUALITY = 92
"""Quality of JPEG files on OpenCV's scale from 0 to 100."""


def encode_pictures(columns: Columns, *, image_size: int) -> Columns:
    """Replace the raw pictures among columns by JPEG files, and masks by PNG files.

    Args:
        columns: columns of a shard; `image` uint8 (N, S * S * 3), RGB, and `mask` uint8 (N, S * S)
            are encoded if they are among them.
        image_size: side S of the pictures in pixels.
    """
    encoded = dict(columns)
    for name, encode, shape in (
        ("image", _encode_image, (image_size, image_size, 3)),
        ("mask", _encode_mask, (image_size, image_size)),
    ):
        column = columns.get(name)
        if isinstance(column, np.ndarray):
            encoded[name] = Blobs.of([encode(row.reshape(shape)) for row in column])
    return encoded


def decode_image(file: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the picture uint8 (S, S, 3), RGB, of a JPEG file's bytes.

    Args:
        file: the bytes.
        shape: (S, S, 3), which the file's header must agree with before pixels are decoded.

    Raises:
        ValueError: the bytes are no picture, or one of another size.
    """
    _check_header(file, shape)
    image = cv2.imdecode(file, cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError("an image in the store cannot be decoded as JPEG; import the data again")
    return np.asarray(image, dtype=np.uint8)


def decode_mask(file: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the mask uint8 (S, S) of a PNG file's bytes.

    Args:
        file: the bytes.
        shape: (S, S), which the file's header must agree with before pixels are decoded.

    Raises:
        ValueError: the bytes are no picture, or one of another size.
    """
    _check_header(file, shape)
    mask = cv2.imdecode(file, cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ValueError("a mask in the store cannot be decoded as PNG; import the data again")
    return np.asarray(mask, dtype=np.uint8)


def _check_header(file: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    width, height = header_size(file[:_HEADER_BYTES].tobytes())
    if (height, width) != shape[:2]:
        raise ValueError(
            f"a picture in the store is {width}x{height} px instead of {shape[1]}x{shape[0]}"
        )


def _encode_image(image_ss3: NDArray[np.uint8]) -> bytes:
    bgr = cv2.cvtColor(image_ss3, cv2.COLOR_RGB2BGR)
    _, file = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return file.tobytes()


def _encode_mask(mask_ss: NDArray[np.uint8]) -> bytes:
    _, file = cv2.imencode(".png", mask_ss)
    return file.tobytes()
