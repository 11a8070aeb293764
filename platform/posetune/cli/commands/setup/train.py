"""`posetune train`: trains one trial in this process."""

from __future__ import annotations

from typing import Annotated

import typer

from posetune.api import TrialFailedError
from posetune.cli.acting import read_settings
from posetune.cli.options import HomeOption, JsonOption, StoreOption, SweepFile
from posetune.cli.screen import console, interruptible, print_json, progress_bar
from posetune.report.wording import format_measure
from posetune.workflow.train import Training
from posetune.workflow.train import train as train_trial

__all__ = ["train"]


def train(
    file: SweepFile,
    store: StoreOption = None,
    home: HomeOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a field of the configuration; may be given several times.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Number of epochs to train (default: the file's max_epochs).", min=1),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Limit in minutes: no epoch begins that would end after it.", min=0),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the trial.", min=0)] = 0,
    name: Annotated[
        str | None, typer.Option(help="Name of the training (default: the name of the file).")
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Delete an earlier training of this name and start again."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train one trial in this process, without Ray: the file's defaults, changed by --set.

    The same command again continues from the last epoch.

      posetune train search_spaces/selfpose/quickstart.yaml --set flow.depth=8 --epochs 3
    """
    settings = read_settings(set_ or [])
    try:
        with interruptible(), progress_bar("train", quiet=as_json) as progress:
            training = train_trial(
                file,
                name,
                settings=settings,
                store=store,
                home=home,
                epochs=epochs,
                minutes=minutes,
                seed=seed,
                fresh=fresh,
                on_start=_ignore if as_json else _say_baselines,
                on_epoch=_ignore if as_json else _say_epoch,
                progress=progress,
            )
    except TrialFailedError as error:
        console.print(f"the trial failed: {error}")
        raise typer.Exit(1) from error
    if as_json:
        print_json(
            {
                "model": training.model,
                "params": training.params,
                "epochs": training.epochs,
                "baselines": training.baselines,
            }
        )
        return
    console.print(f"model: {training.model}")
    console.print(
        f"Next: the same command with --epochs trains on; posetune evaluate {training.model} "
        f"--store {training.store} --split val --out DIR; posetune sweep {file} --name NAME",
        soft_wrap=True,
    )


def _ignore(training: Training) -> None:
    pass


def _say_baselines(training: Training) -> None:
    for baseline, value in training.baselines.items():
        console.print(f"baseline {baseline}: {training.objective} {format_measure(value)}")


def _say_epoch(training: Training) -> None:
    newest = training.epochs[-1]
    console.print(
        f"epoch {newest['epoch']}/{training.max_epochs}: {training.objective} "
        f"{format_measure(newest[training.objective])} ({newest['seconds']:.1f} s)"
    )
