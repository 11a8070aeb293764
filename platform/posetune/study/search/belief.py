"""What a sweep file believes of its best parameters: `prior`.

Every second start value is drawn around the believed values. The model of curves prefers points
near them besides: the logarithm of the prior's density is added to that of the expected
improvement, with a weight that falls as one over the number of trials, so that the sweep unlearns
a prior that is wrong.

Source: Hvarfner et al., piBO: Augmenting Acquisition Functions with User Beliefs (ICLR 2022).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posetune.spec.parameters import Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study.search.space import Space

__all__ = ["Belief"]

WEIGHT = 10.0
"""Trials after which the density of the prior counts once."""


class Belief:
    """The priors of one sweep, in places in [0, 1] with one coordinate for each parameter."""

    def __init__(self, spec: SweepSpec) -> None:
        space = Space(spec.search)
        believed: dict[str, Scalar] = {}
        for name, parameter in spec.search.items():
            prior = spec.prior.get(name)
            believed[name] = parameter.corners[0] if prior is None else prior.value_in(parameter)
        self.has_any = bool(spec.prior)
        self._middle_d = np.array(space.place_in_unit(believed))
        widths = [spec.prior[name].width if name in spec.prior else np.inf for name in spec.search]
        self._width_d = np.array(widths)

    def draw(self, units_d: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return evenly drawn places as places drawn from the prior."""
        from scipy.stats import truncnorm  # takes a second, which only a driver has

        found = units_d.copy()
        for d in np.flatnonzero(np.isfinite(self._width_d)):
            middle, width = self._middle_d[d], self._width_d[d]
            low, high = -middle / width, (1 - middle) / width
            found[d] = truncnorm.ppf(units_d[d], low, high, loc=middle, scale=width)
        return np.asarray(np.clip(found, 0.0, 1.0 - 1e-9))

    def log_weight(self, places_cd: NDArray[np.float64], trials: int) -> NDArray[np.float64]:
        """Return what is added to the logarithm of each point's expected improvement.

        Args:
            places_cd: the points, (C, D).
            trials: how many the sweep has.
        """
        apart = (places_cd - self._middle_d) / self._width_d
        return np.asarray(-0.5 * WEIGHT / max(1, trials) * np.sum(apart**2, axis=1))
