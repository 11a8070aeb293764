"""Images and masks on their way from the store to a network.

Frames and units: images uint8 in the store, [-1, 1] for the networks; masks uint8 0 to 255 of
foreground cover in the store, -1 (background) to 1 for the networks.

A batch of 96 images of 128 px is 4.7 MB in the store and 19 MB of floats, each written once on a
CPU, after they were gathered: 33 MB, 1.3 ms at the 25 GB/s at which one core of an AMD EPYC copies.

Shape letters: N rows, B batch, S image side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posetune.api import BadInputError
from selfpose.data.store import Split
from selfpose.method.renderer import SIDE_BRIGHTNESS

__all__ = [
    "ImageFeed",
    "check_images",
    "images_to_input",
    "masks_to_input",
    "open_feed",
    "principal_hue",
    "reduce_images",
    "shade_masks",
]

_ROWS_AT_ONCE = 1024
_HUE_ROWS = 500
_WELL_INSIDE = 0.9
"""Pixels covered less, in [-1, 1], have the background's colour too."""
_DARK = 0.05
"""A sum of red, green and blue, 0 to 3, under which a pixel has no hue to speak of."""
_INPUTS = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1.0)
"""What the networks are given for each byte of an image or mask."""
_KEPT_BYTES = 4 * 2**30
"""Up to this many bytes of (reduced) images are kept in memory, beyond that they are re-read."""
_KEPT_SHARE = 0.25
"""On a GPU, up to this part of what the trial may take of its memory: training needs the rest."""


