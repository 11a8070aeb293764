"""Imports an HDF5 file of 17-joint motion capture.

The file has the groups `train`, `val` and `test`, each with `positions` (N, 17, 3) in mm, z up, and
`subject`, `activity`, `motion` and `frame` (N,); the datasets `/motions/name` and `/subjects`; and
the root attributes `joints`, `parents`, `activities` and `units`. The rows of one motion stand
together. One half of the training motions gives images, the other half the 2D prior.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from posetune.api import BadInputError, Importer, Progress
from selfpose.data.hdf5 import UnsafeDatasetError, find_dataset
from selfpose.data.importing import run_import
from selfpose.data.plausibility import UNITS_MM, Unit
from selfpose.data.seeding import generator
from selfpose.data.sources import Skip
from selfpose.data.synthetic.drawing import DrawingOptions, draw_corpus
from selfpose.data.synthetic.motions import (
    Corpus,
    Motion,
    check_corpus,
    half_of,
    place_in_room,
)
from selfpose.method.skeleton import H36M_17, Layout

__all__ = ["IMPORTER", "Mocap17Options", "read_mocap17"]

GROUPS = ("train", "val", "test")
"""Names of the file's groups."""
LAYOUT: Layout = H36M_17
"""Layout that the file's joints must have."""
COLUMNS = ("subject", "activity", "motion", "frame")
"""Names of the datasets that each group has beside `positions`."""


class Mocap17Options(DrawingOptions):
    """Holds the options of an import of a file of motion capture."""

    unit: Unit | None = Field(
        None, description="Unit of the positions, if it is not what the file says. Default: mm."
    )


def read_mocap17(file: Path, *, seed: int, unit: Unit | None = None) -> Corpus:
    """Read all motions, leave out frames that no person can have, and place each in the room.

    Args:
        file: the HDF5 file.
        seed: seed of each motion's place in the room.
        unit: unit of the positions; None takes the file's word that they are in mm.

    Raises:
        BadInputError: the file cannot be read, has another form or holds no people; the message
            says what is wrong and where.
    """
    corpus = check_corpus(_read_file(file, unit), file)
    motions = [replace(motion, joints_fj3=_placed(motion, seed)) for motion in corpus.motions]
    return replace(corpus, motions=tuple(motions))


def _placed(motion: Motion, seed: int) -> NDArray[np.float32]:
    group = "train" if motion.split == "prior" else motion.split
    return place_in_room(
        motion.joints_fj3, LAYOUT, rng=generator(seed, "place", group, motion.name)
    )


def _read_file(file: Path, unit: Unit | None) -> Corpus:
    """Read all motions as they stand in the file, in mm."""
    if not file.is_file():
        raise BadInputError(f"{file}: no such file")
    try:
        with h5py.File(file, "r") as h5:
            return _read(h5, file, unit)
    except BadInputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # h5py's own
        reason = str(error).splitlines()[0]
        raise BadInputError(f"{file}: not a readable HDF5 file, or cut off: {reason}") from None


def _read(h5: h5py.File, file: Path, unit: Unit | None) -> Corpus:
    _check_layout(h5, file, unit)
    subjects, names = _texts(h5, "subjects", file), _texts(h5, "motions/name", file)
    activities = tuple(str(name) for name in _attribute(h5, "activities", file))
    limits = {"subject": len(subjects), "activity": len(activities), "motion": len(names)}
    skipped: list[Skip] = []
    motions = [
        motion
        for group in GROUPS
        for motion in _read_group(
            h5,
            group,
            file=file,
            limits=limits,
            names=names,
            unit_mm=UNITS_MM[unit or "mm"],
            skipped=skipped,
        )
    ]
    licences = {str(value) for key, value in h5.attrs.items() if key.startswith("licence")}
    return Corpus(
        format="mocap17",
        layout=LAYOUT,
        licence="\n".join(sorted(licences)) or "not stated in the file",
        source_digest=_sha256(file),
        activities=activities,
        subjects=subjects,
        motions=tuple(motions),
        skipped=tuple(skipped),
    )


def _shown(names: Sequence[str]) -> str:
    """Return names of a file on one line, cut where they are long."""
    return f"{' '.join(', '.join(names).split()):.500}"


