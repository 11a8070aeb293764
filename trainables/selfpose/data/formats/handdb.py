"""Imports HandDB: pictures of hands with 21 joints in 2D, in the folders of its archives.

    hand_labels/{manual_train,manual_test}/NAME.jpg, NAME.json
    hand_labels_synth/{synth1,synth2,synth3,synth4}/NAME.jpg, NAME.json
    hand143_panopticdb/hands_v143_14817.json, imgs/NAME.jpg

A part gives images (`train`), 2D poses (`prior`), or is scored on (`val`, `test`). Left hands are
mirrored, so that all hands are right ones; a hand that is not said to be left counts as a right
one.

Frames and units: pixels of the picture, u right, v down. Shape letters: n rows, J joints, S side
of the store's images in pixels.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from posetune.api import BadInputError, Importer, Progress
from selfpose.data.importing import run_import
from selfpose.data.metadata import SPLITS
from selfpose.data.pictures.decoding import (
    BadPictureError,
    cut_crop,
    decode_reduced,
    read_picture_bytes,
)
from selfpose.data.plausibility import Checks, Take
from selfpose.data.shards import Column
from selfpose.data.sources import BadAnnotationError, ImportOptions, Made, Skip, Source
from selfpose.data.synthetic.cameras import Crop
from selfpose.method.skeleton import HAND_21

__all__ = ["IMPORTER", "HandDBOptions", "read_handdb"]

CROP_FACTOR = 2.2
"""Side of the crop divided by the larger side of the joints' box. Source: the dataset's paper."""
FARTHEST_CENTRE = 0.5
"""Largest distance of hand_box_center from the middle of the joints' box in x or y, as a share of
the box's larger side: the centre must lie in the box."""
JOINTS = len(HAND_21.joints)
ANNOTATED = 1
"""Third number of a point that was annotated."""

PARTS: Mapping[str, str] = {
    "manual_train": "hand_labels/manual_train",
    "manual_test": "hand_labels/manual_test",
    **{f"synth{i}": f"hand_labels_synth/synth{i}" for i in (1, 2, 3, 4)},
    "hand143": "hand143_panopticdb",
}
"""Folder of each part, by the part's name."""
_FILM = re.compile(r"(.+)_\d+_[lr]")
"""Form of the names of a film's frames and of the hands in one picture. Items with the same first
group belong together."""
_MIRRORED = np.asarray((-1, 1), dtype=np.float32)
_LICENCE = (
    "HandDB (Simon, Joo, Matthews, Sheikh 2017): see domedb.perception.cs.cmu.edu/handdb.html"
)


