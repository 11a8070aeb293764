"""Detects a training that is lost: diverged, collapsed to one pose, or with a useless D.

Each check raises `TrialFailedError` with the reason, so that the trial ends as FAILED within the
epoch and the sweep goes on.
Shape letters: N validation frames, J joints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from posetune.api import TrialFailedError

__all__ = ["check_discriminator", "check_finite", "check_spread"]

_DEAD_DISCRIMINATOR_LOSS = 0.01
"""Loss of D (LSGAN) below which D teaches nothing: it is .25 where D guesses, and here D's answers
are off by .1. No trial that came so low recovered, and none that learned fell below .2."""
_SMALLEST_SHARE = 0.02
"""Spread over frames, as a share of the spread there should be, below which all frames agree."""


def check_finite(values: Mapping[str, float], epoch: int) -> None:
    """Make sure that every value is a number.

    Args:
        values: what the epoch reports, by name.
        epoch: its number, for the message.

    Raises:
        TrialFailedError: one is not; names the first.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrialFailedError(
                f"diverged in epoch {epoch}: {name} is {value}, not a finite number; lower "
                "learning_rate"
            )


def check_discriminator(loss: float, epoch: int) -> None:
    """Make sure that D still has something to learn.

    Args:
        loss: D's own, the mean over an epoch.
        epoch: its number, for the message.

    Raises:
        TrialFailedError: it has not.
    """
    if not loss >= _DEAD_DISCRIMINATOR_LOSS:  # so that NaN does not pass
        raise TrialFailedError(
            f"collapsed in epoch {epoch}: the discriminator's loss is {loss:.1e}, it tells every "
            "skeleton apart and teaches nothing; lower discriminator.learning_rate_ratio or raise "
            "discriminator.noise"
        )


def check_spread(
    joints_nj2: NDArray[Any], poses_nj3: NDArray[Any], *, usual_2d: float, epoch: int
) -> None:
    """Make sure that different frames get different poses.

    Args:
        joints_nj2: predicted 2D poses, crop coordinates.
        poses_nj3: predicted 3D poses, mean limb length 1.
        usual_2d: standard deviation of the prior's 2D joints, mean over joints and axes.
        epoch: its number, for the message.

    Raises:
        TrialFailedError: all frames get the same 2D or 3D pose.
    """
    share = float(joints_nj2.std(axis=0).mean()) / usual_2d
    if not share >= _SMALLEST_SHARE:  # so that NaN does not pass
        raise TrialFailedError(
            f"collapsed in epoch {epoch}: the model gives every validation frame the same 2D pose "
            f"(the spread over frames is {share:.1%} of the prior's)"
        )
    spread = float(poses_nj3.std(axis=0).mean())
    if not spread >= _SMALLEST_SHARE:
        raise TrialFailedError(
            f"collapsed in epoch {epoch}: the model gives every validation frame the same 3D pose "
            f"(the spread over frames is {spread:.1e} of a limb's length)"
        )