def _check_layout(h5: h5py.File, file: Path, unit: Unit | None) -> None:
    """Refuse a file whose joints are not those of the layout, in mm if no unit is given."""
    joints = [_plain_name(str(name)) for name in _attribute(h5, "joints", file)]
    wanted = [_plain_name(name) for name in LAYOUT.joints]
    if joints != wanted:
        raise BadInputError(
            f"{file}: unknown joint layout in attribute joints: {_shown(joints)}; "
            f"{LAYOUT.name} is {', '.join(LAYOUT.joints)}"
        )
    parents = [int(parent) for parent in _attribute(h5, "parents", file)]
    if parents != list(LAYOUT.parents):
        raise BadInputError(
            f"{file}: attribute parents is {parents}, {LAYOUT.name} has {list(LAYOUT.parents)}"
        )
    units = h5.attrs.get("units", "millimetres")
    if unit is None and units not in ("millimetres", "mm"):
        raise BadInputError(
            f"{file}: attribute units is {units!r}, must be 'millimetres'; give --unit m, cm, mm "
            "or inch"
        )


def _plain_name(joint: str) -> str:
    """Return a joint's name in one spelling: `Rhip` becomes `right_hip`."""
    for short, long in (("R", "right_"), ("L", "left_")):
        if joint.startswith(short):
            return long + joint[1:].lower()
    return joint


def _read_group(
    h5: h5py.File,
    group: str,
    *,
    file: Path,
    limits: dict[str, int],
    names: tuple[str, ...],
    unit_mm: float,
    skipped: list[Skip],
) -> Iterator[Motion]:
    """Yield the motions of one group, without rows whose numbers name nothing."""
    found = _find(h5, f"{group}/positions", file)
    joints = len(LAYOUT.joints)
    if found.ndim != 3 or found.shape[1:] != (joints, 3) or not len(found):
        raise BadInputError(
            f"{file}: {group}/positions has shape {found.shape}, must be (N, {joints}, 3)"
        )
    positions = np.asarray(found[()]).astype(np.float32) * np.float32(unit_mm)
    columns = {name: _column(h5, group, name, len(positions), file=file) for name in COLUMNS}
    known_n = np.ones(len(positions), dtype=bool)
    for name, count in limits.items():
        good_n = (columns[name] >= 0) & (columns[name] < count)
        skipped += [
            Skip(group, f"{group} row {row}", f"{name} is not within 0..{count - 1}")
            for row in np.flatnonzero(known_n & ~good_n).tolist()
        ]
        known_n &= good_n
    for number in np.unique(columns["motion"][known_n]):
        here = np.flatnonzero(known_n & (columns["motion"] == number))
        name = names[number]
        yield Motion(
            name=name,
            subject=int(columns["subject"][here[0]]),
            split=half_of(name) if group == "train" else group,
            frame_f=columns["frame"][here].astype(np.int32),
            activity_f=columns["activity"][here].astype(np.int32),
            joints_fj3=positions[here],
        )


def _column(h5: h5py.File, group: str, name: str, rows: int, *, file: Path) -> NDArray[Any]:
    found = _find(h5, f"{group}/{name}", file)
    if found.shape != (rows,) or not np.issubdtype(found.dtype, np.integer):
        raise BadInputError(
            f"{file}: {group}/{name} is {found.dtype} of shape {found.shape}, "
            f"must be integers of shape ({rows},)"
        )
    return np.asarray(found[()])


def _find(h5: h5py.File, name: str, file: Path) -> h5py.Dataset:
    """Return a dataset, of which nothing is read yet."""
    try:
        return find_dataset(h5, name)
    except KeyError:
        raise BadInputError(
            f"{file}: there is no dataset {name}; the file is not in this form"
        ) from None
    except UnsafeDatasetError as error:
        raise BadInputError(f"{file}: {error}") from None


def _texts(h5: h5py.File, name: str, file: Path) -> tuple[str, ...]:
    values = np.asarray(_find(h5, name, file)[()])
    return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in values)


def _attribute(h5: h5py.File, name: str, file: Path) -> list[Any]:
    if name not in h5.attrs:
        raise BadInputError(f"{file}: the root attribute {name} is missing")
    return list(np.atleast_1d(h5.attrs[name]).tolist())


def _sha256(file: Path) -> str:
    with file.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


def _run(file: Path | None, out: Path, options: Mocap17Options, progress: Progress) -> None:
    if file is None:
        raise BadInputError("the format mocap17 reads a file: name it before --format")
    corpus = read_mocap17(file, seed=options.seed, unit=options.unit)
    source = draw_corpus(corpus, options)
    run_import(source, out, options, progress)


IMPORTER = Importer(
    summary="17-joint motion capture in HDF5, drawn as people in rooms",
    needs_file=True,
    options=Mocap17Options,
    run=_run,
)
