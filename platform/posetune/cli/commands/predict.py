"""`posetune predict`: the poses of any pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posetune.cli.options import HomeOption, JsonOption, ModelArgument, TrainableOption
from posetune.cli.screen import console, interruptible, print_json, progress_bar
from posetune.home import Home
from posetune.report.prediction import PictureCrop, find_pictures, predict_pictures
from posetune.spec.registration import DEFAULT_TRAINABLE
from posetune.workflow.models import open_model

__all__ = ["predict"]


def predict(
    model: ModelArgument,
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write poses and drawings to.")],
    crop: Annotated[
        str,
        typer.Option(
            help="Square of the picture to look at: center, pad (all of it) or X,Y,SIDE in pixels."
        ),
    ] = "center",
    draw: Annotated[bool, typer.Option(help="Draw each pose from several sides.")] = True,
    home: HomeOption = None,
    trainable: TrainableOption = DEFAULT_TRAINABLE,
    as_json: JsonOption = False,
) -> None:
    """Estimate the pose of the person in each picture: JSON, npz and a drawing.

    The person should fill the square, as in the data that the model was trained on. Files that are
    no picture are skipped and counted.

      posetune predict models:/selfpose@candidate photos/ me.jpg --out poses
    """
    square = PictureCrop.parse(crop)
    files = find_pictures(images)
    with open_model(model, Home.resolve(home), trainable) as found:
        predictor = found.trainable.load_model(found.folder)
        with interruptible(), progress_bar("predict", quiet=as_json) as progress:
            done = predict_pictures(
                files, predictor, out, crop=square, draw=draw, progress=progress
            )
    if as_json:
        print_json(
            {
                "model": found.name,
                "out": str(out),
                "poses": len(done.poses),
                "skipped": done.skipped,
            }
        )
        return
    for entry in done.skipped[:5]:
        console.print(f"skipped {entry['file']}: {entry['reason']}")
    drawings = ", a drawing each" if draw else ""
    console.print(
        f"{len(done.poses)} poses, {len(done.skipped)} files skipped: {out}/poses.json, "
        f"{out}/poses.npz{drawings}",
        soft_wrap=True,
    )
