"""A recombined pose has whole limbs of other poses, on its own trunk."""

from __future__ import annotations

import pytest
import torch

from selfpose.method.skeleton import LAYOUTS
from selfpose.training.bodies.recombination import recombine
from selfpose.training.bodies.shapes import BODY_SHAPES


@pytest.mark.parametrize("name", LAYOUTS)
def test_limbs_come_whole_from_one_pose_and_hang_where_they_hung(name: str) -> None:
    layout, shape = LAYOUTS[name], BODY_SHAPES[name]
    generator = torch.Generator().manual_seed(0)
    poses = torch.rand((40, len(layout.joints), 2), generator=generator)

    mixed = recombine(poses, layout=layout, shape=shape, generator=generator)

    moved = {layout.joints.index(end) for _, ends in shape.mixed for end in ends}
    still = [j for j in range(len(layout.joints)) if j not in moved]
    assert torch.equal(mixed[:, still], poses[:, still])
    for stems, ends in shape.mixed:
        for stem in stems:
            side = stem.partition("_")[0] if len(stems) > 1 else ""
            ends_e = [layout.joints.index(end) for end in ends if end.startswith(side)]
            at = layout.joints.index(stem)
            offsets = mixed[:, ends_e] - mixed[:, at, None]
            given = poses[:, ends_e] - poses[:, at, None]
            far = (offsets[:, None] - given[None]).flatten(2).norm(dim=-1)
            nearest = far.argmin(dim=1)
            assert far.amin(dim=1).max() < 1e-5
            taken = (nearest != torch.arange(40)).float().mean()
            assert 0.1 < taken < 0.7
