"""The kernels beside torch's own convolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "stride", "padding", "side"),
    [(1, 8, 7, 1, 3, 12), (3, 20, 7, 1, 3, 9), (1, 70, 4, 2, 1, 12), (2, 16, 3, 2, 1, 7)],
)
def test_from_a_thin_image_values_and_gradients_equal_torchs(
    channels: int, outputs: int, kernel: int, stride: int, padding: int, side: int, device: str
) -> None:
    from selfpose.cuda.kernels.convolution import convolve_from_thin

    image, weight, bias = some(
        device, (2, channels, side, side), (outputs, channels, kernel), outputs
    )
    ours = convolve_from_thin(image, weight, bias, stride=stride, padding=padding)
    exact = [t.detach().double().requires_grad_() for t in (image, weight, bias)]
    twin = functional.conv2d(*exact, stride=stride, padding=padding)

    assert ours.is_contiguous(memory_format=torch.channels_last)
    same_with_gradients(ours, twin, (image, weight, bias), exact)


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "padding", "side"),
    [(8, 1, 3, 1, 12), (70, 1, 4, 1, 7), (5, 2, 3, 0, 6)],
)
def test_to_a_thin_image_values_and_gradients_equal_torchs(
    channels: int, outputs: int, kernel: int, padding: int, side: int, device: str
) -> None:
    from selfpose.cuda.kernels.convolution import convolve_to_thin

    maps, weight, _ = some(device, (2, channels, side, side), (outputs, channels, kernel), 1)
    ours = convolve_to_thin(maps, weight, padding=padding)
    exact = [t.detach().double().requires_grad_() for t in (maps, weight)]
    twin = functional.conv2d(*exact, padding=padding)

    same_with_gradients(ours, twin, (maps, weight), exact)


def test_in_half_precision_values_and_gradients_are_torchs_to_its_rounding(device: str) -> None:
    """bf16 on a GPU; the interpreter multiplies no bf16 matrices, but float16 ones."""
    from selfpose.cuda.kernels.convolution import convolve_from_thin, convolve_to_thin

    image, weight, bias = some(device, (2, 1, 8, 8), (16, 1, 3), 16)
    dtype = torch.bfloat16 if device == "cuda" else torch.float16
    half = [t.detach().to(dtype).requires_grad_() for t in (image, weight)]
    maps = convolve_from_thin(half[0], half[1], bias, stride=1, padding=1)
    ours = convolve_to_thin(maps, half[1].transpose(0, 1), padding=1)
    exact = [t.detach().double().requires_grad_() for t in half]
    wide = functional.conv2d(exact[0], exact[1], bias.detach().double(), padding=1)
    twin = functional.conv2d(wide, exact[1].transpose(0, 1), padding=1)

    assert ours.dtype == dtype
    close_to_largest(ours, twin)
    grads = torch.autograd.grad(ours.float().sum(), half)
    for one, other in zip(grads, torch.autograd.grad(twin.sum(), exact), strict=True):
        close_to_largest(one, other)


def close_to_largest(ours: Tensor, twin: Tensor) -> None:
    largest = float(twin.detach().abs().max())
    torch.testing.assert_close(ours.double(), twin, rtol=0, atol=0.02 * largest)


@pytest.mark.parametrize("wanted", ["image", "weight"])
def test_no_gradient_is_computed_that_a_pass_does_not_go_on_to(
    wanted: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfpose.cuda.kernels import convolution

    image, weight, _ = some(device, (1, 1, 6, 6), (8, 1, 3), 1)
    ours = convolution.convolve_from_thin(image * 1, weight * 1, None, stride=1, padding=1)
    unwanted = {"image": "_meet", "weight": "_gather"}[wanted]
    monkeypatch.setattr(convolution, unwanted, None)  # cannot be called
    (grad,) = torch.autograd.grad(ours.sum(), image if wanted == "image" else weight)

    assert grad.abs().sum() > 0


def some(device: str, maps: tuple[int, ...], kernel: tuple[int, ...], biases: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (maps, (*kernel, kernel[-1]), (biases,))
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    return [t.to(device).requires_grad_() for t in drawn]


def same_with_gradients(
    ours: Tensor, twin: Tensor, given: tuple[Tensor, ...], exact: list[Tensor]
) -> None:
    torch.testing.assert_close(ours.double(), twin, rtol=1e-4, atol=1e-4)
    grad = torch.randn(twin.shape, generator=torch.Generator().manual_seed(1)).to(ours.device)
    for one, other in zip(
        torch.autograd.grad(ours, given, grad),
        torch.autograd.grad(twin, exact, grad.double()),
        strict=True,
    ):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3)
