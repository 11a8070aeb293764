"""Turns pictures on disk, with their joints, into rows of a store.

An importer collects the rows of each split into `Photographs`; `photograph_jobs` gives the jobs of
its `Source`. A row is checked and its picture read in a worker; a bad row is left out and named.

Frames and units: annotations are in frame pixels, u right, v down; 3D joints in mm in camera axes.
Shape letters: N rows, J joints, S side of the store's images in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from posetune.api import BadInputError
from selfpose.data.pictures.decoding import BadPictureError, cut_crop, read_crop
from selfpose.data.pictures.foreground import (
    BACKDROP_PICTURES,
    MaskPlace,
    box_of,
    estimate_backdrop,
    find_foreground,
    is_silhouette,
    read_mask,
    remove_background,
)
from selfpose.data.plausibility import Unit
from selfpose.data.seeding import generator
from selfpose.data.sources import ImportJob, ImportOptions, Made, Skip
from selfpose.data.synthetic.cameras import Crop, draw_crop
from selfpose.data.synthetic.motions import choose_frames

__all__ = [
    "PhotoOptions",
    "PhotographJob",
    "Photographs",
    "add_backdrops",
    "join_photographs",
    "limit_rows",
    "photograph_jobs",
]

FEWEST_BACKDROP_PICTURES = 5
"""Number of pictures of one camera below which its background is not estimated."""

WHITE = 250
"""Brightness, of 255, from which a value counts as white."""
WHITE_SHARE = 0.9
"""Share of white values above which a picture is left out: it shows a flash, not a person."""


class PhotoOptions(ImportOptions):
    """Holds the options of an import of photographs."""

    background: Literal["keep", "remove"] = Field(
        "keep",
        description="What becomes of the background: `keep` leaves it, `remove` paints every pixel "
        "black that the foreground mask leaves out.",
    )
    unit: Unit | None = Field(
        None,
        description="Unit of the 3D joints, if it is not what the format says. Default: the "
        "format's own.",
    )


@dataclass(frozen=True)
class Photographs:
    """Holds rows of one split before their pictures are read; arrays have one entry per row."""

    names: Sequence[str]
    """Path of each row's picture below `root`; in a split without pictures, a name for the row."""
    joints_2d_nj2: NDArray[np.float32]
    """Positions of the joints, (N, J, 2), in frame pixels."""
    joints_3d_nj3: NDArray[np.float32] | None
    """Positions of the joints, (N, J, 3), in mm in camera axes; None if they are not known."""
    columns: Mapping[str, NDArray[np.int32]]
    """The columns `activity`, `subject`, `motion`, `camera` and `frame`, (N,) each."""
    frame_size_n2: NDArray[np.int32]
    """Width and height in pixels of the frame that joints are measured in, (N, 2); a picture may be
    a copy of the frame at another scale."""
    root: str | None
    """Folder of the pictures; None for poses alone."""
    masks: Sequence[MaskPlace | None] = ()
    """Place of each row's mask in the dataset, a box or a silhouette, None for a row without one;
    empty if no row has one."""
    crop_to_masks: bool = False
    """Whether pictures are cut out around the masks' boxes, and not around the joints."""
    backdrop_n: NDArray[np.int32] | None = None
    """Index in `backdrops` of each row's background, (N,), -1 for a row without one; None if no row
    has one."""
    backdrops: tuple[tuple[str, ...], ...] = ()
    """Paths of some pictures of each camera that stands still, from which its background is
    estimated."""
    slack: float = 0.0
    """How far outside the frame a joint may lie, as a share of the frame's side."""

    def __len__(self) -> int:
        return len(self.names)

    def pick(self, rows: NDArray[np.int64] | slice) -> Photographs:
        """Return some of the rows, by indices (n,) or a slice, in that order."""
        indices = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        backdrop_n, backdrops = None, self.backdrops
        # Rows travel to workers, so only the backgrounds that they need go with them.
        if self.backdrop_n is not None:
            used, place_n = np.unique(self.backdrop_n[indices], return_inverse=True)
            backdrops = tuple(self.backdrops[i] for i in used if i >= 0)
            backdrop_n = (place_n.reshape(-1) - (used < 0).sum()).astype(np.int32)
        joints_3d_nj3 = None if self.joints_3d_nj3 is None else self.joints_3d_nj3[indices]
        return replace(
            self,
            names=[self.names[i] for i in indices],
            joints_2d_nj2=self.joints_2d_nj2[indices],
            joints_3d_nj3=joints_3d_nj3,
            columns={name: column[indices] for name, column in self.columns.items()},
            frame_size_n2=self.frame_size_n2[indices],
            masks=[self.masks[i] for i in indices] if self.masks else (),
            backdrop_n=backdrop_n,
            backdrops=backdrops,
        )


