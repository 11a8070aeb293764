"""The model as one program that runs without our code: images in, 3D poses out.

Frames and units: as in `inference`.
Shape letters: N poses, J joints, S image side in pixels.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from posetune.api import BadInputError
from selfpose.data.images import images_to_input
from selfpose.inference import ImagePoseModel, PoseModel, PosePredictor, load_model, unit_bones
from selfpose.whole_files import writing_whole

__all__ = ["Portable", "export_graph"]

LARGEST_DIFFERENCE = 1e-4
"""Of a mean limb's length. The same operations in another order differ by 1e-6."""
_CHECKED = (1, 3, 17)
"""Numbers of images that the program is compared on."""


class Portable(nn.Module):
    """An exported model whose input and output are plain tensors."""

    def __init__(self, model: PoseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_nss3: Tensor) -> Tensor:
        """Return poses (N, J, 3), camera axes, mean limb length 1, of uint8 images (N, S, S, 3)."""
        _, joints_nj2 = self.model.read(images_to_input(images_nss3))
        return unit_bones(self.model.lift(joints_nj2), self.model.layout)


def export_graph(exported: Path, out: Path) -> float:
    """Write an exported model as a `torch.export` program that takes any number of images.

    What was written is read back and compared with the model before it is moved into place.

    Args:
        exported: the folder of the exported model.
        out: the file to write.

    Returns:
        The largest difference of a coordinate to the model's own, in mean limb lengths.

    Raises:
        BadInputError: no such model, one that takes no images, or the file cannot be written.
    """
    predictor = load_model(exported)
    if not isinstance(predictor.model, ImagePoseModel):
        raise BadInputError(f"{exported}: was trained in lifting mode and takes no images")
    side = predictor.image_size
    example_nss3 = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    count = torch.export.Dim("images", min=1)
    program = torch.export.export(
        Portable(predictor.model), (example_nss3,), dynamic_shapes={"images_nss3": {0: count}}
    )
    try:
        with writing_whole(out) as partial:
            # As an open file: torch refuses a path that does not end in .pt2.
            with partial.open("wb") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, of weights that share memory on a GPU
                torch.export.save(program, file)
            difference = _difference(partial, predictor)
            if not difference <= LARGEST_DIFFERENCE:
                raise RuntimeError(
                    f"the written program differs from the model by {difference:.1e} of a limb; "
                    "nothing was kept"
                )
    except OSError as error:
        raise BadInputError(f"{out}: cannot be written ({error.strerror})") from error
    return difference


def _difference(file: Path, predictor: PosePredictor) -> float:
    """Return the largest difference between a written program and the model, on random images."""
    with file.open("rb") as opened:
        program = torch.export.load(opened).module()
    generator = np.random.default_rng(0)
    side, largest = predictor.image_size, 0.0
    for count in _CHECKED:
        images_nss3 = generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        found_nj3 = program(torch.from_numpy(images_nss3)).detach().numpy()
        largest = max(largest, float(np.abs(found_nj3 - predictor(images_nss3)).max()))
    return largest
