"""`posetune predict` and `export`: a model on any pictures, and as one program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.options import HomeOption, JsonOption
from posetune.cli.screen import console, interruptible, print_json, progress_bar
from posetune.spec.registration import DEFAULT_TRAINABLE

__all__ = ["export", "predict"]

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="models:/NAME@ALIAS, models:/NAME/NUMBER, SWEEP/TRIAL, or the folder of an exported "
        "model."
    ),
]
TrainableOption = Annotated[
    str, typer.Option("--trainable", help="Whose model a folder or version holds.")
]


def predict(
    model: ModelArgument,
    images: Annotated[list[Path], typer.Argument(help="Pictures, and folders of pictures.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for poses and drawings.")],
    crop: Annotated[
        str,
        typer.Option(
            help="Which square to look at: center, pad (all of the picture) or X,Y,SIDE in pixels."
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
    from posetune.cli.models import open_model
    from posetune.home import Home
    from posetune.report.prediction import PictureCrop, find_pictures, predict_pictures

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


def export(
    model: ModelArgument,
    to: Annotated[Path, typer.Option("--to", help="The file to write, NAME.pt2.")],
    home: HomeOption = None,
    trainable: TrainableOption = DEFAULT_TRAINABLE,
    as_json: JsonOption = False,
) -> None:
    """Write a model as one torch.export program, checked to give the model's own poses.

    It runs with torch alone: torch.export.load("pose.pt2").module()(images).

      posetune export models:/selfpose@candidate --to pose.pt2
    """
    from posetune.cli.models import open_model
    from posetune.home import Home

    if to.suffix != ".pt2" or to.is_dir() or not to.absolute().parent.is_dir():
        raise BadInputError(f"--to {to}: must be a file NAME.pt2 in a folder that is there")
    with open_model(model, Home.resolve(home), trainable) as found:
        difference = found.trainable.export_graph(found.folder, to)
        side = found.trainable.load_model(found.folder).image_size
    if as_json:
        print_json({"model": found.name, "file": str(to), "largest_difference": difference})
        return
    console.print(
        f"{to}: uint8 images (N, {side}, {side}, 3) to poses; read back, its poses differ from the "
        f"model's by at most {difference:.1e} of a mean limb",
        soft_wrap=True,
    )
    console.print(f'Next: torch.export.load("{to}").module()(images)', soft_wrap=True)
