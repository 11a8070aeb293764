"""`posetune promote`: registers a sweep's best model and moves an alias."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.options import HomeOption, JsonOption, ModelNameOption, SweepArgument
from posetune.cli.screen import console, interruptible, print_json, progress_bar
from posetune.home import Home
from posetune.promotion.judging.verdict_table import verdict_table
from posetune.report.wording import format_measure
from posetune.workflow.promote import promote as promote_best

if TYPE_CHECKING:
    from posetune.promotion.request import Promotion

__all__ = ["promote"]

GATE_REFUSED = 3
"""Exit code: the gate refused, and the alias stays."""


def promote(
    name: SweepArgument,
    model: ModelNameOption,
    alias: Annotated[
        str, typer.Option("--alias", help="The alias to move; `candidate` is moved without a gate.")
    ] = "candidate",
    seeds: Annotated[
        int,
        typer.Option(
            help="Number of further seeds with which the three best trials are trained again.",
            min=0,
        ),
    ] = 0,
    trial: Annotated[
        int | None,
        typer.Option(help="Number of the trial to promote instead of the best one.", min=0),
    ] = None,
    epoch: Annotated[
        int | None,
        typer.Option(
            help="Epoch to promote. Default: the trial's best or last, whichever is better on the "
            "whole validation split.",
            min=1,
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", help="Address of the sweep's store, if it has moved."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Move the alias without a gate.")] = False,
    reason: Annotated[str, typer.Option(help="Reason for --force; it is recorded.")] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for tables and pictures of the test split, as `posetune evaluate` writes "
            "them; they cost no further look at the split.",
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register the best trial of a sweep and point an alias at it.

    The sweep may be running or interrupted: the candidate is the best of the trials that reached
    the last rung that any has reached. Its best and its last epoch are measured on the whole
    validation split, and the better one is registered.

    Every alias but `candidate` is gated: the test split is opened, and the trial must be
    significantly better than the present holder (paired bootstrap over motions) and in no activity
    significantly worse. A refusal is exit code 3, and the alias stays.

      posetune promote first --model selfpose

      posetune promote first --model selfpose --alias champion --seeds 2 --out out/first
    """
    if force != bool(reason.strip()):
        raise BadInputError("--force and --reason TEXT go together: say why the gate is not asked")
    with interruptible(), progress_bar("promote", quiet=as_json) as progress:
        promotion = promote_best(
            name,
            model,
            alias=alias,
            seeds=seeds,
            store=store,
            force_reason=reason if force else None,
            out=out,
            trial=trial,
            epoch=epoch,
            home=home,
            progress=progress,
        )
    if as_json:
        print_json(asdict(promotion))
    else:
        _show(promotion, home)
        if out is not None:
            wrote = promotion.test_looks is not None
            console.print(
                f"{out}: tables and pictures of the test split"
                if wrote
                else f"{out}: nothing was written, the test split was not opened again"
            )
    if promotion.gate == "refused":
        raise typer.Exit(GATE_REFUSED)


def _show(promotion: Promotion, home: Path | None) -> None:
    """Print a decision."""
    from posetune.tracking.server.connection import public_address  # imports MLflow

    for finalist in promotion.finalists:
        values = ", ".join(f"{value:.4g}" for value in finalist.values)
        console.print(f"trial {finalist.trial}: {finalist.mean:.4g} over seeds ({values})")
    if promotion.note:
        console.print(promotion.note, markup=False)
    if promotion.verdict is not None:
        console.print(verdict_table(promotion.verdict))
    if promotion.test_looks is not None:
        console.print(f"looks at this test split so far: {promotion.test_looks}")
    where = f"{promotion.model} version {promotion.version}"
    for one in promotion.measured:
        then, whole = (_number(value) for value in (one.value, one.whole_value))
        console.print(
            f"trial {one.trial} after epoch {one.epoch}: {then} in the sweep, {whole} on the whole "
            "validation split"
        )
    what = (
        f"trial {promotion.trial} of {promotion.sweep} after epoch {promotion.epoch}, "
        f"{_number(promotion.value)} in the sweep"
    )
    if promotion.gate == "refused":
        console.print(f"refused: {promotion.reason}. {where} ({what}) stays without the alias")
        return
    if promotion.approvals:
        persons = f"{promotion.approvals} other person{'s' if promotion.approvals > 1 else ''}"
        _say(f"{promotion.gate}: {promotion.reason}. {where} ({what}) does not move the alias yet:")
        _say(f"as {promotion.alias} it waits for {persons}")
        _say(f"Next: posetune approve {promotion.model}/{promotion.version}")
        return
    gate = "no gate was asked" if promotion.gate == "ungated" else promotion.gate
    because = f": {promotion.reason}" if promotion.reason else ""
    console.print(f"{where} is {promotion.model}@{promotion.alias}: {what} ({gate}{because})")
    home_flag = f" --home {home}" if home else ""
    console.print(
        f"Next: posetune ui{home_flag}, or in Python\n"
        f'  mlflow.set_tracking_uri("{public_address(Home.resolve(home).tracking)}")\n'
        f'  mlflow.pyfunc.load_model("{promotion.uri}")',
        soft_wrap=True,
    )


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)


def _number(value: float | None) -> str:
    return "not known" if value is None else format_measure(value)