class HandDBOptions(ImportOptions):
    """Holds the options of an import of HandDB; the parts of a split are separated by commas."""

    train: str = Field(
        "synth2,synth3,synth4",
        description="Parts that give images to train on, separated by commas.",
    )
    prior: str = Field(
        "hand143", description="Parts that give 2D poses for the prior, separated by commas."
    )
    val: str = Field("synth1", description="Parts to validate on, separated by commas.")
    test: str = Field("manual_test", description="Parts to test on, separated by commas.")

    def parts(self, split: str) -> tuple[str, ...]:
        """Return the names of the parts of a split."""
        return tuple(part.strip() for part in getattr(self, split).split(","))

    @field_validator(*SPLITS)
    @classmethod
    def _parts_are_known(cls, value: str) -> str:
        unknown = [part for part in value.split(",") if part.strip() not in PARTS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no part of HandDB; known are {', '.join(PARTS)}")
        return value

    @model_validator(mode="after")
    def _parts_are_used_once(self) -> HandDBOptions:
        named = [part for split in SPLITS for part in self.parts(split)]
        twice = sorted({part for part in named if named.count(part) > 1})
        if twice:
            raise ValueError(f"part {twice[0]} is given twice; no two splits may share pictures")
        return self


@dataclass(frozen=True)
class _Hand:
    """Holds the annotation of one hand."""

    picture: str
    """Path of the picture below the folder that is imported."""
    joints_j2: NDArray[np.float32]
    """Positions of the joints, (J, 2), in pixels of the picture."""
    crop: Crop
    """Square around the hand."""
    is_left: bool
    """Whether it is a left hand."""
    part: str
    """Name of the part that the picture is in."""

    @property
    def motion(self) -> str:
        """Name of the film or picture; hands of the same name belong together."""
        stem = self.picture.rsplit(".", 1)[0]
        film = _FILM.fullmatch(stem)
        return film.group(1) if film else stem


def read_handdb(root: Path, options: HandDBOptions) -> Source:
    """Read the annotations of all parts.

    Args:
        root: folder with `hand_labels`, `hand_labels_synth` and `hand143_panopticdb`.
        options: which part goes into which split.

    Raises:
        BadInputError: a part's folder is missing, or most hands cannot be right.
    """
    if not root.is_dir():
        raise BadInputError(f"{root}: no such folder; it must hold hand_labels and the like")
    digest = hashlib.sha256()
    hands: dict[str, list[_Hand]] = {split: [] for split in SPLITS}
    skipped: list[Skip] = []
    for split in SPLITS:
        for part in options.parts(split):
            try:
                entries = [*_entries(root, part, digest)]
            except BadAnnotationError as error:
                skipped.append(Skip(split, PARTS[part], str(error)))
                continue
            for item, entry in entries:
                try:
                    hands[split].append(_read_hand(item, entry, part))
                except BadPictureError as error:
                    skipped.append(Skip(split, item, str(error)))
    checks = Checks(HAND_21)
    sound = {
        split: _sound_hands(split, some, options, checks) for split, some in hands.items() if some
    }
    checks.finish(root)
    chosen = {split: _limited(sound.get(split, ()), options.limit) for split in SPLITS}
    motions = tuple(dict.fromkeys(hand.motion for some in chosen.values() for hand in some))
    numbers = {name: i for i, name in enumerate(motions)}
    return Source(
        format="handdb",
        layout=HAND_21,
        licence=_LICENCE,
        digest=digest.hexdigest(),
        activities=tuple(PARTS),
        subjects=("not known",),
        motions=motions,
        rows={split: len(some) for split, some in chosen.items()},
        job=lambda split, start, end: HandJob(
            root=str(root),
            hands=tuple(chosen[split][start:end]),
            motions=tuple(numbers[hand.motion] for hand in chosen[split][start:end]),
            split=split,
            image_size=options.image_size,
        ),
        facts={
            **{f"{split} from": ", ".join(options.parts(split)) for split in SPLITS},
            **checks.facts(),
        },
        skipped=(*skipped, *checks.skipped),
    )


def _sound_hands(
    split: str, hands: Sequence[_Hand], options: HandDBOptions, checks: Checks
) -> list[_Hand]:
    """Return the hands of a split that the checks accept."""
    sound: list[_Hand] = []
    for part in options.parts(split):
        some = [hand for hand in hands if hand.part == part]
        if not some:
            continue
        # A hand stands there twice if both its picture and its joints do.
        numbers: dict[tuple[str, bytes], int] = {}
        keys = [(hand.picture, hand.joints_j2.tobytes()) for hand in some]
        frame_n = np.asarray([numbers.setdefault(key, len(numbers)) for key in keys])
        take = Take(
            name=PARTS[part],
            split=split,
            names=[hand.picture for hand in some],
            frame_n=frame_n,
            joints_2d_nj2=np.stack([hand.joints_j2 for hand in some]),
        )
        sound += [some[i] for i in np.flatnonzero(checks.check(take)).tolist()]
    return sound


def _limited(hands: Sequence[_Hand], limit: int | None) -> list[_Hand]:
    """Return at most `limit` of the hands, evenly spaced."""
    count = min(len(hands), limit or len(hands))
    return [hands[(2 * i + 1) * len(hands) // (2 * count)] for i in range(count)]


def _entries(root: Path, part: str, digest: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path of each picture of a part below the root, and its annotation.

    An annotation that cannot be read is None. Everything that is read goes into the digest.

    Raises:
        BadAnnotationError: there is no annotation in the part's folder.
        BadInputError: the part's folder is missing.
    """
    folder = root / PARTS[part]
    if not folder.is_dir():
        raise BadInputError(
            f"{folder}: no such folder; unpack it there, or choose other parts than {part}"
        )
    if part == "hand143":
        yield from _listed_entries(root, folder, digest)
        return
    names = sorted({f.stem for f in folder.iterdir() if f.suffix in (".json", ".jpg")})
    if not names:
        raise BadAnnotationError("holds no NAME.json beside NAME.jpg")
    for name in names:
        item = f"{PARTS[part]}/{name}.jpg"
        file = folder / f"{name}.json"
        digest.update(item.encode())
        if file.exists() and not file.is_file():  # a pipe would be waited for
            yield item, None
            continue
        try:
            text = file.read_bytes()
            digest.update(text)
            yield item, json.loads(text)
        except (OSError, ValueError, RecursionError):
            yield item, None


def _listed_entries(root: Path, folder: Path, digest: Any) -> Iterator[tuple[str, Any]]:
    """Yield the pictures and annotations of the part `hand143`, which has one file for all."""
    files = sorted(file for file in folder.glob("hands_v143*.json") if file.is_file())
    if not files:
        raise BadAnnotationError("holds no hands_v143_14817.json")
    try:
        text = files[0].read_bytes()
        digest.update(text)
        entries = list(json.loads(text)["root"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = type(error).__name__
        raise BadAnnotationError(
            f"no list of hands can be read from {files[0].name} ({reason})"
        ) from None
    part = folder.relative_to(root).as_posix()
    for number, entry in enumerate(entries):
        named = isinstance(entry, dict) and isinstance(entry.get("img_paths"), str)
        yield (f"{part}/{entry['img_paths']}", entry) if named else (f"{part} entry {number}", None)


def _read_hand(item: str, entry: Any, part: str) -> _Hand:
    """Return a hand from its annotation.

    Raises:
        BadPictureError: the annotation cannot be used.
    """
    if not isinstance(entry, dict):
        raise BadPictureError("no annotation can be read")
    points = entry.get("joint_self" if part == "hand143" else "hand_pts")
    try:
        points_j3 = np.asarray(points, dtype=np.float64)
    except (ValueError, TypeError):
        points_j3 = np.empty((0, 3))
    if points_j3.shape != (JOINTS, 3):
        raise BadPictureError(f"the annotation does not have {JOINTS} points")
    if (points_j3[:, 2] != ANNOTATED).any():
        raise BadPictureError(f"not all {JOINTS} points are annotated")
    joints_j2 = points_j3[:, :2]
    if not np.isfinite(joints_j2).all():
        raise BadPictureError("joints are not numbers")
    _check_inside(joints_j2, entry.get("img_width"), entry.get("img_height"))
    low_2, high_2 = joints_j2.min(axis=0), joints_j2.max(axis=0)
    side = float((high_2 - low_2).max())
    if not side > 0:
        raise BadPictureError("all joints are at one place")
    crop = Crop(_centre(entry, (low_2 + high_2) / 2), CROP_FACTOR * side)
    is_left = bool(entry.get("is_left", 0))
    return _Hand(item, joints_j2.astype(np.float32), crop, is_left, part)


def _centre(entry: Mapping[str, Any], middle_2: NDArray[np.float64]) -> tuple[float, float]:
    """Return the crop's centre in pixels: the annotated one, or else the middle of the joints."""
    given = entry.get("hand_box_center")
    try:
        x, y = np.asarray(middle_2 if given is None else given, dtype=np.float64)[:2].tolist()
    except (ValueError, TypeError):
        raise BadPictureError("hand_box_center is not a point") from None
    if not np.isfinite((x, y)).all():
        raise BadPictureError("hand_box_center is not a point")
    return x, y


def _check_centre(hand: _Hand) -> None:
    """Refuse a hand whose crop is far from its joints."""
    low_2, high_2 = hand.joints_j2.min(axis=0), hand.joints_j2.max(axis=0)
    off_2 = np.abs(np.asarray(hand.crop.centre_px) - (low_2 + high_2) / 2)
    if not off_2.max() <= FARTHEST_CENTRE * (high_2 - low_2).max():
        raise BadPictureError("hand_box_center is far from the joints")


def _check_inside(joints_j2: NDArray[Any], width: Any, height: Any) -> None:
    """Refuse joints outside the picture; nothing is checked if the picture's size is not known."""
    if not isinstance(width, int | float) or not isinstance(height, int | float):
        return
    inside_j2 = (joints_j2 >= -0.5) & (joints_j2 <= np.asarray((width, height)) - 0.5)
    if not inside_j2.all():
        raise BadPictureError("joints outside the picture")


@dataclass(frozen=True)
class HandJob:
    """Reads some rows of one split from their files."""

    root: str
    """Folder that is imported."""
    hands: tuple[_Hand, ...]
    """Annotations of the rows."""
    motions: tuple[int, ...]
    """Number of each hand's motion in the store."""
    split: str
    """Name of the split."""
    image_size: int
    """Side S of the store's images in pixels."""

    def __call__(self) -> Made:
        """Read the rows and leave out those that are bad."""
        rows: list[dict[str, Any]] = []
        skipped: list[Skip] = []
        for hand, motion in zip(self.hands, self.motions, strict=True):
            try:
                rows.append({"motion": motion, **self._read_row(hand)})
            except BadPictureError as error:
                skipped.append(Skip(self.split, hand.picture, str(error)))
        columns: dict[str, Column] = {
            name: np.asarray([row[name] for row in rows], kind).reshape(len(rows), *shape)
            for name, (kind, shape) in self._columns().items()
        }
        return Made(columns, tuple(skipped))

    def _columns(self) -> dict[str, tuple[type, tuple[int, ...]]]:
        """Return the type and the shape of each column's entry."""
        columns: dict[str, tuple[type, tuple[int, ...]]]
        columns = {"joints_2d": (np.float32, (2 * JOINTS,)), "motion": (np.int32, ())}
        if self.split != "prior":
            columns["image"] = (np.uint8, (3 * self.image_size**2,))
            for name in ("activity", "subject", "camera", "frame"):
                columns[name] = (np.int32, ())
        return columns

    def _read_row(self, hand: _Hand) -> dict[str, Any]:
        joints_j2 = hand.crop.from_frame(hand.joints_j2)
        row: dict[str, Any] = dict.fromkeys(("subject", "camera", "frame"), 0)
        row["activity"] = list(PARTS).index(hand.part)
        if self.split == "prior":
            _check_centre(hand)
        if self.split != "prior":
            picture = decode_reduced(read_picture_bytes(Path(self.root, hand.picture)), 1)
            _check_inside(hand.joints_j2, picture.shape[1], picture.shape[0])
            _check_centre(hand)
            bgr = cut_crop(picture, hand.crop, self.image_size, scale=1.0)
            image_ss3 = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            row["image"] = image_ss3[:, ::-1] if hand.is_left else image_ss3
        row["joints_2d"] = joints_j2 * _MIRRORED if hand.is_left else joints_j2
        return row


def _run(file: Path | None, out: Path, options: HandDBOptions, progress: Progress) -> None:
    if file is None:
        raise BadInputError("the format handdb reads a folder: name it before --format")
    run_import(read_handdb(file, options), out, options, progress)


IMPORTER = Importer(
    summary="pictures of hands with 21 joints in 2D: manual, synthetic, panoptic",
    needs_file=True,
    options=HandDBOptions,
    run=_run,
)
