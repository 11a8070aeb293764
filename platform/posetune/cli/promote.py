"""`posetune promote` and `posetune rollback`: which version an alias points at."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.options import HomeOption, JsonOption, SweepArgument
from posetune.cli.screen import console, interruptible, print_json, progress_bar

if TYPE_CHECKING:
    from posetune.home import Home
    from posetune.promotion.decision import Promotion

__all__ = ["promote", "rollback"]

GATE_REFUSED = 3

ModelOption = Annotated[str, typer.Option("--model", help="The registered model's name.")]


def promote(
    name: SweepArgument,
    model: ModelOption,
    alias: Annotated[
        str, typer.Option("--alias", help="The alias to move; `candidate` has no gate.")
    ] = "candidate",
    seeds: Annotated[
        int,
        typer.Option(help="Train the three best again with so many further seeds.", min=0),
    ] = 0,
    store: Annotated[
        str | None,
        typer.Option("--store", help="The sweep's data, if it is not where it was."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Move the alias without a gate.")] = False,
    reason: Annotated[str, typer.Option(help="Why; recorded with --force.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register the best complete trial of a sweep and point an alias at it.

    Every alias but `candidate` is gated: the test split is opened, and the trial must be
    significantly better than the present holder (paired bootstrap over motions) and in no activity
    significantly worse. A refusal is exit code 3, and the alias stays.

      posetune promote first --model selfpose

      posetune promote first --model selfpose --alias champion --seeds 2
    """
    from posetune.home import Home
    from posetune.spec.registration import load_trainable
    from posetune.study.database import open_database
    from posetune.study.view import read_sweep

    if force != bool(reason.strip()):
        raise BadInputError("--force and --reason TEXT go together: say why the gate is not asked")
    resolved = Home.resolve(home)
    database = open_database(resolved.database, create=False)
    view = read_sweep(database, name)

    from posetune.promotion.decision import Request  # imports MLflow, which takes seconds
    from posetune.promotion.decision import promote as decide

    trainable = load_trainable(view.spec.trainable)
    with interruptible(), progress_bar("promote", quiet=as_json) as progress:
        finalists = []
        if seeds:
            from posetune.promotion.finalists import retrain_finalists

            finalists = retrain_finalists(
                view,
                resolved,
                trainable=trainable,
                seeds=seeds,
                store=store or view.store,
                progress=progress,
            )
        request = Request(name, model, alias, store, reason if force else None, finalists)
        promotion = decide(database, resolved, request, trainable=trainable, progress=progress)
    if as_json:
        print_json(asdict(promotion))
    else:
        _show(promotion, resolved, home)
    if promotion.gate == "refused":
        raise typer.Exit(GATE_REFUSED)


def rollback(
    model: ModelOption,
    alias: Annotated[str, typer.Option("--alias", help="The alias to take back.")] = "champion",
    to: Annotated[
        int | None, typer.Option(help="A version (default: the one before).", min=1)
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at the version that it pointed at before.

    posetune rollback --model selfpose --alias champion
    """
    from posetune.home import Home
    from posetune.promotion.decision import roll_back

    before, now = roll_back(Home.resolve(home), model=model, alias=alias, to=to)
    if as_json:
        print_json({"model": model, "alias": alias, "from": before, "to": now})
    else:
        console.print(f"{model}@{alias}: version {now} again, instead of {before}")


def _show(promotion: Promotion, resolved: Home, home: Path | None) -> None:
    """Print a decision."""
    from posetune.promotion.verdict_table import verdict_table
    from posetune.tracking.connection import public_address

    for finalist in promotion.finalists:
        values = ", ".join(f"{value:.4g}" for value in finalist.values)
        console.print(f"trial {finalist.trial}: {finalist.mean:.4g} over seeds ({values})")
    if promotion.verdict is not None:
        console.print(verdict_table(promotion.verdict))
    if promotion.openings is not None:
        console.print(f"looks at this test split so far: {promotion.openings}")
    where = f"{promotion.model} version {promotion.version}"
    what = f"trial {promotion.trial} of {promotion.sweep}, {promotion.value:.2f} on validation"
    if promotion.gate == "refused":
        console.print(f"refused: {promotion.reason}. {where} ({what}) stays without the alias")
        return
    gate = "no gate was asked" if promotion.gate == "ungated" else promotion.gate
    because = f": {promotion.reason}" if promotion.reason else ""
    console.print(f"{where} is {promotion.model}@{promotion.alias}: {what} ({gate}{because})")
    home_flag = f" --home {home}" if home else ""
    console.print(
        f"Next: posetune ui{home_flag}, or in Python\n"
        f'  mlflow.set_tracking_uri("{public_address(resolved.tracking)}")\n'
        f'  mlflow.pyfunc.load_model("{promotion.uri}")',
        soft_wrap=True,
    )
