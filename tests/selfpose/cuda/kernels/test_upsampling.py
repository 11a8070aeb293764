"""The kernels beside torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "tile"),
    [
        ((2, 3, 3, 3), 1024),
        ((1, 70, 3, 3), 1024),
        ((1, 2, 1, 1), 1024),
        ((1, 1, 3, 11), 8),
        ((1, 70, 2, 5), 256),
    ],
)
def test_doubled_maps_and_their_gradient_equal_torchs(
    size: tuple[int, ...], tile: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tiles of the usual size, and in small ones that cut each row, the last part not full."""
    from selfpose.cuda.kernels import upsampling

    monkeypatch.setattr(upsampling, "_TILE", tile)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, generator=generator).to(device).requires_grad_()
    ours = upsampling.double_side(x)
    twin = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    grad = torch.randn(twin.shape, generator=generator).to(device)

    torch.testing.assert_close(ours, twin)
    torch.testing.assert_close(
        torch.autograd.grad(ours, x, grad), torch.autograd.grad(twin, x, grad)
    )
