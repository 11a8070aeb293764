"""Finds the person in a picture, by the dataset's masks or by the difference to the background.

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

from selfpose.data.hdf5 import check_dataset, read_dataset
from selfpose.data.pictures.decoding import (
    BadPictureError,
    cut_crop,
    decode_reduced,
    read_picture_bytes,
)
from selfpose.data.synthetic.cameras import Crop

__all__ = [
    "BACKDROP_PICTURES",
    "MaskPlace",
    "box_of",
    "estimate_backdrop",
    "find_foreground",
    "is_silhouette",
    "match_light",
    "read_mask",
    "remove_background",
]

BACKDROP_PICTURES = 15
"""Number of pictures of one camera whose median is its background. Reading them takes a tenth of a
second, once per worker."""
BACKDROP_SIDE_PX = 600
"""Largest side of a background in pixels; larger pictures are reduced by 2, 4 or 8 until they fit
(or by 8 if none does)."""
DIFFERENCE = 26
"""Difference to the background in some channel, of 255, above which a pixel may be the person's. It
is well above the noise of JPEG files, and shadows on a lit floor stay below it."""
SPECK_SHARE = 0.05
"""Share of the largest patch's area below which a patch is taken for noise."""
_LIGHT_ROUNDS = 4
"""Number of fits of gain and gamma, each to the pixels that the one before explains best."""
_LIGHT_PX = 64
"""Number of rows, and of columns, of a picture that tell its light well enough."""
_LOGARITHMS = np.log(np.arange(256, dtype=np.float32) + 1)
"""Of each value of a pixel and 1."""
_GAMMA = (0.6, 1.6)
"""Lowest and highest gamma by which the light of two pictures of one camera is taken to differ."""
_EVEN = 1e-3
"""Variance of a background's logarithm below which it is of one colour."""
FULL_SHARE = 0.98
"""Share of its box from which a mask is taken for a box and not for a silhouette."""


class MaskPlace(NamedTuple):
    """Says where a mask lies: in a picture file, or among the masks of a MATLAB v7.3 file."""

    file: str
    """Path of the file."""
    number: int = 0
    """Index of the mask in a MATLAB file, from 0."""


def read_mask(place: MaskPlace) -> NDArray[np.uint8]:
    """Return a mask, uint8 (H, W), 0 for background and 255 for the person.

    Raises:
        BadPictureError: there is no such mask, or its file cannot be read or has another form.
    """
    if place.file.endswith(".mat"):
        return _read_matlab_mask(place)
    # MPI-INF-3DHP keeps its mask in the red channel (index 2 of BGR). The dataset does not say
    # whether the screen or the person is bright, but the person covers less than half of a frame.
    bright = decode_reduced(read_picture_bytes(Path(place.file)), 1)[..., 2] > 127
    return np.where(bright != (bright.mean() > 0.5), np.uint8(255), np.uint8(0))


