"""Imports MPI-INF-3DHP: the training sequences S1 to S8 and the test sequences TS1 to TS6."""

from __future__ import annotations

import hashlib
from pathlib import Path

from posetune.api import BadInputError, Importer, Progress, silent
from selfpose.data.formats.mpi_inf_protocol import (
    ACTIVITIES,
    LICENCE,
    SUBJECTS,
    TRAIN_STRIDE,
    TRAIN_SUBJECTS,
    VALID_FRAMES,
    Gathered,
    MpiInf3dhpOptions,
)
from selfpose.data.formats.mpi_inf_test import TEST_FILE, read_test_sequence
from selfpose.data.formats.mpi_inf_train import TRAIN_FILE, read_train_sequence
from selfpose.data.importing import run_import
from selfpose.data.pictures.photographs import (
    Photographs,
    add_backdrops,
    join_photographs,
    limit_rows,
    photograph_jobs,
)
from selfpose.data.plausibility import Checks
from selfpose.data.sources import BadAnnotationError, Skip, Source
from selfpose.method.skeleton import H36M_17

__all__ = ["IMPORTER", "read_mpi_inf_3dhp"]

TEST_FOLDER = "mpi_inf_3dhp_test_set"


def read_mpi_inf_3dhp(
    folder: Path, options: MpiInf3dhpOptions, progress: Progress = silent
) -> Source:
    """Read all annotations below a folder.

    Args:
        folder: folder with S1 to S8, and the test set as it is unpacked, or TS1 to TS6.
        options: which frames and which scale are used.
        progress: hears of every sequence.

    Raises:
        BadInputError: there are no annotations, or most rows of them cannot be right.
    """
    checks = Checks(H36M_17)
    sequences = _gather(folder, options, progress, checks)
    if not sequences:
        raise BadInputError(
            f"{folder}: does not hold MPI-INF-3DHP: neither S1/Seq1/annot.mat and the like nor "
            f"{TEST_FOLDER}/TS1/annot_data.mat"
        )
    checks.finish(folder)
    parts: dict[str, list[Photographs]] = {}
    digest = hashlib.sha256()
    for sequence in sequences:
        digest.update(f"{sequence.name}\0{sequence.sha256}\0".encode())
        for split, some in sequence.parts.items():
            parts.setdefault(split, []).extend(some)
    joined = {split: join_photographs(some) for split, some in parts.items()}
    with_backdrops = add_backdrops(joined, still="motion")
    rows = {split: limit_rows(part, options.limit) for split, part in with_backdrops.items()}
    job, facts = photograph_jobs(rows, options)
    valid = len(joined["test"]) if "test" in joined else 0
    return Source(
        format="mpi_inf_3dhp",
        layout=H36M_17,
        licence=LICENCE,
        digest=digest.hexdigest(),
        activities=ACTIVITIES,
        subjects=SUBJECTS,
        motions=tuple(sequence.name for sequence in sequences),
        rows={split: len(part) for split, part in rows.items()},
        job=job,
        facts={**_describe_protocol(options, valid), **facts, **checks.facts()},
        skipped=(
            *(skip for sequence in sequences for skip in sequence.skipped),
            *checks.skipped,
        ),
        excluded=tuple(skip for sequence in sequences for skip in sequence.excluded),
    )


def _gather(
    folder: Path, options: MpiInf3dhpOptions, progress: Progress, checks: Checks
) -> list[Gathered]:
    """Read every training and test sequence below the folder; there is none without annotations."""
    names = [f"{subject}/Seq{i}" for subject in TRAIN_SUBJECTS for i in (1, 2)]
    train = {name: f"{name}/{TRAIN_FILE}" for name in names if (folder / name).is_dir()}
    # The archive of the test set holds a folder of its own name, which some people unpack into
    # another one of that name.
    places = ("", f"{TEST_FOLDER}/", f"{TEST_FOLDER}/{TEST_FOLDER}/")
    found = [path / TEST_FILE for place in places for path in folder.glob(f"{place}TS[1-6]")]
    found.sort(key=lambda file: file.is_file())  # of two folders the one with annotations counts
    tests = {file.parent.name: file.relative_to(folder).as_posix() for file in found}
    files = {**train, **dict(sorted(tests.items()))}
    if not any((folder / file).is_file() for file in files.values()):
        return []
    sequences: list[Gathered] = []
    for motion, (name, file) in enumerate(files.items()):
        progress(motion, len(files), f"reading {name}")
        read = read_test_sequence if name in tests else read_train_sequence
        place = file.rpartition("/")[0]
        try:
            gathered = read(folder, place, motion=motion, options=options, checks=checks)
        except BadAnnotationError as error:
            split = "val" if name.split("/")[0] == options.val else "train"
            skip = Skip("test" if name in tests else split, file, str(error))
            gathered = Gathered(name, _sha256(folder / file), skipped=[skip])
        sequences.append(gathered)
    return sequences


def _sha256(file: Path) -> str:
    """Return the SHA-256 of a file; empty if it cannot be read."""
    if not file.is_file():
        return ""
    try:
        with file.open("rb") as raw:
            return hashlib.file_digest(raw, "sha256").hexdigest()
    except OSError:
        return ""


def _describe_protocol(options: MpiInf3dhpOptions, valid: int) -> dict[str, str]:
    """Return how the frames were split, in words, for the store's facts."""
    every = "all frames" if options.frames == "all" else f"every {TRAIN_STRIDE}th frame"
    held_out = f"subject {options.val}, {every}"
    if options.val == "none":
        held_out = "NOT held out: some frames of the prior's halves, to watch a final training by"
    return {
        "scale": options.scale,
        "annotations": "univ_annot3" if options.scale == "universal" else "annot3",
        "train and prior": f"first and second halves of the other subjects' sequences, {every}",
        "val": held_out,
        "test": f"{valid} valid frames; the whole test set has {VALID_FRAMES}",
    }


def _run(file: Path | None, out: Path, options: MpiInf3dhpOptions, progress: Progress) -> None:
    if file is None:
        raise BadInputError("the format mpi_inf_3dhp reads a folder: name it before --format")
    run_import(read_mpi_inf_3dhp(file, options, progress), out, options, progress)


IMPORTER = Importer(
    summary="MPI-INF-3DHP: S1 to S8 and the test set, as they are unpacked",
    needs_file=True,
    options=MpiInf3dhpOptions,
    run=_run,
)
