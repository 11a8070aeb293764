"""The model as one program that runs without our code: images in, 3D poses out.

Frames and units: as in `inference`.
Shape letters: N poses, J joints, S image side in pixels.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram

from posetune.api import BadInputError
from selfpose.data.pictures.images import images_to_input
from selfpose.inference import ImagePoseModel, PoseModel, PosePredictor, load_model, unit_bones
from selfpose.whole_files import writing_whole

__all__ = ["Portable", "export_graph"]

LARGEST_DIFFERENCE = 1e-4
"""Largest difference, in mean limb lengths, that is accepted: 0.025 mm for a person whose mean limb
has 250 mm. The same operations in another order differ by 1e-6."""
_CHECKED = (1, 7, 64)
"""Numbers of images on which the program is compared with the model."""

Run: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Gives the poses (N, J, 3) of images (N, S, S, 3), as a program that was read back from a file."""


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
    """Write an exported model as a program that takes any number of images.

    What was written is read back and compared with the model before it is moved into place.

    Args:
        exported: the folder of the exported model.
        out: the file to write: `NAME.onnx` for ONNX, any other for a `torch.export` program.

    Returns:
        The largest difference of a coordinate to the model's own, in mean limb lengths.

    Raises:
        BadInputError: no such model, one that takes no images, the file cannot be written, or the
            packages for ONNX are not installed.
    """
    write, read = _write_torch, _read_torch
    if out.suffix == ".onnx":
        _require_onnx(out)
        write, read = _write_onnx, _read_onnx
    predictor = load_model(exported)
    if not isinstance(predictor.model, ImagePoseModel):
        raise BadInputError(
            f"{exported}: the model was trained in lifting mode and takes no images, so it cannot "
            "be exported as a program; export one of mode: complete"
        )
    side = predictor.image_size
    example_nss3 = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    count = torch.export.Dim("images", min=1)
    program = torch.export.export(
        Portable(predictor.model), (example_nss3,), dynamic_shapes={"images_nss3": {0: count}}
    )
    try:
        with writing_whole(out) as partial:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, of weights that share memory on a GPU
                write(program, partial)
            difference = _difference(read(partial), predictor)
            if not difference <= LARGEST_DIFFERENCE:
                raise RuntimeError(
                    f"{out}: the written program differs from the model by {difference:.1e} of a "
                    f"limb's length (at most {LARGEST_DIFFERENCE:.0e} is allowed); it was deleted"
                )
    except OSError as error:
        raise BadInputError(f"{out}: cannot be written ({error.strerror})") from error
    return difference


def _write_torch(program: ExportedProgram, file: Path) -> None:
    with file.open("wb") as opened:  # torch refuses a path that does not end in .pt2
        torch.export.save(program, opened)


def _read_torch(file: Path) -> Run:
    with file.open("rb") as opened:
        module = torch.export.load(opened).module()

    def run(images_nss3: NDArray[np.uint8]) -> NDArray[np.float32]:
        poses_nj3: NDArray[np.float32] = module(torch.from_numpy(images_nss3)).detach().numpy()
        return poses_nj3

    return run


def _require_onnx(out: Path) -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise BadInputError(
            f"{out}: writing ONNX needs the package {error.name}; install posetune[onnx], or "
            "onnx, onnxscript and onnxruntime"
        ) from None


def _write_onnx(program: ExportedProgram, file: Path) -> None:
    with _without_warnings("torch.onnx"):
        written = torch.onnx.export(
            program, input_names=["images"], output_names=["poses"], dynamo=True, verbose=False
        )
    if written is None:
        raise RuntimeError("torch.onnx.export returned no program to write")
    written.save(file, external_data=False)


@contextmanager
def _without_warnings(name: str) -> Iterator[None]:
    """Let a logger say errors alone; torch warns of packages that the model does not use."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _read_onnx(file: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(images_nss3: NDArray[np.uint8]) -> NDArray[np.float32]:
        (poses_nj3,) = session.run(["poses"], {"images": images_nss3})
        return np.asarray(poses_nj3, np.float32)

    return run


def _difference(run: Run, predictor: PosePredictor) -> float:
    """Return the largest difference between a written program and the model, on random images."""
    generator = np.random.default_rng(0)
    side, largest = predictor.image_size, 0.0
    for count in _CHECKED:
        images_nss3 = generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        difference = np.abs(run(images_nss3) - predictor(images_nss3)).max()
        largest = max(largest, float(difference))
    return largest