def box_of(mask_hw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the box around a mask's foreground.

    Args:
        mask_hw: the mask, (H, W); pixels that are not 0 count.

    Returns:
        Corners of the box, (2, 2), in pixels: lowest (u, v), then highest (u, v).

    Raises:
        BadPictureError: the mask is empty.
    """
    rows, columns = (np.flatnonzero(mask_hw.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise BadPictureError("mask is empty")
    return np.asarray([[columns[0], rows[0]], [columns[-1], rows[-1]]], dtype=np.float32)


def is_silhouette(mask_hw: NDArray[np.uint8]) -> bool:
    """Return whether a mask (H, W) follows the person, rather than being a box around it.

    Raises:
        BadPictureError: the mask is empty.
    """
    (left, top), (right, bottom) = box_of(mask_hw).astype(int)
    return float((mask_hw[top : bottom + 1, left : right + 1] > 0).mean()) < FULL_SHARE


def remove_background(
    image_ss3: NDArray[np.uint8], mask_ss: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return a picture (S, S, 3) that is black where its mask (S, S) is 0, and dimmed below 255."""
    return np.asarray(cv2.multiply(image_ss3, cv2.merge([mask_ss] * 3), scale=1 / 255))


@functools.lru_cache(maxsize=64)
def estimate_backdrop(files: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return the background of a camera that stands still: the median of some of its pictures.

    Args:
        files: paths of the pictures.

    Returns:
        The background, uint8 (height, width, 3), BGR, at a fraction of the pictures' size.

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
    """Return the mask of the pixels in which a crop differs from the empty background.

    Args:
        image_ss3: the crop, uint8 (S, S, 3), RGB.
        backdrop: background of the crop's camera, uint8 (height, width, 3), BGR, at any scale.
        crop: the square of the frame that the crop shows, in frame pixels.
        frame_width: width of the frame in pixels.

    Returns:
        The mask, uint8 (S, S), 0 or 255.
    """
    scale = backdrop.shape[1] / frame_width
    empty = cut_crop(backdrop, crop, len(image_ss3), scale=scale)[..., ::-1]
    shown = match_light(image_ss3, empty)
    soft = [cv2.GaussianBlur(np.ascontiguousarray(one), (0, 0), 1.0) for one in (shown, empty)]
    red, green, blue = cv2.split(cv2.absdiff(soft[0], soft[1]))
    differs = np.asarray(cv2.max(cv2.max(red, green), blue)) > DIFFERENCE
    mask = cv2.morphologyEx(differs.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    sizes = stats[:, cv2.CC_STAT_AREA]
    kept = sizes >= SPECK_SHARE * max(int(sizes[1:].max(initial=0)), 1)
    kept[0] = False
    return np.asarray(kept.astype(np.uint8) * 255)[labels]


def match_light(image_ss3: NDArray[np.uint8], empty_ss3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture as it would be in the light, and at the exposure, of another one.

    Gain and gamma of each channel are fitted to the pixels that differ least, half of all: those
    where nobody stands.

    Args:
        image_ss3: the picture, uint8 (S, S, 3).
        empty_ss3: the same without the person, uint8 (S, S, 3).
    """
    step = max(1, len(image_ss3) // _LIGHT_PX)
    light_ss3, wanted_ss3 = (_LOGARITHMS[one[::step, ::step]] for one in (image_ss3, empty_ss3))
    gamma_3, gain_3 = np.ones(3, np.float32), np.zeros(3, np.float32)
    still_ss = np.ones(light_ss3.shape[:2], dtype=bool)
    for _ in range(_LIGHT_ROUNDS):
        wanted_n3, light_n3 = wanted_ss3[still_ss], light_ss3[still_ss]
        spread_n3 = wanted_n3 - wanted_n3.mean(0)
        variance_3 = spread_n3.var(0)
        slope_3 = (spread_n3 * light_n3).mean(0) / (variance_3 + 1e-3)
        is_even_3 = variance_3 < _EVEN  # one colour tells no gamma
        gamma_3 = np.where(is_even_3, 1.0, np.clip(slope_3, *_GAMMA)).astype(np.float32)
        gain_3 = light_n3.mean(0) - gamma_3 * wanted_n3.mean(0)
        differs_ss = np.abs(light_ss3 - gamma_3 * wanted_ss3 - gain_3).max(axis=2)
        still_ss = differs_ss <= np.median(differs_ss)
    matched_v3 = np.exp((_LOGARITHMS[:, None] - gain_3) / gamma_3) - 1  # of each of 256 values
    table_v3 = np.clip(matched_v3 + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image_ss3, table_v3[None]))


def _backdrop_reduction(eighth_shape: Sequence[int]) -> int:
    """Return the divisor by which pictures are reduced, from the shape of an eighth of one."""
    side = 8 * max(eighth_shape[:2])
    return next((r for r in (1, 2, 4) if side <= r * BACKDROP_SIDE_PX), 8)


def _read_matlab_mask(place: MaskPlace) -> NDArray[np.uint8]:
    try:
        h5, references = _open_matlab(place.file)
        if not 0 <= place.number < len(references):
            raise BadPictureError("no such mask")
        found = h5[references[place.number]]
        check_dataset(found)
        mask = np.asarray(found[()])
    except BadPictureError:
        raise
    except FileNotFoundError:
        raise BadPictureError("no such mask") from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError):  # h5py's own
        raise BadPictureError("not a readable file of masks, or cut off") from None
    if mask.ndim != 2 or mask.dtype.kind not in "biuf":
        raise BadPictureError(f"mask is {mask.dtype} of shape {mask.shape}, must have two axes")
    # MATLAB stores arrays by columns, so HDF5 shows its axes in the opposite order.
    return np.where(mask.T > 0, np.uint8(255), np.uint8(0))


@functools.lru_cache(maxsize=8)
def _open_matlab(file: str) -> tuple[h5py.File, NDArray[np.object_]]:
    h5 = h5py.File(file, "r")
    return h5, read_dataset(h5, "Masks").reshape(-1)
