"""Networks in the fused form beside themselves as they are written."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from selfpose.networks import D, Omega, Phi
from selfpose.networks.layers import run_fused

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


def _sequence(network: nn.Module) -> nn.Sequential:
    found = network.networks[0] if isinstance(network, D) else network.layers
    assert isinstance(found, nn.Sequential)
    return found


def _same(ours: Tensor | None, theirs: Tensor | None) -> None:
    assert ours is not None
    assert theirs is not None
    largest = max(1.0, float(theirs.detach().abs().max()))
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-3, atol=1e-4 * largest)
