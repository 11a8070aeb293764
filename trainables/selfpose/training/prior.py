"""Reads the prior: 2D poses that are unpaired with the images.

Frame: crop coordinates. Shape letters: N poses, J joints.
"""

from __future__ import annotations

import torch
from torch import Tensor

from posetune.api import BadInputError
from selfpose.data.store import Store
from selfpose.method.geometry import mirror_poses

__all__ = ["prior_poses"]


def prior_poses(store: Store, *, mirrored: bool) -> Tensor:
    """Return the prior's 2D poses (N, J, 2), crop coordinates; then their mirror images if asked.

    Raises:
        BadInputError: there are too few to learn from.
    """
    poses = store.split("prior").joints_2d
    if len(poses) < 2:
        raise BadInputError(
            f"{store.root}: split prior has {len(poses)} poses and needs 2 or more; import "
            "more data"
        )
    poses_nj2 = torch.tensor(poses)
    if not mirrored:
        return poses_nj2
    return torch.cat((poses_nj2, mirror_poses(poses_nj2, store.layout.mirror)))
