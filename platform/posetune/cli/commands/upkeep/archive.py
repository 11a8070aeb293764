"""`posetune archive`: a sweep in one file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from posetune.cli.acting import study_of
from posetune.cli.options import HomeOption, JsonOption, SweepArgument
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.provenance import this_person
from posetune.workflow.archive import archive_sweep

__all__ = ["archive"]


def archive(
    name: SweepArgument,
    to: Annotated[Path, typer.Option("--to", help="The file to write; it must be new.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a sweep with its checkpoints and its page into one file.

    The file has the events of the sweep, the checkpoints that the study keeps, report.html, and a
    manifest with the digest of each. posetune unarchive puts it into any study. The sweep stays.

      posetune archive first --to first.tar
    """
    found = archive_sweep(study_of(home), Home.resolve(home), name, to, by=this_person())
    if as_json:
        print_json(asdict(found))
        return
    for folder in found.missing:
        console.print(f"not in storage any more, or damaged: {folder}", markup=False)
    console.print(
        f"{found.file}: sweep {name}, {found.trials} trials, {found.checkpoints} checkpoints, "
        f"{found.bytes / 1e6:.1f} MB",
        soft_wrap=True,
        markup=False,
    )
    console.print(f"Next: posetune unarchive {found.file} --home OTHER", soft_wrap=True)
