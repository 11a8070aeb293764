"""Networks in the fused form beside themselves as they are written."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from selfpose.cuda.layers import fuse, run_fused
from selfpose.networks import D, Omega, Phi

NETWORKS = {
    "Phi": (lambda: Phi(4, image_size=8, narrowest=4), 3, 8),
    "Omega": (lambda: Omega(4, image_size=8, map_size=4), 1, 8),
    "D": (lambda: D(4, image_size=32), 1, 32),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("Phi", marks=pytest.mark.slow),
        "Omega",
        pytest.param("D", marks=pytest.mark.slow),
    ],
)
def test_networks_and_their_gradients_equal_the_written_layers(name: str, device: str) -> None:
    make, channels, side = NETWORKS[name]
    torch.manual_seed(0)
    network = make().to(device)
    for parameter in network.parameters():  # so that biases and gradients are not small
        nn.init.normal_(parameter, std=0.5 if parameter.ndim == 1 else 0.2)
    twin = copy.deepcopy(network).double()
    image = torch.randn(2, channels, side, side).to(device).requires_grad_()
    exact = image.detach().double().requires_grad_()
    layers, exact_layers = (_sequence(n) for n in (network, twin))
    y, exact_y = run_fused(layers, image), exact_layers(exact)
    grad = torch.randn(y.shape).to(device)
    y.backward(grad)
    exact_y.backward(grad.double())

    _same(y, exact_y)
    _same(image.grad, exact.grad)
    for (key, ours), theirs in zip(network.named_parameters(), twin.parameters(), strict=True):
        if ours.grad is None:  # a bias that is normalised away, but for rounding
            assert key.endswith("bias")
            assert theirs.grad is not None
            assert float(theirs.grad.abs().max()) < 1e-9
        else:
            _same(ours.grad, theirs.grad)
    for ours, theirs in zip(network.buffers(), twin.buffers(), strict=True):
        _same(ours, theirs)


def test_a_batch_normalisation_that_is_shared_or_not_in_training_runs_as_it_is_written(
    device: str,
) -> None:
    class Shared(nn.BatchNorm2d):
        """Another process has the other half of the batch: other values than alone."""

        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
            return 2 * super().forward(input)

    x = torch.randn(2, 8, 4, 4).to(device)
    for norm in (Shared(8).to(device), nn.BatchNorm2d(8).to(device).eval()):
        twin = copy.deepcopy(norm)
        torch.testing.assert_close(run_fused(nn.Sequential(norm, nn.ReLU()), x), twin(x).relu())
        torch.testing.assert_close(norm.running_mean, twin.running_mean)


@pytest.fixture
def autocast_anywhere() -> Iterator[None]:
    """Autocast for CUDA, to float32, also where there is none: `torch.autocast` would refuse."""
    dtype = torch.get_autocast_dtype("cuda")
    torch.set_autocast_dtype("cuda", torch.float32)
    torch.set_autocast_enabled("cuda", True)
    yield
    torch.set_autocast_enabled("cuda", False)
    torch.set_autocast_dtype("cuda", dtype)


def _judge(device: str) -> tuple[D, D, Tensor]:
    torch.manual_seed(0)
    network = D(4, image_size=32).to(device)
    fused = copy.deepcopy(network)
    fuse(fused)
    return network, fused, torch.randn(2, 1, 32, 32).to(device)


def test_a_fused_network_has_the_same_parameters_and_runs_as_written_without_autocast(
    device: str,
) -> None:
    network, fused, image = _judge(device)

    assert list(fused.state_dict()) == list(network.state_dict())
    assert all(torch.equal(*maps) for maps in zip(fused(image), network(image), strict=True))


@pytest.mark.usefixtures("autocast_anywhere")
def test_a_fused_network_runs_fused_under_autocast(device: str) -> None:
    network, fused, image = _judge(device)
    first = network.networks[0]
    assert isinstance(first, nn.Sequential)

    assert torch.equal(fused(image)[0], run_fused(first, image))


def _sequence(network: nn.Module) -> nn.Sequential:
    found = network.networks[0] if isinstance(network, D) else network.layers
    assert isinstance(found, nn.Sequential)
    return found


def _same(ours: Tensor | None, theirs: Tensor | None) -> None:
    assert ours is not None
    assert theirs is not None
    largest = max(1.0, float(theirs.detach().abs().max()))
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-3, atol=1e-4 * largest)
