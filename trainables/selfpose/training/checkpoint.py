"""A training's state on disk: tensors as safetensors, counters as JSON, nothing pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from posetune.api import BadInputError

__all__ = ["TrainingState", "load_state", "save_state"]

_TENSORS = "state.safetensors"
_COUNTERS = "state.json"


@dataclass(frozen=True)
class TrainingState:
    """Everything that a step changes, by name. `load_state` changes it in place."""

    networks: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]
    generators: Mapping[str, torch.Generator]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def save_state(state: TrainingState, counters: Mapping[str, Any], folder: Path) -> None:
    """Write a state into the existing, empty `folder`."""
    tensors: dict[str, Tensor] = {}
    for name, network in state.networks.items():
        tensors |= {f"networks/{name}/{key}": t for key, t in network.state_dict().items()}
    for name, optimiser in state.optimisers.items():
        for index, values in optimiser.state_dict()["state"].items():
            tensors |= {f"optimisers/{name}/{index}/{key}": t for key, t in values.items()}
    for name, generator in state.generators.items():
        tensors[f"generators/{name}"] = generator.get_state()
    tensors |= {f"tensors/{name}": tensor for name, tensor in state.tensors.items()}
    save_file({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, folder / _TENSORS)
    (folder / _COUNTERS).write_text(json.dumps(dict(counters)), encoding="utf-8")


def load_state(state: TrainingState, folder: Path) -> dict[str, Any]:
    """Put back what `save_state` wrote, and return the counters.

    Raises:
        BadInputError: the folder holds no state, or one of another configuration.
    """
    try:
        tensors = load_file(folder / _TENSORS)
        for name, network in state.networks.items():
            network.load_state_dict(_below(tensors, f"networks/{name}/"))
        for name, optimiser in state.optimisers.items():
            _load_optimiser(optimiser, _below(tensors, f"optimisers/{name}/"))
        for name, generator in state.generators.items():
            _load_generator(generator, tensors[f"generators/{name}"])
        for name, tensor in state.tensors.items():
            tensor.copy_(tensors[f"tensors/{name}"])
        counters: dict[str, Any] = json.loads((folder / _COUNTERS).read_text(encoding="utf-8"))
        return counters
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise BadInputError(
            f"{folder}: not a checkpoint of this configuration ({type(error).__name__}: {reason}); "
            "give the configuration that it was written with, or another checkpoint"
        ) from error


def _load_generator(generator: torch.Generator, state: Tensor) -> None:
    """Put a generator's state back; one of another kind of device is only seeded alike.

    The state of a GPU's generator begins with its seed and means nothing to a processor's. A model
    can so be exported where there is no GPU; a training would not go on bit for bit.
    """
    if len(state) == len(generator.get_state()):
        generator.set_state(state)
    else:
        generator.manual_seed(int.from_bytes(bytes(state[:8].tolist()), "little") % 2**63)


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    for parameter, values in optimiser.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:  # the fused step wants the parameter's own strides
                values[name] = torch.empty_like(parameter).copy_(value)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