def limit_rows(rows: Photographs, limit: int | None) -> Photographs:
    """Return the rows of at most `limit` frames, spread evenly over motions.

    A frame is kept with the rows of all its cameras, so there can be more rows than `limit`.
    """
    if limit is None or not len(rows):
        return rows
    motion_n, frame_n = rows.columns["motion"], rows.columns["frame"]
    frames, frame_of_n = np.unique(np.stack([motion_n, frame_n]), axis=1, return_inverse=True)
    _, lengths = np.unique(frames[0], return_counts=True)
    starts = np.cumsum([0, *lengths[:-1]])
    chosen = choose_frames(lengths.tolist(), limit)
    kept = np.concatenate([start + part for start, part in zip(starts, chosen, strict=True)])
    return rows.pick(np.flatnonzero(np.isin(frame_of_n.reshape(-1), kept)))


def photograph_jobs(
    rows: Mapping[str, Photographs], options: PhotoOptions
) -> tuple[Callable[[str, int, int], ImportJob], dict[str, str]]:
    """Return what a `Source` needs to make these rows.

    A store has masks for all of its pictures or for none.

    Args:
        rows: the rows of each split.
        options: how to make the store.

    Returns:
        The function `Source.job`, and facts about background and masks for `Source.facts`.

    Raises:
        BadInputError: the background is to be removed, and there are pictures without masks.
    """
    masks = _whence_masks([part for split, part in rows.items() if split != "prior"])
    if options.background == "remove" and masks is None:
        raise BadInputError(
            "--background remove: needs masks of all pictures, or enough pictures of each camera "
            "to estimate its background; leave it out"
        )

    def job(split: str, start: int, end: int) -> ImportJob:
        part = rows[split].pick(slice(start, end))
        return PhotographJob(part, split, options, masks is not None)

    return job, {"background": options.background, "masks": masks or "none"}


def _whence_masks(parts: Sequence[Photographs]) -> str | None:
    """Return where the masks of these pictures come from, in words; None if some have no mask."""
    given = estimated = 0
    for part in parts:
        if not len(part):
            continue
        with_mask_n = np.asarray([place is not None for place in part.masks or [None] * len(part)])
        with_backdrop_n = np.zeros(len(part), dtype=bool)
        if part.backdrop_n is not None:
            with_backdrop_n = part.backdrop_n >= 0
        if part.root is None or not (with_mask_n | with_backdrop_n).all():
            return None
        given += int(with_mask_n.sum())
        estimated += int((~with_mask_n).sum())
    backdrop = "difference from the median picture of each camera"
    if given == 0:
        return backdrop
    if estimated:
        return f"{given} the dataset's, the others {backdrop}"
    boxes = any(part.crop_to_masks for part in parts)
    return f"the dataset's; inside mere boxes {backdrop}" if boxes else "the dataset's"


def join_photographs(parts: Sequence[Photographs]) -> Photographs:
    """Return the rows of several parts in one; all parts must have the same root."""
    first = parts[0]
    joints_3d = [part.joints_3d_nj3 for part in parts if part.joints_3d_nj3 is not None]
    masks: list[MaskPlace | None] = []
    if any(part.masks for part in parts):
        for part in parts:
            masks += part.masks or [None] * len(part)
    return replace(
        first,
        names=[name for part in parts for name in part.names],
        joints_2d_nj2=np.concatenate([part.joints_2d_nj2 for part in parts]),
        joints_3d_nj3=np.concatenate(joints_3d) if joints_3d else None,
        columns={
            name: np.concatenate([part.columns[name] for part in parts]) for name in first.columns
        },
        frame_size_n2=np.concatenate([part.frame_size_n2 for part in parts]),
        masks=masks,
    )


def add_backdrops(rows: Mapping[str, Photographs], *, still: str) -> dict[str, Photographs]:
    """Return the rows with the background of each camera that has enough pictures.

    Args:
        rows: the rows of each split.
        still: how long a camera stands still: for all motions of one `subject`, or for one
            `motion`.
    """
    files: dict[tuple[int, int], list[str]] = {}
    keys = {split: _cameras(part, still) for split, part in rows.items()}
    for split, part in rows.items():
        for key, name in zip(keys[split], part.names, strict=True):
            files.setdefault(key, []).append(f"{part.root}/{name}")
    chosen = {key: _choose_backdrop(some) for key, some in files.items()}
    kept = [key for key, some in chosen.items() if some]
    numbers = {key: i for i, key in enumerate(kept)}
    return {
        split: replace(
            part,
            backdrop_n=np.asarray([numbers.get(key, -1) for key in keys[split]], np.int32),
            backdrops=tuple(chosen[key] for key in kept),
        )
        for split, part in rows.items()
    }


def _cameras(part: Photographs, still: str) -> list[tuple[int, int]]:
    """Return the camera of each row, as a pair of subject (or motion) and camera number."""
    columns = part.columns[still].tolist(), part.columns["camera"].tolist()
    return list(zip(*columns, strict=True))


