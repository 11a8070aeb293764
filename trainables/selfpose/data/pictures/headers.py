"""Reads the size of a picture from its file's header, before any pixel is decoded.

A file of some hundred bytes can claim billions of pixels, and a decoder would make room for them.
"""

from __future__ import annotations

import io
import struct
import warnings

from PIL import Image

__all__ = ["MOST_PIXELS", "header_size", "jpeg_size", "picture_size"]

MOST_PIXELS = 200_000_000
"""Number of pixels of the largest picture that is decoded: 600 MB of colours."""

_PNG = b"\x89PNG\r\n\x1a\n"


def picture_size(data: bytes) -> tuple[int, int]:
    """Return a picture's width and height in pixels; zeros if the bytes are no picture."""
    found = header_size(data)
    if found != (0, 0):
        return found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a picture that is large; whoever asks refuses it
            with Image.open(io.BytesIO(data)) as picture:
                return picture.size
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
        return 0, 0


def header_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a JPEG or PNG file; zeros if it is neither."""
    if data.startswith(_PNG):
        if len(data) < 24 or data[12:16] != b"IHDR":
            return 0, 0
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    return jpeg_size(data)


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return a JPEG's width and height from its header; zeros if it is no JPEG."""
    at = 2
    while data.startswith(b"\xff\xd8") and at + 9 < len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a start-of-frame segment
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            width = int.from_bytes(data[at + 7 : at + 9], "big")
            return width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0
