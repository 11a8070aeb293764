"""What a training wrote is read back, as far as this device can."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from selfpose.training.checkpoint import TrainingState, load_state, save_state


def state_of(seed: int) -> TrainingState:
    network = nn.Linear(2, 2)
    with torch.no_grad():
        network.weight.fill_(float(seed))
    generators = {"noise": torch.Generator().manual_seed(seed)}
    return TrainingState({"network": network}, {}, generators)


def test_a_generator_goes_on_where_it_stood(tmp_path: Path) -> None:
    saved, read = state_of(1), state_of(2)
    torch.rand(3, generator=saved.generators["noise"])
    save_state(saved, {"steps": 7}, tmp_path)
    assert load_state(read, tmp_path) == {"steps": 7}
    drawn = [torch.rand(4, generator=state.generators["noise"]) for state in (saved, read)]
    assert torch.equal(*drawn)


def test_what_a_gpu_wrote_is_read_without_one_but_for_where_its_generator_stood(
    tmp_path: Path,
) -> None:
    """The state of CUDA's generator is its seed and its offset, of eight bytes each."""
    save_state(state_of(1), {}, tmp_path)
    file = tmp_path / "state.safetensors"
    of_gpu = torch.tensor([7, 40], dtype=torch.int64).view(torch.uint8)
    save_file({**load_file(file), "generators/noise": of_gpu}, file)
    read = state_of(2)
    load_state(read, tmp_path)
    assert torch.equal(read.networks["network"].weight, torch.ones(2, 2))
    assert read.generators["noise"].initial_seed() == 7
