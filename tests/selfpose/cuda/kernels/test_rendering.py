"""A renderer that draws by kernels, and what it leaves to torch."""

from __future__ import annotations

import pytest
import torch

from selfpose.cuda.rendering import draw_by_kernels, fuse_renderer
from selfpose.method.renderer import SkeletonRenderer, draw_skeletons
from selfpose.method.skeleton import H36M_17


@pytest.mark.parametrize("profile", ["distance", "squared"])
def test_a_fused_renderer_draws_what_it_drew_before(profile: str, device: str) -> None:
    joints = (0.5 * torch.randn(1, 17, 2, generator=torch.Generator().manual_seed(0))).to(device)
    renderer = SkeletonRenderer(H36M_17, 12, sigma=0.3, profile=profile, side_brightness=0.5)
    before = renderer(joints)
    fuse_renderer(renderer)
    after = renderer(joints)

    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
    assert not torch.equal(after, before), "by another sum: the kernels have drawn"


@pytest.mark.parametrize(("dtype", "limbs"), [(torch.float64, 2), (torch.float32, 33)])
def test_what_the_kernels_do_not_draw_is_drawn_by_torch(
    dtype: torch.dtype, limbs: int, device: str
) -> None:
    joints = torch.rand(1, limbs + 1, 2, dtype=dtype).to(device)
    given = [(i, i + 1) for i in range(limbs)]
    style = {"image_size": 8, "sigma": 0.3, "profile": "distance", "brightness": (1.0,) * limbs}

    assert torch.equal(
        draw_by_kernels(joints, given, **style), draw_skeletons(joints, given, **style)
    )
