"""`posetune report`: a sweep as one page."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from posetune.api import BadInputError
from posetune.cli.options import HomeOption, JsonOption, SweepArgument
from posetune.cli.screen import console, interruptible, print_json, progress_bar
from posetune.home import Home
from posetune.report.best import look_at_best
from posetune.report.pages.page import BestTrial, build_page
from posetune.report.pages.watching import watch_sweep
from posetune.report.usage import cost_line
from posetune.spec.home_file import read_home_file
from posetune.storage.whole_files import write_whole
from posetune.study.reading import read_sweep
from posetune.study.tables.database import Database, open_database
from posetune.study.view import SweepView

__all__ = ["report"]

LOOK_S = 5.0
"""Seconds between two looks at a running sweep."""
REFRESH_S = 10
"""Seconds after which a browser loads the page of a running sweep again."""


def report(
    name: SweepArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The HTML file to write (default: NAME.html).", show_default=False
        ),
    ] = None,
    evaluate: Annotated[
        bool,
        typer.Option(help="Evaluate the best trial on all of the validation split."),
    ] = True,
    log: Annotated[
        bool, typer.Option(help="Also put the page into the sweep's MLflow run.")
    ] = True,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Renew the page while the sweep runs; an open browser shows it by itself.",
        ),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained page about a sweep: curves, parameters, poses, pruning, failures.

    posetune report first --out first.html

    posetune report first --watch
    """
    resolved = Home.resolve(home)
    database = open_database(resolved.database, create=False)
    view = read_sweep(database, name)
    out = out or Path(f"{name}.html")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise BadInputError(f"--out {out}: must be a file in a folder that is there")
    if watch:
        with interruptible():
            view = _watch(database, name, out=out, home=home)
    best = BestTrial(missing="it was not asked for (--no-evaluate)")
    if evaluate:
        with progress_bar("evaluate", quiet=as_json) as progress:
            best = look_at_best(view, resolved.storage, progress)
    cost = cost_line(view, read_home_file(resolved.folder))
    page = build_page(view, best, commands=_commands(view, home), cost=cost)
    _write(out, page)
    where = ""
    if log:
        where = _log(database, name, home=resolved, files=_files(page, best))
    if as_json:
        print_json({"page": str(out), "mlflow": where, "not_evaluated": best.missing})
        return
    if best.missing:
        console.print(f"the best trial was not evaluated: {best.missing}")
    console.print(f"page: {out}" + (f"; also in MLflow: {where}" if where else ""), soft_wrap=True)


def _watch(database: Database, name: str, *, out: Path, home: Path | None) -> SweepView:
    """Renew the page until the sweep runs no more, and return the sweep as it then is."""

    def write(view: SweepView) -> None:
        best = BestTrial(missing="the sweep is still running")
        _write(out, build_page(view, best, commands=_commands(view, home), refresh_s=REFRESH_S))
        console.print(f"page: {out} ({len(view.reports)} epochs reported)", soft_wrap=True)

    return watch_sweep(lambda: read_sweep(database, name), write, lambda: time.sleep(LOOK_S))


def _commands(view: SweepView, home: Path | None) -> list[str]:
    flag = ["--home", str(home)] if home else []
    sweep = ["posetune", "sweep", "sweep.yaml", "--name", view.name, "--store", view.store, *flag]
    commands = ["# the sweep file below is sweep.yaml", shlex.join(sweep)]
    if view.best is not None:
        again = ["posetune", "reproduce", f"{view.name}/{view.best.number}", *flag]
        commands += ["# the best trial again, from its record", shlex.join(again)]
    return commands


def _files(page: str, best: BestTrial) -> dict[str, bytes]:
    files = {"report.html": page.encode()}
    if best.evaluation is not None:
        files |= best.evaluation.pictures
        files |= {name: text.encode() for name, text in best.evaluation.tables.items()}
    return files


def _log(database: Any, name: str, *, home: Any, files: dict[str, bytes]) -> str:
    """Put files into MLflow; a page is written whether MLflow is there or not."""
    from posetune.tracking.reports import log_report

    try:
        return log_report(database, name, home, files)
    except BadInputError as error:
        console.print(f"not in MLflow: {error}", soft_wrap=True)
        return ""


def _write(out: Path, text: str) -> None:
    try:
        write_whole(out, text)
    except OSError as error:
        raise BadInputError(f"--out {out}: cannot be written ({error.strerror})") from error
