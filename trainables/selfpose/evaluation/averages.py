"""Averages per-frame errors with their 95 % intervals: per activity, macro and over frames.

Shape letters:
    N frames, K draws of motions
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posetune.api import MotionBootstrap, interval
from selfpose.method.metrics import ActivityGroups, group_activities

__all__ = ["Average", "Averager", "Averages"]


@dataclass(frozen=True)
class Average:
    """Holds a mean and the ends of its 95 % interval, in the unit of the averaged values."""

    mean: float
    """The mean."""
    low: float
    """Low end of the interval; NaN if there is only one motion."""
    high: float
    """High end of the interval; NaN if there is only one motion."""


@dataclass(frozen=True)
class Averages:
    """Holds the averages of one column of per-frame values."""

    macro: Average
    """Mean over activities of the activities' means, as the objective is; activities with few
    frames count as one."""
    frame: Average
    """Plain mean over frames."""
    activities: Mapping[int, Average]
    """Mean over the frames of each activity that occurs, by the activity's index."""


class Averager:
    """Averages columns over the same frames; motions are drawn once, so that all are paired."""

    groups: ActivityGroups
    """Activities of the frames, grouped for the macro average."""
    counts: Mapping[int, tuple[int, int]]
    """Number of frames and number of motions of each activity that occurs, by its index."""

    def __init__(self, activity_n: NDArray[Any], motion_n: NDArray[Any]) -> None:
        """Group the frames and draw the motions.

        Args:
            activity_n: index of each frame's activity, (N,), integers.
            motion_n: label of each frame's motion, (N,), integers.

        Raises:
            ValueError: there is no frame.
        """
        self.groups = group_activities(activity_n, motion_n)
        present, self._activity_n = np.unique(activity_n, return_inverse=True)
        counts = {}
        for activity in present:
            motions = motion_n[activity_n == activity]
            counts[int(activity)] = (len(motions), len(np.unique(motions)))
        self.counts = counts
        self._bootstrap = MotionBootstrap(motion_n)
        self.motions = self._bootstrap.motions

    def average(self, value_n: NDArray[Any]) -> Averages:
        """Return the averages of a column.

        Args:
            value_n: one number per frame, (N,), in any unit.
        """
        drawn_kg = self._bootstrap.means(value_n, self._activity_n)
        activities = {
            activity: self._with_interval(
                float(value_n[self._activity_n == i].mean()), drawn_kg[:, i], motions
            )
            for i, (activity, (_, motions)) in enumerate(self.counts.items())
        }
        macro_k = self._bootstrap.macro(value_n, self.groups.group_n)
        return Averages(
            macro=self._with_interval(self.groups.macro_average(value_n), macro_k, self.motions),
            frame=self.over_frames(value_n),
            activities=activities,
        )

    def over_frames(self, value_n: NDArray[Any]) -> Average:
        """Return the plain mean of a column, (N,), over all frames."""
        drawn_k = self._bootstrap.means(value_n)[:, 0]
        return self._with_interval(float(value_n.mean()), drawn_k, self.motions)

    @staticmethod
    def _with_interval(mean: float, drawn_k: NDArray[Any], motions: int) -> Average:
        return Average(mean, *interval(drawn_k, motions))
