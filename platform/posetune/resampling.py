"""Estimates how far an average would move with other motions, by a bootstrap over motions.

The frames and cameras of one motion resemble each other, so a motion with all its frames and
cameras is one unit: whole motions are drawn with replacement, never frames.

Shape letters:
    N frames, M motions, G groups (activities), K draws
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

# numpy is imported where it is used: every command imports this module, few compute.

__all__ = ["DRAWS", "MotionBootstrap", "interval"]

DRAWS = 2000
"""Number of draws; with it the ends of a 95 % interval differ from seed to seed by about 3 % of the
interval's width."""
_LEVEL = 0.95
_LEAST_MOTIONS = 2


class MotionBootstrap:
    """Draws motions once, so that all averages that are taken from the draws are paired."""

    def __init__(self, motion_n: NDArray[Any], *, draws: int = DRAWS, seed: int = 0) -> None:
        """Draw the motions.

        Args:
            motion_n: label of the motion that each frame belongs to, (N,), of any type.
            draws: number of draws K; each one draws M of the M motions, with replacement.
            seed: seed of the random draws.
        """
        import numpy as np

        labels, self._motion_n = np.unique(motion_n, return_inverse=True)
        self.motions = len(labels)
        share = np.full(self.motions, 1 / max(self.motions, 1))
        generator = np.random.default_rng(seed)
        self._times_km = generator.multinomial(self.motions, share, size=draws).astype(np.float64)

    def means(self, value_n: NDArray[Any], group_n: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return each draw's mean over the frames of each group, (K, G); NaN where none is drawn.

        Args:
            value_n: one finite number per frame, (N,), in any unit.
            group_n: index of each frame's group, (N,), integers from 0; None puts all frames in
                one group.

        Returns:
            Means, (K, G), in the unit of `value_n`.
        """
        import numpy as np

        group_n = np.zeros(len(value_n), np.int64) if group_n is None else group_n
        groups = int(group_n.max()) + 1
        cell_n, shape = self._motion_n * groups + group_n, (self.motions, groups)
        frames_mg = np.bincount(cell_n, minlength=shape[0] * groups).reshape(shape)
        sums_mg = np.bincount(cell_n, weights=value_n, minlength=shape[0] * groups).reshape(shape)
        with np.errstate(invalid="ignore"):  # 0 / 0 where no motion of a group was drawn
            return np.asarray((self._times_km @ sums_mg) / (self._times_km @ frames_mg))

    def macro(self, value_n: NDArray[Any], group_n: NDArray[Any]) -> NDArray[Any]:
        """Return each draw's macro average: the mean of the means of the groups that were drawn.

        Args:
            value_n: one finite number per frame, (N,), in any unit.
            group_n: index of each frame's group, (N,), integers from 0.

        Returns:
            Macro averages, (K,), in the unit of `value_n`.
        """
        import numpy as np

        return np.asarray(np.nanmean(self.means(value_n, group_n), axis=1))


def interval(drawn_k: NDArray[Any], motions: int) -> tuple[float, float]:
    """Return the ends of the 95 % percentile interval of an average.

    Args:
        drawn_k: the average in each draw, (K,), in any unit; NaN where no motion that counts was
            drawn.
        motions: number of motions that count.

    Returns:
        Low and high end in the unit of `drawn_k`; both NaN if there are fewer than two motions or
        an average is infinite, because such draws say nothing about other motions.
    """
    import numpy as np

    known_k = drawn_k[~np.isnan(drawn_k)]
    if motions < _LEAST_MOTIONS or not len(known_k) or not np.isfinite(known_k).all():
        return float("nan"), float("nan")
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(known_k, [tail, 1 - tail])
    return float(low), float(high)