def _choose_backdrop(files: Sequence[str]) -> tuple[str, ...]:
    """Return the pictures from which a camera's background is estimated; empty if too few."""
    if len(files) < FEWEST_BACKDROP_PICTURES:
        return ()
    count = min(len(files), BACKDROP_PICTURES)
    return tuple(files[(2 * i + 1) * len(files) // (2 * count)] for i in range(count))


@dataclass(frozen=True)
class PhotographJob:
    """Reads some rows of one split from their files."""

    rows: Photographs
    """The rows to read."""
    split: str
    """Name of the split."""
    options: PhotoOptions
    """How to make the store."""
    with_masks: bool
    """Whether the store has masks."""

    def __call__(self) -> Made:
        """Read the rows and leave out those that are bad."""
        made: list[tuple[int, dict[str, NDArray[Any]]]] = []
        skipped: list[Skip] = []
        for i, name in enumerate(self.rows.names):
            try:
                made.append((i, self._read_row(i)))
            except BadPictureError as error:
                skipped.append(Skip(self.split, name, str(error)))
        good = [i for i, _ in made]
        names = ("motion",) if self.split == "prior" else tuple(self.rows.columns)
        columns = {name: self.rows.columns[name][good] for name in names}
        shapes = self._row_shapes()
        for name, (length, kind) in shapes.items():
            columns[name] = np.empty((len(made), length), dtype=kind)
            for at, (_, row) in enumerate(made):
                columns[name][at] = row[name].reshape(-1)
        return Made(columns, tuple(skipped))

    def _row_shapes(self) -> dict[str, tuple[int, type]]:
        """Return the length and type of each column's entry that `_read_row` gives."""
        joints, pixels = self.rows.joints_2d_nj2.shape[1], self.options.image_size**2
        shapes: dict[str, tuple[int, type]] = {"joints_2d": (joints * 2, np.float32)}
        if self.split == "prior":
            return shapes
        if self.rows.joints_3d_nj3 is not None:
            shapes["joints_3d"] = (joints * 3, np.float32)
        if self.rows.root is not None:
            shapes["image"] = (pixels * 3, np.uint8)
            if self.with_masks:
                shapes["mask"] = (pixels, np.uint8)
        return shapes

    def _read_row(self, i: int) -> dict[str, NDArray[Any]]:
        rows, name = self.rows, self.rows.names[i]
        self._check_joints(i)
        place = rows.masks[i] if rows.masks else None
        mask = None if place is None else self._frame_mask(place, i)
        around = rows.joints_2d_nj2[i]
        if mask is not None and rows.crop_to_masks:
            around = box_of(mask)
        crop = draw_crop(around, generator(self.options.seed, "crop", self.split, name))
        row: dict[str, NDArray[Any]] = {"joints_2d": crop.from_frame(rows.joints_2d_nj2[i])}
        if rows.joints_3d_nj3 is not None:
            row["joints_3d"] = rows.joints_3d_nj3[i]
        if self.split == "prior" or rows.root is None:
            return row
        size = (int(rows.frame_size_n2[i, 0]), int(rows.frame_size_n2[i, 1]))
        image = read_crop(Path(rows.root, name), crop, self.options.image_size, frame_size=size)
        if np.count_nonzero(image >= WHITE) > WHITE_SHARE * image.size:
            raise BadPictureError("white picture")
        row["image"] = image
        if self.with_masks:
            row["mask"] = self._crop_mask(i, mask, crop, image)
            if self.options.background == "remove":
                row["image"] = remove_background(image, row["mask"])
        return row

    def _check_joints(self, i: int) -> None:
        joints_3d_nj3, size_2 = self.rows.joints_3d_nj3, self.rows.frame_size_n2[i]
        joints_j2 = self.rows.joints_2d_nj2[i]
        if not np.isfinite(joints_j2).all() or (
            joints_3d_nj3 is not None and not np.isfinite(joints_3d_nj3[i]).all()
        ):
            raise BadPictureError("joints are not numbers")
        slack_2 = self.rows.slack * size_2
        inside_j2 = (joints_j2 >= -slack_2) & (joints_j2 <= size_2 - 1 + slack_2)
        if not inside_j2.all():
            raise BadPictureError("joints outside the picture")

    def _frame_mask(self, place: MaskPlace, i: int) -> NDArray[np.uint8]:
        """Return a mask of the dataset, resized to the frame's size."""
        mask = read_mask(place)
        width, height = self.rows.frame_size_n2[i].tolist()
        if mask.shape == (height, width):
            return mask
        resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(resized, dtype=np.uint8)

    def _crop_mask(
        self, i: int, mask: NDArray[np.uint8] | None, crop: Crop, image: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Return the mask of a crop, (S, S), 0 to 255.

        It is the dataset's silhouette if there is one. Otherwise it is the part of the crop that
        differs from the background, within the dataset's box if there is one.
        """
        given = None if mask is None else cut_crop(mask, crop, self.options.image_size, scale=1.0)
        number = -1 if self.rows.backdrop_n is None else int(self.rows.backdrop_n[i])
        if mask is not None and given is not None and (number < 0 or is_silhouette(mask)):
            return given
        backdrop = estimate_backdrop(self.rows.backdrops[number])
        frame_width = int(self.rows.frame_size_n2[i, 0])
        found = find_foreground(image, backdrop, crop, frame_width=frame_width)
        return found if given is None else np.minimum(found, given)
