"""The kernels beside torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional


@pytest.mark.parametrize("size", [(2, 3, 5, 5), (1, 70, 4, 4), (1, 2, 1, 1), (1, 1, 40, 40)])
def test_doubled_maps_and_their_gradient_equal_torchs(size: tuple[int, ...], device: str) -> None:
    from selfpose.cuda.kernels.upsampling import double_side

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, generator=generator).to(device).requires_grad_()
    ours = double_side(x)
    twin = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    grad = torch.randn(twin.shape, generator=generator).to(device)

    torch.testing.assert_close(ours, twin)
    torch.testing.assert_close(
        torch.autograd.grad(ours, x, grad), torch.autograd.grad(twin, x, grad)
    )
