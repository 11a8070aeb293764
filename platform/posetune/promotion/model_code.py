"""Lets MLflow load a promoted model from its source, without a pickle.

`registry` saves this file beside the exported weights, with the source of the packages that it
needs and the digests of both in `MLmodel`. Weights or source that differ are refused before any of
them is used. No module imports this file: MLflow runs it wherever the model is loaded, which is why
it ends in a statement, and it imports nothing of ours before it has looked at the source.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import Model, set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray


class DamagedModelError(RuntimeError):
    """The files of a registered model are not those that were registered."""


def digest_folder(folder: Path) -> str:
    """Return what `posetune.storage.digest.digest_folder` returns, which is not trusted yet."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def check_files(folder: Path) -> None:
    """Refuse a model whose weights or source are not those that were registered.

    Args:
        folder: the model's folder, with MLmodel in it.

    Raises:
        DamagedModelError: a digest differs from the one in MLmodel.
    """
    registered = Model.load(str(folder)).metadata or {}
    for part, key in (
        ("artifacts/model", "posetune.model_digest"),
        ("code", "posetune.code_digest"),
    ):
        found, wanted = digest_folder(folder / part), registered.get(key)
        if found != wanted:
            raise DamagedModelError(
                f"{folder / part}: digest {found[:12]}, registered was {str(wanted)[:12]}: files "
                "were changed, added or removed; restore them from a backup"
            )


def _remove_bytecode(folder: Path) -> None:
    """Remove the bytecode of this file, which Python wrote before it ran the file."""
    with contextlib.suppress(OSError):  # somebody else did, or nobody may
        cache = folder / "__pycache__"
        for file in cache.glob(f"{Path(__file__).stem}.*.pyc"):
            file.unlink(missing_ok=True)
        cache.rmdir()


class RegisteredPoseModel(PythonModel):
    """Predicts poses for images with the exported weights."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the exported weights with the trainable that wrote them."""
        weights = Path(context.artifacts["model"])
        check_files(weights.parents[1])
        # The source may be imported from where it is registered. Bytecode that Python leaves there
        # is a file that was not registered: the next load, or promotion, would refuse it.
        sys.dont_write_bytecode = True
        _remove_bytecode(weights.parents[1])
        from posetune.spec.registration import import_trainable

        trainable = import_trainable(context.model_config["trainable"])
        self.predictor = trainable.load_model(weights)

    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,  # the one form of this type that MLflow knows
        params: dict[str, Any] | None = None,
    ) -> NDArray[np.float32]:
        """Predict one pose for each image.

        Args:
            context: unused; MLflow hands it over.
            model_input: RGB pictures, uint8 (N, S, S, 3).
            params: unused; MLflow hands it over.

        Returns:
            Root-centred poses, (N, J, 3), in units of the mean bone length, in camera axes (see
            `posetune.api.Predictor`).
        """
        return np.asarray(self.predictor(np.asarray(model_input)), dtype=np.float32)


set_model(RegisteredPoseModel())
