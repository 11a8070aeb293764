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
from selfpose.data.formats.mpi_inf_test import read_test_sequence
from selfpose.data.formats.mpi_inf_train import read_train_sequence
from selfpose.data.importing import run_import
from selfpose.data.photographs import (
    Photographs,
    add_backdrops,
    join_photographs,
    limit_rows,
    photograph_jobs,
)
from selfpose.data.plausibility import Checks
from selfpose.data.sources import Source
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
        BadInputError: there are no annotations, or one cannot be read or has another form.
    """
    checks = Checks(H36M_17)
    sequences = _gather(folder, options, progress, checks)
    if not sequences:
        raise BadInputError(
            f"{folder}: no MPI-INF-3DHP here: neither S1/Seq1/annot.mat and the like nor "
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
    """Read every training and test sequence below the folder."""
    names = [f"{subject}/Seq{i}" for subject in TRAIN_SUBJECTS for i in (1, 2)]
    train = [name for name in names if (folder / name / "annot.mat").is_file()]
    # The archive of the test set holds a folder of its own name, which some people unpack into
    # another one of that name.
    places = ("", f"{TEST_FOLDER}/", f"{TEST_FOLDER}/{TEST_FOLDER}/")
    tests = {file.parent.name: place for place in places for file in folder.glob(_tests(place))}
    sequences: list[Gathered] = []
    for motion, name in enumerate((*train, *sorted(tests))):
        progress(motion, len(train) + len(tests), f"reading {name}")
        sequences.append(
            read_test_sequence(
                folder, tests[name] + name, motion=motion, options=options, checks=checks
            )
            if name in tests
            else read_train_sequence(folder, name, motion=motion, options=options, checks=checks)
        )
    return sequences


def _tests(place: str) -> str:
    return f"{place}TS[1-6]/annot_data.mat"


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
