"""Lets MLflow load a promoted model from its source, without a pickle.

`registry` saves this file beside the exported weights, with the source of the packages that it
needs. No module imports it: MLflow runs it wherever the model is loaded, which is why it ends in a
statement.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from posetune.spec.registration import import_trainable


class RegisteredPoseModel(PythonModel):
    """Predicts poses for images with the exported weights."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the exported weights with the trainable that wrote them."""
        trainable = import_trainable(context.model_config["trainable"])
        self.predictor = trainable.load_model(Path(context.artifacts["model"]))

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
