"""`posetune reproduce`: a trial again, from its record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from posetune.api import BadInputError
from posetune.cli.options import HomeOption, JsonOption
from posetune.cli.screen import console, print_json, progress_bar
from posetune.home import Home
from posetune.provenance import collect
from posetune.spec.registration import load_trainable
from posetune.storage import open_folder, open_storage
from posetune.study.reading import find_run, read_sweep
from posetune.study.tables import journal
from posetune.study.tables.database import open_database
from posetune.trial.reproduce import Recorded, Reproduction, changed_environment
from posetune.trial.reproduce import reproduce as train_again

__all__ = ["reproduce"]

_TRIAL = re.compile(r"(?P<sweep>[A-Za-z0-9][A-Za-z0-9_.-]{0,63})/(?P<trial>\d{1,9})")


def reproduce(
    run: Annotated[
        str, typer.Argument(help="The trial: SWEEP/TRIAL, or the id of its MLflow run.")
    ],
    store: Annotated[
        str | None,
        typer.Option(
            "--store", help="Where the sweep's store is now, if it has moved.", show_default=False
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a trial again from its record, and say whether the result agrees.

    On the same kind of processor and the same versions it must be equal to the last bit. Elsewhere,
    and on a GPU, further seeds are trained where it is not, to tell how much that means. Exit code
    0: it agrees; 1: it does not.

      posetune reproduce first/3
    """
    record = _find(Home.resolve(home), run, store)
    changed = changed_environment(record.view.provenance, collect())
    metric = record.view.spec.objective.metric
    last = len(record.metrics)

    def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
        if not as_json:
            was = record.metrics[epoch - 1].get(metric)
            console.print(f"epoch {epoch}/{last}: {metric} {metrics[metric]!r}, recorded {was!r}")

    with progress_bar("train", quiet=as_json) as progress:
        found = train_again(
            record,
            with_seeds=bool(changed or record.view.spec.resources.gpu),
            on_epoch=on_epoch,
            progress=progress,
        )
    agrees = found.equal or found.within_spread
    if as_json:
        content = {"run": run, "agrees": agrees, "changed": changed, **asdict(found)}
        print_json(content)
    else:
        for line in changed:
            console.print(f"not as it was: {line}")
        console.print(_verdict(found))
    raise typer.Exit(0 if agrees else 1)


def _verdict(found: Reproduction) -> str:
    epochs = f"{found.epochs} epoch{'s' if found.epochs != 1 else ''}"
    if found.largest is None:
        return f"agrees: every metric of {epochs} is equal to the last bit"
    name, epoch, size = found.largest
    said = f"recorded {found.recorded}, now {found.found}; the largest relative difference is "
    said += f"{size:.1e}, of {name} after epoch {epoch}"
    if found.spread is None:
        return f"does NOT agree: {said}"
    verdict = "agrees within the spread of seeds" if found.within_spread else "does NOT agree"
    return (
        f"{verdict}: {said}; the objective is {found.gap:.4g} apart at most, other seeds' are "
        f"{found.spread:.4g}"
    )


def _find(home: Home, run: str, store: str | None) -> Recorded:

    database = open_database(home.database, create=False)
    match = _TRIAL.fullmatch(run)
    sweep, number = (match["sweep"], int(match["trial"])) if match else find_run(database, run)
    view = read_sweep(database, sweep)
    if number >= len(view.trials):
        raise BadInputError(
            f"{run}: there is no such trial; sweep {sweep} has {len(view.trials)}, numbered from 0"
        )
    trial = view.trials[number]
    with database.reading() as connection:
        reports = journal.read_metrics(connection, view.id, number=number)
    if not reports:
        raise BadInputError(
            f"{run}: the trial is {trial.state} and has reported no epoch to compare with; name "
            "one that has"
        )
    place = open_storage(store or view.store).address
    folder = open_folder(place)
    if not folder.exists():
        raise BadInputError(f"{run}: its store is not at {place}; give its address with --store")
    digest = _digest(view.spec.trainable, folder)
    if digest != view.store_digest:
        raise BadInputError(
            f"{run}: store {place} has digest {digest[:12]}, the trial was trained on "
            f"{view.store_digest[:12]}; give that store with --store"
        )
    if trial.parent is not None:
        raise BadInputError(
            f"{run}: began at a checkpoint of trial {trial.parent}, so it cannot be trained again "
            f"from its record; reproduce {sweep}/{trial.parent}"
        )
    return Recorded(view, trial, [report.metrics or {} for report in reports], place, home.storage)


def _digest(trainable: str, store: Path) -> str:

    found: Any = load_trainable(trainable)
    return str(found.describe_store(store).digest)
