"""`posetune benchmark`: how fast a model predicts here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.options import (
    HomeOption,
    JsonOption,
    ModelArgument,
    MovedStoreOption,
    TrainableOption,
)
from posetune.cli.screen import console, print_json, progress_bar
from posetune.home import Home
from posetune.provenance import describe_machine
from posetune.report.models.speed import measure_speed, speed_table
from posetune.spec.registration import DEFAULT_TRAINABLE
from posetune.workflow.models import open_model

__all__ = ["benchmark"]


def benchmark(
    model: ModelArgument,
    batch: Annotated[
        str, typer.Option(help="Numbers of images in a call, separated by commas.")
    ] = "1,8,64",
    seconds: Annotated[
        float, typer.Option(help="Least number of seconds for which each batch is measured.")
    ] = 2.0,
    store: MovedStoreOption = None,
    home: HomeOption = None,
    trainable: TrainableOption = DEFAULT_TRAINABLE,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast a model predicts on this machine: images per second and time of a call.

    The model runs as in `posetune predict`, on random images.

      posetune benchmark models:/selfpose@candidate --batch 1,64
    """
    try:
        batches = [int(part) for part in batch.split(",")]
    except ValueError:
        raise BadInputError(
            f"--batch {batch}: must be whole numbers separated by commas, such as 1,8,64"
        ) from None
    with open_model(model, Home.resolve(home), trainable, store=store, is_moved=True) as found:
        predictor = found.trainable.load_model(found.folder)
        with progress_bar("benchmark", quiet=as_json) as progress:
            speeds = measure_speed(predictor, batches, seconds=seconds, progress=progress)
    machine = describe_machine()
    if as_json:
        print_json(
            {
                "model": found.name,
                "image_size": predictor.image_size,
                "machine": machine,
                "batches": [asdict(speed) for speed in speeds],
            }
        )
        return
    side, cores = predictor.image_size, machine["usable_cores"]
    console.print(
        f"{found.name}, images of {side} px, on {machine['processor']} with {cores} cores",
        soft_wrap=True,
    )
    console.print(speed_table(speeds))
