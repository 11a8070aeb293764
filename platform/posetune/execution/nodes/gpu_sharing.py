"""Decides how much of a shared GPU a trial gets, from measured peaks of memory; without Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from posetune.accelerator import CUDA
from posetune.api import BadInputError
from posetune.execution.nodes.plan import measure
from posetune.execution.nodes.store_copy import store_on_node
from posetune.spec.loading import default_params
from posetune.spec.parameters import Choice, IntRange, Scalar
from posetune.spec.registration import load_trainable
from posetune.spec.sweep import SweepSpec
from posetune.storage import StorageError, open_folder
from posetune.storage.store_place import StorePlace
from posetune.study.state import SweepState
from posetune.trial.run import require_device

__all__ = ["MARGIN", "Need", "largest_params", "measure_need", "share_now", "share_of"]

MARGIN = 0.2
"""Share of its measured peak that a trial gets on top: later steps may fragment the memory."""

_GRAIN = 10_000
"""Number of parts of one in which Ray counts resources."""


@dataclass(frozen=True)
class Need:
    """How many bytes of a device a trial takes, and how many there are."""

    peak: int
    context: int
    """Bytes that the trial's process takes beside its tensors, for example CUDA's context."""
    total: int


def share_of(need: Need) -> float:
    """Return the part of a GPU for one trial, so that as many as fit fill it evenly.

    Raises:
        BadInputError: not even one fits.
    """
    if need.peak + need.context > need.total:
        raise BadInputError(
            f"resources.share: a step of the largest configuration takes {need.peak / 1e9:.3g} GB, "
            f"the GPU has {need.total / 1e9:.3g} GB; lower the batch size or the searched maxima"
        )
    together = max(1, int(need.total / ((1 + MARGIN) * need.peak + need.context)))
    return math.floor(_GRAIN / together) / _GRAIN


def share_now(state: SweepState) -> float:
    """Return the part of a GPU for the attempts that begin now; without sharing, how many GPUs.

    The part holds the highest peak that any trial has reached. The peak is in the study, so a
    driver that continues a sweep begins with what the driver before had learnt.
    """
    measured = state.shared
    if measured is None:
        return state.spec.resources.gpu
    need = Need(state.peak_bytes, measured.context_bytes, measured.total_bytes)
    if need.peak + need.context > need.total:
        return 1.0  # a trial did train with so much, so it has room on a GPU of its own
    return max(measured.gpu, share_of(need))


def largest_params(spec: SweepSpec, defaults: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return the configuration with every searched whole number at its largest.

    Real numbers are weights or rates and change no shape; of words there is no largest.
    """
    largest = dict(defaults)
    for name, parameter in spec.search.items():
        if isinstance(parameter, IntRange):
            largest[name] = parameter.corners[1]
        elif isinstance(parameter, Choice):
            numbers = [v for v in parameter.values if type(v) in (int, float)]
            largest[name] = max(numbers, default=defaults[name])
    return largest


def measure_need(spec: SweepSpec, store: StorePlace) -> Need | BadInputError:
    """Train a few steps of the largest configuration here, alone on a device.

    An error of the user's is returned, so that it reaches the driver as it is.
    """
    try:
        here = store_on_node(store, load_trainable(spec.trainable))
        return _measure(spec, open_folder(here))
    except BadInputError as error:
        return error
    except StorageError as error:
        return BadInputError(str(error))


def _measure(spec: SweepSpec, store: Path) -> Need:
    trainable = load_trainable(spec.trainable)
    device = getattr(trainable, "accelerator", CUDA)
    params = largest_params(spec, default_params(spec, trainable.config_model))
    name = require_device(spec.resources, device)
    device.reset()
    measure(spec, trainable, params, store=store, device=name)
    memory = device.memory()
    return Need(memory.peak, memory.beside, memory.total)
