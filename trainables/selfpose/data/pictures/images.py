"""Brings images and masks from the store to a network.

Frames and units: images uint8 in the store, [-1, 1] for the networks; masks uint8 0 to 255 of
foreground cover in the store, -1 (background) to 1 for the networks.

A batch of 96 images of 128 px is 4.7 MB in the store and 19 MB of floats. On a CPU the bytes are
gathered once and the floats written once: 33 MB are moved, which takes 1.3 ms at the 25 GB/s at
which one core of an AMD EPYC copies.

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
"""Number of rows that are read at a time when all images are loaded."""
_HUE_ROWS = 500
"""Number of images from which the principal hue is estimated."""
_WELL_INSIDE = 0.9
"""Cover of a mask, in [-1, 1], from which a pixel counts for the principal hue; pixels with less
cover have some of the background's colour."""
_DARK = 0.05
"""Sum of red, green and blue, 0 to 3, below which a pixel is too dark to have a hue."""
_INPUTS = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1.0)
"""The networks' input in [-1, 1] for each value of a byte of an image or mask, (256,)."""
_KEPT_BYTES = 4 * 2**30
"""Highest number of bytes of (reduced) images that are kept in memory; more are read each time."""
_KEPT_SHARE = 0.25
"""Highest share of the trial's GPU memory in which images are kept; training needs the rest."""