@dataclass(frozen=True)
class ImageFeed:
    """Gives batches of the images of a split, and of its masks where they are asked for."""

    split: Split
    image_size: int
    with_masks: bool
    images_nss3: Tensor | None
    """All images, on the device, if they fit."""
    masks_nss: Tensor | None
    device: torch.device
    hue_23: Tensor | None = None
    """What shades the masks (see `shade_masks`)."""

    def __len__(self) -> int:
        return len(self.split)

    def fetch(self, indices_b: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return images (B, 3, S, S) and masks (B, 1, S, S) or None, ready for the networks."""
        is_here = self.device.type == "cpu"
        images_b3ss, masks_b1ss = self._look_up(indices_b) if is_here else self._send(indices_b)
        if masks_b1ss is not None and self.hue_23 is not None:
            masks_b1ss = shade_masks(masks_b1ss, images_b3ss, self.hue_23)
        return images_b3ss, masks_b1ss

    def _send(self, indices_b: Tensor) -> tuple[Tensor, Tensor | None]:
        """Let the device turn bytes into numbers."""
        if self.images_nss3 is not None:
            pick = indices_b.to(self.device, non_blocking=True)
            images = self.images_nss3[pick]
            masks = None if self.masks_nss is None else self.masks_nss[pick]
        else:
            images_bss3, masks_bss = self._read(indices_b)
            images = _to_memory_of(self.device, images_bss3)
            masks = None if masks_bss is None else _to_memory_of(self.device, masks_bss)
        return images_to_input(images), None if masks is None else masks_to_input(masks)

    def _look_up(self, indices_b: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `images_to_input` on a CPU, to the bit, in one pass where arithmetic takes three."""
        if self.images_nss3 is not None:
            rows = indices_b.numpy()  # numpy gathers rows faster than torch
            images_bss3 = self.images_nss3.numpy()[rows]
            masks_bss = None if self.masks_nss is None else self.masks_nss.numpy()[rows]
        else:
            images_bss3, masks_bss = self._read(indices_b)
        images_b3ss = _inputs_of(images_bss3).permute(0, 3, 1, 2)
        return images_b3ss, None if masks_bss is None else _inputs_of(masks_bss).unsqueeze(1)

    def _read(self, indices_b: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Read rows of the store."""
        rows, size = indices_b.numpy(), self.image_size
        masks = _read_masks(self.split, rows, size) if self.with_masks else None
        return _read_images(self.split, rows, size), masks

    def with_hue(self, sign: int) -> ImageFeed:
        """Return this feed with masks that are shaded by hue (0: not)."""
        if sign == 0:
            return self
        rows = torch.from_numpy(np.linspace(0, len(self) - 1, _HUE_ROWS).astype(np.int64))
        images_b3ss, masks_b1ss = self.fetch(rows)
        if masks_b1ss is None:
            return self
        mean_3, direction_3 = principal_hue(images_b3ss, masks_b1ss)
        return replace(self, hue_23=torch.stack((mean_3, sign * direction_3)))


def check_images(split: Split, image_size: int, *, with_masks: bool) -> None:
    """Make sure that a split's images can be reduced to `image_size`, and have masks if need be.

    Raises:
        BadInputError: they cannot, or have none.
    """
    stored = split.images([0]).shape[1] if len(split) else image_size
    if stored not in (image_size, 2 * image_size, 4 * image_size):
        raise BadInputError(
            f"image_size: {image_size} px cannot be made from the store's {stored} px; give "
            f"{stored}, {stored // 2} or {stored // 4}"
        )
    if with_masks and len(split) and split.masks([0]) is None:
        raise BadInputError(
            "loss_weights.silhouette and pretrain_silhouette need foreground masks, which this "
            "store does not hold; set both to 0"
        )


def open_feed(
    split: Split,
    image_size: int,
    *,
    with_masks: bool,
    device: torch.device,
    gpu_share: float | None = None,
) -> ImageFeed:
    """Prepare a split's images, reduced to `image_size`; kept in memory if they are small.

    Args:
        split: has the images, and masks.
        image_size: wanted side, pixels.
        with_masks: whether masks are asked for as well.
        device: where batches are wanted.
        gpu_share: part of a GPU that is the trial's; None where it is not known.

    Raises:
        BadInputError: the images cannot be reduced to that size, or have no masks.
    """
    check_images(split, image_size, with_masks=with_masks)
    images = masks = None
    needed = len(split) * image_size**2 * (4 if with_masks else 3)
    if needed <= _most_kept(device, gpu_share):
        side = (image_size, image_size)
        images = torch.empty(len(split), *side, 3, dtype=torch.uint8, device=device)
        if with_masks:
            masks = torch.empty(len(split), *side, dtype=torch.uint8, device=device)
        rows = np.arange(len(split))
        for start in range(0, len(split), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            images[part] = torch.from_numpy(_read_images(split, rows[part], image_size))
            if masks is not None:
                masks[part] = torch.from_numpy(_read_masks(split, rows[part], image_size))
    return ImageFeed(split, image_size, with_masks, images, masks, device)


def _most_kept(device: torch.device, gpu_share: float | None) -> float:
    if device.type != "cuda" or gpu_share is None:
        return _KEPT_BYTES
    memory: int = torch.cuda.get_device_properties(device).total_memory
    return _KEPT_SHARE * gpu_share * memory


def reduce_images(images_nss: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Average blocks of pixels until the side is `image_size`.

    Args:
        images_nss: (N, S, S) or (N, S, S, channels), uint8; S a multiple of `image_size`.
        image_size: wanted side, pixels.
    """
    factor = images_nss.shape[1] // image_size
    if factor == 1:
        return images_nss
    count, rest = len(images_nss), images_nss.shape[3:]
    blocks = images_nss.reshape(count, image_size, factor, image_size, factor, *rest)
    total = blocks.sum(axis=(2, 4), dtype=np.uint16)
    return ((total + factor**2 // 2) // factor**2).astype(np.uint8)


def principal_hue(images_b3ss: Tensor, masks_b1ss: Tensor) -> Tensor:
    """Find what tells the hues of foreground pixels apart best.

    Hues are shares of red, green and blue in a pixel, so that shadows change nothing.

    Returns:
        (2, 3): the mean share, and the first principal component (bluer is positive, for a sign)
        over its standard deviation: hues that are not near the mean come out near -1 or 1.
    """
    shares_p3 = _colour_shares(images_b3ss).movedim(1, -1)[masks_b1ss[:, 0] > _WELL_INSIDE]
    values_3, vectors_33 = torch.linalg.eigh(torch.cov(shares_p3.double().T))
    direction_3 = vectors_33[:, -1] * vectors_33[-1, -1].sign()
    return torch.stack((shares_p3.mean(dim=0), (direction_3 / values_3[-1].sqrt()).float()))


def shade_masks(masks_b1ss: Tensor, images_b3ss: Tensor, hue_23: Tensor) -> Tensor:
    """Return masks whose foreground is as bright as one side's limbs or the other's, by hue."""
    mean_311, direction_311 = hue_23[:, :, None, None]
    along_b3ss = (_colour_shares(images_b3ss) - mean_311) * direction_311
    share_b1ss = (1 + along_b3ss.sum(dim=1, keepdim=True).clamp(-1, 1)) / 2
    return (masks_b1ss + 1) * (SIDE_BRIGHTNESS + (1 - SIDE_BRIGHTNESS) * share_b1ss) - 1


def _colour_shares(images_b3ss: Tensor) -> Tensor:
    colours_b3ss = (images_b3ss + 1) / 2
    return colours_b3ss / colours_b3ss.sum(dim=1, keepdim=True).clamp(min=_DARK)


def images_to_input(images_bss3: Tensor) -> Tensor:
    """Return images (B, 3, S, S) in [-1, 1] of uint8 images (B, S, S, 3)."""
    return images_bss3.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def masks_to_input(masks_bss: Tensor) -> Tensor:
    """Return masks (B, 1, S, S) in [-1, 1] of uint8 masks (B, S, S)."""
    return masks_bss.unsqueeze(1).float().div_(127.5).sub_(1.0)


def _read_images(split: Split, rows: NDArray[np.int64], image_size: int) -> NDArray[np.uint8]:
    return reduce_images(split.images(rows), image_size)


def _read_masks(split: Split, rows: NDArray[np.int64], image_size: int) -> NDArray[np.uint8]:
    masks_nss = split.masks(rows)
    if masks_nss is None:
        raise BadInputError("the store holds no foreground masks")
    return reduce_images(masks_nss, image_size)


def _inputs_of(values: NDArray[np.uint8]) -> Tensor:
    rows = values.reshape(values.shape[0] * values.shape[1], -1)  # shared out among threads
    return torch.from_numpy(cv2.LUT(rows, _INPUTS).reshape(values.shape))


def _to_memory_of(device: torch.device, array: NDArray[np.uint8]) -> Tensor:
    """Copy a batch beside the device's work: a step would wait for memory that may be swapped."""
    return torch.from_numpy(array).pin_memory().to(device, non_blocking=True)
