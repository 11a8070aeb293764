"""`posetune predict`: the poses of any pictures and videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posetune.api import input_notes
from posetune.cli.options import (
    HomeOption,
    JsonOption,
    ModelArgument,
    MovedStoreOption,
    TrainableOption,
)
from posetune.cli.screen import console, interruptible, print_json, progress_bar
from posetune.home import Home
from posetune.report.models.frames import read_boxes
from posetune.report.models.prediction import PictureCrop, find_pictures, predict_pictures
from posetune.spec.registration import DEFAULT_TRAINABLE
from posetune.workflow.models import open_model

__all__ = ["predict"]


def predict(
    model: ModelArgument,
    images: Annotated[
        list[Path], typer.Argument(help="Pictures, videos, or folders of pictures and videos.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write poses and drawings to.")],
    crop: Annotated[
        str,
        typer.Option(
            help="Square of the picture to look at: center, pad (all of it) or X,Y,SIDE in pixels."
        ),
    ] = "center",
    boxes: Annotated[
        Path | None,
        typer.Option(
            "--boxes",
            help="CSV file with a row for each person: file,x,y,width,height in pixels, and frame "
            "for videos (from 0). It replaces --crop.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        int, typer.Option(help="Of a video, take the first frame and each so many later.", min=1)
    ] = 1,
    draw: Annotated[bool, typer.Option(help="Draw each pose from several sides.")] = True,
    store: MovedStoreOption = None,
    home: HomeOption = None,
    trainable: TrainableOption = DEFAULT_TRAINABLE,
    as_json: JsonOption = False,
) -> None:
    """Estimate the pose of the person in each picture: JSON, npz, a drawing and a page.

    The person should fill the square, as in the data that the model was trained on. Files that are
    no picture are skipped and counted. On the page viewer.html up to 200 poses turn.

      posetune predict models:/selfpose@candidate photos/ me.jpg --out poses

      posetune predict models:/selfpose@candidate walk.mp4 --boxes walk.csv --out poses --no-draw
    """
    square = PictureCrop.parse(crop)
    people = None if boxes is None else read_boxes(boxes)
    files = find_pictures(images)
    with open_model(model, Home.resolve(home), trainable, store=store, is_moved=True) as found:
        predictor = found.trainable.load_model(found.folder)
        notes = input_notes(predictor)
        for note in () if as_json else notes:
            console.print(f"note: {note}", soft_wrap=True)
        with interruptible(), progress_bar("predict", quiet=as_json) as progress:
            done = predict_pictures(
                files,
                predictor,
                out,
                crop=square,
                boxes=people,
                every=every,
                draw=draw,
                progress=progress,
            )
    if as_json:
        print_json(
            {
                "model": found.name,
                "out": str(out),
                "poses": len(done.poses),
                "skipped": done.skipped,
                "notes": notes,
            }
        )
        return
    for entry in done.skipped[:5]:
        console.print(f"skipped {entry['file']}: {entry['reason']}")
    drawings = ", a drawing each" if draw else ""
    console.print(
        f"{len(done.poses)} poses, {len(done.skipped)} files skipped: {out}/viewer.html, "
        f"{out}/poses.json, {out}/poses.npz{drawings}",
        soft_wrap=True,
    )