@dataclass(frozen=True)
class ImageFeed:
    """Gives batches of the images of a split, and of its masks if they are asked for."""

    split: Split
    """The split of the store."""
    image_size: int
    """Side S of the images that the feed gives, in pixels."""
    with_masks: bool
    """Whether the feed gives masks."""
    images_nss3: Tensor | None
    """All images on the device, uint8 (N, S, S, 3); None if they are read from the store."""
    masks_nss: Tensor | None
    """All masks on the device, uint8 (N, S, S); None if there are none or they are read from the
    store."""
    device: torch.device
    """Device on which batches are given."""
    hue_23: Tensor | None = None
    """Hue by which masks are shaded, (2, 3), see `principal_hue`; None leaves them as they are."""

    def __len__(self) -> int:
        return len(self.split)

    def fetch(self, indices_b: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return a batch as the networks take it.

        Args:
            indices_b: indices of the rows, int64 (B,), on the CPU.

        Returns:
            Images (B, 3, S, S) in [-1, 1], and masks (B, 1, S, S) in [-1, 1] or None.
        """
        is_here = self.device.type == "cpu"
        images_b3ss, masks_b1ss = self._look_up(indices_b) if is_here else self._send(indices_b)
        if masks_b1ss is not None and self.hue_23 is not None:
            masks_b1ss = shade_masks(masks_b1ss, images_b3ss, self.hue_23)
        return images_b3ss, masks_b1ss

    def _send(self, indices_b: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return a batch whose bytes the device turns into numbers."""
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
        """Return a batch on the CPU, by looking the number of each byte up in a table.

        It is equal to `images_to_input` to the last bit, in one pass over memory instead of three.
        """
        if self.images_nss3 is not None:
            rows = indices_b.numpy()  # numpy gathers rows faster than torch
            images_bss3 = self.images_nss3.numpy()[rows]
            masks_bss = None if self.masks_nss is None else self.masks_nss.numpy()[rows]
        else:
            images_bss3, masks_bss = self._read(indices_b)
        images_b3ss = _inputs_of(images_bss3).permute(0, 3, 1, 2)
        return images_b3ss, None if masks_bss is None else _inputs_of(masks_bss).unsqueeze(1)

    def _read(self, indices_b: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Read images and masks of some rows from the store, at the feed's size."""
        rows, size = indices_b.numpy(), self.image_size
        masks = _read_masks(self.split, rows, size) if self.with_masks else None
        return _read_images(self.split, rows, size), masks

    def with_hue(self, sign: int) -> ImageFeed:
        """Return this feed with masks that are shaded by hue.

        Args:
            sign: 1 if the right limbs are bluer than the left ones, -1 if they are less blue; 0
                shades nothing.
        """
        if sign == 0:
            return self
        rows = torch.from_numpy(np.linspace(0, len(self) - 1, _HUE_ROWS).astype(np.int64))
        images_b3ss, masks_b1ss = self.fetch(rows)
        if masks_b1ss is None:
            return self
        mean_3, direction_3 = principal_hue(images_b3ss, masks_b1ss)
        return replace(self, hue_23=torch.stack((mean_3, sign * direction_3)))


def check_images(split: Split, image_size: int, *, with_masks: bool) -> None:
    """Make sure that a split's images can be reduced to a size, and that it has masks if need be.

    Args:
        split: the split.
        image_size: wanted side in pixels; the store's side, half or a quarter of it.
        with_masks: whether masks are needed.

    Raises:
        BadInputError: the images cannot be reduced to that size, or there are no masks.
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
    """Prepare a split's images, reduced to `image_size`; they are kept in memory if they fit.

    Args:
        split: the split with the images and masks.
        image_size: wanted side in pixels.
        with_masks: whether masks are needed.
        device: device on which batches are wanted.
        gpu_share: share of the GPU's memory that the trial may use; None if it is not known.

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
    """Return the highest number of bytes of images that are kept on a device."""
    if device.type != "cuda" or gpu_share is None:
        return _KEPT_BYTES
    memory: int = torch.cuda.get_device_properties(device).total_memory
    return _KEPT_SHARE * gpu_share * memory


def reduce_images(images_nss: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Average blocks of pixels until the side is `image_size`.

    Args:
        images_nss: images uint8 (N, S, S) or (N, S, S, channels); S is a multiple of `image_size`.
        image_size: wanted side in pixels.

    Returns:
        Images uint8 of the wanted side, (N, side, side) or (N, side, side, channels).
    """
    factor = images_nss.shape[1] // image_size
    if factor == 1:
        return images_nss
    count, rest = len(images_nss), images_nss.shape[3:]
    blocks = images_nss.reshape(count, image_size, factor, image_size, factor, *rest)
    total = blocks.sum(axis=(2, 4), dtype=np.uint16)
    return ((total + factor**2 // 2) // factor**2).astype(np.uint8)


def principal_hue(images_b3ss: Tensor, masks_b1ss: Tensor) -> Tensor:
    """Find the direction of colour in which the hues of foreground pixels differ most.

    A hue is the shares of red, green and blue in a pixel, so that shadows change nothing.

    Args:
        images_b3ss: images, (B, 3, S, S), in [-1, 1].
        masks_b1ss: masks, (B, 1, S, S), in [-1, 1].

    Returns:
        The mean hue, and the first principal component divided by its standard deviation, (2, 3),
        no unit. The component points to more blue. A hue's product with it, after the mean is
        subtracted, is near -1 or 1 unless the hue is near the mean.
    """
    shares_p3 = _colour_shares(images_b3ss).movedim(1, -1)[masks_b1ss[:, 0] > _WELL_INSIDE]
    values_3, vectors_33 = torch.linalg.eigh(torch.cov(shares_p3.double().T))
    direction_3 = vectors_33[:, -1] * vectors_33[-1, -1].sign()
    return torch.stack((shares_p3.mean(dim=0), (direction_3 / values_3[-1].sqrt()).float()))


def shade_masks(masks_b1ss: Tensor, images_b3ss: Tensor, hue_23: Tensor) -> Tensor:
    """Return masks whose foreground is as bright as the left or the right limbs, by its hue.

    Args:
        masks_b1ss: masks, (B, 1, S, S), in [-1, 1].
        images_b3ss: the images of the masks, (B, 3, S, S), in [-1, 1].
        hue_23: mean hue and direction towards the right limbs' hue, (2, 3), see `principal_hue`.

    Returns:
        Masks, (B, 1, S, S), in [-1, 1].
    """
    mean_311, direction_311 = hue_23[:, :, None, None]
    along_b3ss = (_colour_shares(images_b3ss) - mean_311) * direction_311
    share_b1ss = (1 + along_b3ss.sum(dim=1, keepdim=True).clamp(-1, 1)) / 2
    return (masks_b1ss + 1) * (SIDE_BRIGHTNESS + (1 - SIDE_BRIGHTNESS) * share_b1ss) - 1


def _colour_shares(images_b3ss: Tensor) -> Tensor:
    colours_b3ss = (images_b3ss + 1) / 2
    return colours_b3ss / colours_b3ss.sum(dim=1, keepdim=True).clamp(min=_DARK)


def images_to_input(images_bss3: Tensor) -> Tensor:
    """Return the networks' images (B, 3, S, S) in [-1, 1] for uint8 images (B, S, S, 3)."""
    return images_bss3.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def masks_to_input(masks_bss: Tensor) -> Tensor:
    """Return the networks' masks (B, 1, S, S) in [-1, 1] for uint8 masks (B, S, S)."""
    return masks_bss.unsqueeze(1).float().div_(127.5).sub_(1.0)


def _read_images(split: Split, rows: NDArray[np.int64], image_size: int) -> NDArray[np.uint8]:
    return reduce_images(split.images(rows), image_size)


def _read_masks(split: Split, rows: NDArray[np.int64], image_size: int) -> NDArray[np.uint8]:
    masks_nss = split.masks(rows)
    if masks_nss is None:
        raise BadInputError("the store holds no foreground masks; import data with masks")
    return reduce_images(masks_nss, image_size)


def _inputs_of(values: NDArray[np.uint8]) -> Tensor:
    # OpenCV shares rows out among threads, so the array is given to it as many rows.
    rows = values.reshape(values.shape[0] * values.shape[1], -1)
    return torch.from_numpy(cv2.LUT(rows, _INPUTS).reshape(values.shape))


def _to_memory_of(device: torch.device, array: NDArray[np.uint8]) -> Tensor:
    """Copy a batch to a device while the device works.

    The memory is pinned first; the device would have to wait for memory that may be swapped out.
    """
    return torch.from_numpy(array).pin_memory().to(device, non_blocking=True)
