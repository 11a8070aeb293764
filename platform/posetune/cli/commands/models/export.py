"""`posetune export`: a model as one program."""

from __future__ import annotations

from pathlib import Path
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
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.spec.registration import DEFAULT_TRAINABLE
from posetune.workflow.models import open_model

__all__ = ["export"]

HOW_TO_RUN = {
    ".pt2": 'torch.export.load("{file}").module()(images)',
    ".onnx": 'onnxruntime.InferenceSession("{file}").run(["poses"], {{"images": images}})',
}
"""The line of Python that runs what was written, by the file's ending."""


def export(
    model: ModelArgument,
    to: Annotated[Path, typer.Option("--to", help="The file to write, NAME.pt2 or NAME.onnx.")],
    store: MovedStoreOption = None,
    home: HomeOption = None,
    trainable: TrainableOption = DEFAULT_TRAINABLE,
    as_json: JsonOption = False,
) -> None:
    """Write a model as one torch.export program or as ONNX, checked to give the model's own poses.

    NAME.pt2 runs with torch alone, NAME.onnx with any runtime for ONNX.

      posetune export models:/selfpose@candidate --to pose.pt2

      posetune export models:/selfpose@candidate --to pose.onnx
    """
    if to.suffix not in HOW_TO_RUN or to.is_dir() or not to.absolute().parent.is_dir():
        raise BadInputError(
            f"--to {to}: must be a file NAME.pt2 or NAME.onnx in a folder that is there"
        )
    with open_model(model, Home.resolve(home), trainable, store=store, is_moved=True) as found:
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
    console.print(f"Next: {HOW_TO_RUN[to.suffix].format(file=to)}", soft_wrap=True)
