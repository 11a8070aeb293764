"""Refuses a trainable's own calls of MLflow, by the name of the function.

Without this, `mlflow.log_metric` in a trainable writes a database into the working directory, or a
run that no sweep knows of. A trial has a run already: what `epoch` returns lands there, through the
study, once and in order, also when MLflow is away. A call is refused where MLflow opens its store,
which every call does and no import, so that a trainable may import packages that import MLflow.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from posetune.api import TrialFailedError
from posetune.trial.worker.imports import after_import, forget_import

__all__ = ["mlflow_refused"]

_MODULE = "mlflow.tracking._tracking_service.utils"
"""The module that holds `_tracking_store_registry`, whose `get_store` opens every store."""


@contextmanager
def mlflow_refused() -> Iterator[None]:
    """Refuse calls of MLflow within a block, or within a function that it decorates.

    Raises:
        TrialFailedError: a call was made in the block.
    """
    refused: list[Any] = []

    def refuse() -> None:
        registry = sys.modules[_MODULE]._tracking_store_registry
        if "get_store" not in vars(registry):  # a block around this one may have done it
            registry.get_store = _refuse
            refused.append(registry)

    key = f"refuse {id(refused)}"
    after_import(_MODULE, key, refuse)
    try:
        yield
    finally:
        forget_import(_MODULE, key)
        for registry in refused:
            del registry.get_store


def _refuse(*_args: Any, **_named: Any) -> NoReturn:
    """Raise an error that names the function of MLflow that was called."""
    frame: FrameType | None = sys._getframe(1)
    called = ""
    while frame is not None and frame.f_globals.get("__name__", "").startswith("mlflow"):
        called = frame.f_code.co_qualname  # at last that of the function that was called first
        frame = frame.f_back
    raise TrialFailedError(
        f"the trainable calls MLflow itself (mlflow.{called}). The platform logs the trial's run: "
        "return numbers from `epoch`, which may report further metrics, and write pictures in "
        "`draw`"
    )
