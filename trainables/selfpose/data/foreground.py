"""Where the person is in a picture: from the dataset's masks, or against the empty background.

Frames and units: frame pixels, u right, v down; masks 0 (background) to 255 (person).
Shape letters: H, W height and width of a mask; S side of a crop in pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError
from selfpose.data.decoding import BadPictureError, cut_crop, decode_reduced, read_picture_bytes
from selfpose.data.synthetic.cameras import Crop

__all__ = [
    "BACKDROP_PICTURES",
    "MaskPlace",
    "box_of",
    "estimate_backdrop",
    "find_foreground",
    "is_silhouette",
    "read_mask",
]

BACKDROP_PICTURES = 15
"""Pictures of one camera whose median is its background; a tenth of a second, once per worker."""
BACKDROP_SIDE_PX = 600
"""Backgrounds are kept at the largest of 1, 1/2, 1/4, 1/8 of the size that is not above this."""
DIFFERENCE = 26
"""A pixel that differs by more than this in some channel, of 255, may be the person's. Well above
the noise of JPEG; shadows on a lit floor stay below it."""
SPECK_SHARE = 0.05
"""Patches below this share of the largest are noise."""
FULL_SHARE = 0.98
"""A mask that covers this share of its box is a box."""


class MaskPlace(NamedTuple):
    """Where a mask lies: a picture file, or one of the masks of a MATLAB v7.3 file."""

    file: str
    number: int = 0


def read_mask(place: MaskPlace) -> NDArray[np.uint8]:
    """Return a mask (H, W), 0 or 255.

    Raises:
        BadPictureError: there is no such mask.
        BadInputError: the MATLAB file cannot be read or is not in this form.
    """
    if place.file.endswith(".mat"):
        return _read_matlab_mask(place)
    # MPI-INF-3DHP keeps its mask in the red channel (of BGR: 2). Whether screen or person is bright
    # is not said anywhere; the person covers less than half of a frame.
    bright = decode_reduced(read_picture_bytes(Path(place.file)), 1)[..., 2] > 127
    return np.where(bright != (bright.mean() > 0.5), np.uint8(255), np.uint8(0))


def box_of(mask_hw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the corners (2, 2) of a mask's box, pixels: lowest and highest u and v.

    Raises:
        BadPictureError: the mask is empty.
    """
    rows, columns = (np.flatnonzero(mask_hw.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise BadPictureError("mask is empty")
    return np.asarray([[columns[0], rows[0]], [columns[-1], rows[-1]]], dtype=np.float32)


def is_silhouette(mask_hw: NDArray[np.uint8]) -> bool:
    """Say whether a mask follows the person, or is only the box around it."""
    (left, top), (right, bottom) = box_of(mask_hw).astype(int)
    return float((mask_hw[top : bottom + 1, left : right + 1] > 0).mean()) < FULL_SHARE


@functools.lru_cache(maxsize=64)
def estimate_backdrop(files: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return the median of some pictures of one standing camera: what is there most of the time.

    It is (height, width, 3), BGR, and at a fraction of their size.

    Raises:
        BadPictureError: none of the pictures can be read.
    """
    pictures: dict[tuple[int, ...], list[NDArray[np.uint8]]] = {}
    for file in files:
        try:
            data = read_picture_bytes(Path(file))
            reduction = _backdrop_reduction(decode_reduced(data, 8).shape)
            picture = decode_reduced(data, reduction)
        except BadPictureError:
            continue
        pictures.setdefault(picture.shape, []).append(picture)
    if not pictures:
        raise BadPictureError("no picture of its camera can be read")
    most = max(pictures.values(), key=len)
    return np.asarray(np.median(np.stack(most), axis=0), dtype=np.uint8)


def find_foreground(
    image_ss3: NDArray[np.uint8], backdrop: NDArray[np.uint8], crop: Crop, *, frame_width: int
) -> NDArray[np.uint8]:
    """Return where a crop differs from the empty background, (S, S), 0 or 255.

    Args:
        image_ss3: the crop (S, S, 3), RGB.
        backdrop: of its camera, BGR, at any scale.
        crop: which square of the frame it is.
        frame_width: of the frame that the crop is measured in, pixels.
    """
    scale = backdrop.shape[1] / frame_width
    empty = cut_crop(backdrop, crop, len(image_ss3), scale=scale)[..., ::-1]
    soft = [cv2.GaussianBlur(np.ascontiguousarray(one), (0, 0), 1.0) for one in (image_ss3, empty)]
    red, green, blue = cv2.split(cv2.absdiff(soft[0], soft[1]))
    differs = np.asarray(cv2.max(cv2.max(red, green), blue)) > DIFFERENCE
    mask = cv2.morphologyEx(differs.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    sizes = stats[:, cv2.CC_STAT_AREA]
    kept = sizes >= SPECK_SHARE * max(int(sizes[1:].max(initial=0)), 1)
    kept[0] = False
    return np.asarray(kept.astype(np.uint8) * 255)[labels]


def _backdrop_reduction(eighth_shape: Sequence[int]) -> int:
    """Return by how much to reduce pictures, given the shape of one that is reduced by eight."""
    side = 8 * max(eighth_shape[:2])
    return next((r for r in (1, 2, 4) if side <= r * BACKDROP_SIDE_PX), 8)


def _read_matlab_mask(place: MaskPlace) -> NDArray[np.uint8]:
    try:
        h5, references = _open_matlab(place.file)
        if not 0 <= place.number < len(references):
            raise BadPictureError("no such mask")
        mask = np.asarray(h5[references[place.number]][()])
    except BadPictureError:
        raise
    except FileNotFoundError:
        raise BadPictureError("no such mask") from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # h5py's own
        reason = str(error).splitlines()[0]
        raise BadInputError(f"{place.file}: not a readable file of masks: {reason}") from None
    if mask.ndim != 2:
        raise BadInputError(f"{place.file}: mask {place.number} has shape {mask.shape}, must be 2D")
    return np.where(mask.T > 0, np.uint8(255), np.uint8(0))  # MATLAB's axes are the other way round


@functools.lru_cache(maxsize=8)
def _open_matlab(file: str) -> tuple[h5py.File, NDArray[np.object_]]:
    h5 = h5py.File(file, "r")
    return h5, np.asarray(h5["Masks"][()]).reshape(-1)
