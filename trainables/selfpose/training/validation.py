"""Reads the validation frames of a trial.

Frames and units: as in the store. Shape letters: N frames, S image side in pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError
from selfpose.config import SelfPoseConfig
from selfpose.data.pictures.images import reduce_images
from selfpose.data.store import Store
from selfpose.method.metrics import validation_subset

__all__ = ["ValidationFrames"]


class ValidationFrames:
    """Holds the truth of the frames, and their images unless true 2D poses are lifted."""

    def __init__(self, store: Store, config: SelfPoseConfig) -> None:
        """Read the frames that a configuration validates on.

        Raises:
            BadInputError: the store has too few.
        """
        val = store.split("val")
        if len(val) < 2:
            raise BadInputError(
                f"{store.root}: split val has {len(val)} frames and needs 2 or more; import "
                "more data"
            )
        rows = validation_subset(len(val), config.val_frames, config.stage_seed)
        self.joints_2d_nj2 = val.joints_2d[rows]
        self.joints_3d_nj3 = val.joints_3d[rows] if val.has_3d else None
        self.activity_n, self.motion_n = val.activity[rows], val.motion[rows]
        self.images_nss3: NDArray[np.uint8] | None = None
        if config.takes_images:
            self.images_nss3 = reduce_images(val.images(rows), config.image_size)
