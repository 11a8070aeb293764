"""The kernels beside torch's own normalisation and activation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

SIZES = [(3, 8, 16, 16), (2, 5, 7, 7), (2, 130, 3, 3), (1, 32, 40, 40)]
"""Even and odd, fewer and more channels than a block, fewer and more pixels than a tile."""
NEAR_ZERO = 1e-4
"""A hundred times what float32 rounds here."""


def some_maps(size: tuple[int, ...], device: str) -> tuple[Tensor, Tensor]:
    """Maps whose mean is far from zero, and a gradient."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(size, generator=generator) for _ in range(2))
    return (20 + 2 * x).to(device).requires_grad_(), grad.to(device)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_instances_and_their_gradient_equal_torchs(
    size: tuple[int, ...], slope: float, device: str
) -> None:
    from selfpose.cuda.kernels.normalisation import normalise_and_activate

    x, grad = some_maps(size, device)
    ours = normalise_and_activate(x, slope=slope, eps=1e-5)
    (our_grad,) = torch.autograd.grad(ours, x, grad)
    twin = functional.leaky_relu(functional.instance_norm(x.double(), eps=1e-5), slope)
    (twin_grad,) = torch.autograd.grad(twin, x, grad.double())

    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours.double(), twin, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(our_grad, twin_grad, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_batches_their_gradients_and_running_statistics_equal_torchs(
    size: tuple[int, ...], device: str
) -> None:
    from selfpose.cuda.kernels.normalisation import WholeBatch, normalise_and_activate

    x, grad = some_maps(size, device)
    ours, twin = (nn.BatchNorm2d(size[1]).to(device) for _ in range(2))
    for norm in (ours, twin):
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(-1, 2, size[1]))
            norm.bias.copy_(torch.linspace(0.5, -0.5, size[1]))
    assert ours.running_mean is not None
    assert ours.running_var is not None
    batch = WholeBatch(ours.weight, ours.bias, ours.running_mean, ours.running_var, 0.1)
    before = twin.double()(x.double())
    # So near zero, rounding decides whether a ReLU is on: such a pixel asks for nothing.
    grad = grad * (before.abs() > NEAR_ZERO)
    y = normalise_and_activate(x, slope=0.0, eps=ours.eps, batch=batch)
    our_grads = torch.autograd.grad(y, (x, ours.weight, ours.bias), grad)
    z = before.relu()
    twin_grads = torch.autograd.grad(z, (x, twin.weight, twin.bias), grad.double())

    torch.testing.assert_close(y.double(), z, rtol=1e-4, atol=1e-4)
    for one, other in zip(our_grads, twin_grads, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-3, atol=1e-3)
    for name, buffer in twin.named_buffers():
        if name != "num_batches_tracked":
            torch.testing.assert_close(ours.get_buffer(name).double(), buffer, rtol=1e-5, atol=1e-5)


def test_a_half_precision_is_only_rounded_at_the_end(device: str) -> None:
    from selfpose.cuda.kernels.normalisation import normalise_and_activate

    x, grad = (t.detach().bfloat16() for t in some_maps((2, 16, 8, 8), device))
    x.requires_grad_()
    ours = normalise_and_activate(x, slope=0.0, eps=1e-5)
    (our_grad,) = torch.autograd.grad(ours, x, grad)
    twin = functional.instance_norm(x.double(), eps=1e-5).relu()
    (twin_grad,) = torch.autograd.grad(twin, x, grad.double())

    torch.testing.assert_close(ours, twin.bfloat16(), rtol=2**-7, atol=1e-4)
    torch.testing.assert_close(our_grad, twin_grad.bfloat16(), rtol=2**-6, atol=2**-8)
