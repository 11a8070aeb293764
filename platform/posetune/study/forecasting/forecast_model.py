"""Draws possible courses of a sweep's trials that agree with what is recorded.

- *How good they are.* Only ranks matter to the rungs, so trials have a latent worth: standard
  normal for a sampler that draws at random. TPE's later trials are better than its first and less
  spread (`GAIN`, fitted to the actual sampler and held to it by a test), so fewer of them are cut
  than with constant ranks. Before the first report the gain is drawn from its prior; then those
  draws are kept under which worth rises with the trial's number as it does in the reports, and
  the recorded trials take the places of drawn ones of the same rank.
- *How their curves cross*: at each rung noise is added to the worth.
- *How long their epochs take*: as the recorded ones, whose mean and spread are known the better
  the more there are; before the first report as the measured step, give or take a third.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from posetune.spec.sweep import SweepSpec
from posetune.study.records import Report
from posetune.study.search.rungs import compared_epochs
from posetune.study.states import TrialState
from posetune.study.view import TrialView

__all__ = ["Draw", "ForecastModel", "Situation", "worth"]

CANDIDATES = 400
"""Draws of the sampler's gain among which those that fit the reports are found."""
STARTUP = 10
"""Trials that TPE draws at random (Optuna's n_startup_trials)."""
GAIN = 0.8
GAIN_SPREAD = 0.25
"""How much TPE improves (see `worth`): mean and spread over 30 made-up objectives of one to six
parameters, 60 trials each."""
SHRINKAGE = 0.35
CROSSING = (0.03, 0.6)
"""Noise at a rung, in spreads of the worth of random trials; drawn evenly in its logarithm."""
PACE_ERROR = 0.3
"""How far a measured step may be from the mean epoch, in logarithms."""
JITTER = 0.1
"""How epochs of one trial are taken to differ before any is known; counts as two."""
PACE_SPREAD = 0.25
"""How trials are taken to differ in pace before any is known, in logarithms; counts as two."""


@dataclass(frozen=True)
class Situation:
    """Holds what is known of a sweep when it is forecast, before its start or on its way."""

    spec: SweepSpec
    slots: int
    """Number of trials that run at a time."""
    epoch_s: float = 0.0
    """Seconds of an epoch by a measured step; 0 if none was measured, or reports tell it."""
    setup_s: float = 0.0
    """Seconds from the beginning of an attempt to its first step of training."""
    stages_s: float = 0.0
    """Seconds that the shared stages which are not built yet take together."""
    trials: Sequence[TrialView] = ()
    reports: Sequence[Report] = ()
    audited: Mapping[int, int] = field(default_factory=dict)
    """The trials that run on where ASHA would have cut them, and at which epoch."""
    driven_s: float = 0.0
    """Seconds for which drivers have been at work on the sweep."""


@dataclass(frozen=True)
class Draw:
    """Holds one possible course of a sweep, which a simulation then plays to its end."""

    recorded: Mapping[tuple[int, int], float]
    """The latent value of each recorded trial at each epoch where trials are compared."""
    worths: NDArray[np.float64]
    """Latent worth of all trials, recorded or not, by number; lower is better."""
    crossing: float
    epoch_s: NDArray[np.float64]
    """Mean seconds of an epoch, by trial."""
    jitter: float
    failing: float


class ForecastModel:
    """Draws possible courses of a sweep that agree with what is recorded."""

    def __init__(
        self, situation: Situation, generator: np.random.Generator, replications: int
    ) -> None:
        self._situation, self._generator, self._count = situation, generator, replications
        self._spec = situation.spec
        self._compared = sorted(compared_epochs(self._spec.pruner))
        sign = float(self._spec.objective.sign)
        self._values: dict[int, dict[int, float]] = {epoch: {} for epoch in self._compared}
        for report in situation.reports:
            if report.epoch in self._values and report.value is not None:
                self._values[report.epoch][report.trial] = sign * report.value
        self._jitter = self._spread_within()

    def draws(self) -> Iterator[Draw]:
        """Yield as many possible courses as there are replications."""
        worths = self._worths()
        low, high = (math.log(bound) for bound in CROSSING)
        ended = [t for t in self._situation.trials if t.state.is_end]
        failed = sum(t.state == TrialState.FAILED for t in ended)
        for row in worths:
            crossing = math.exp(self._generator.uniform(low, high))
            yield Draw(
                recorded=self._places(row, crossing),
                worths=row,
                crossing=crossing,
                epoch_s=self._paces(len(row)),
                jitter=self._jitter,
                failing=float(self._generator.beta(failed + 0.1, len(ended) - failed + 5)),
            )

    def _worths(self) -> NDArray[np.float64]:
        """Draw the worth of all trials, (R, N); the recorded have their order at the first rung."""
        generator, numbers = self._generator, np.arange(self._spec.budget.trials)
        learns = self._spec.sampler.name == "tpe"
        gain = np.maximum(0.0, generator.normal(GAIN, GAIN_SPREAD, (CANDIDATES, 1))) * learns
        drawn = worth(numbers, gain, generator.normal(size=(CANDIDATES, len(numbers))))
        first = self._values[self._compared[0]]
        known = np.array(sorted(first), dtype=np.int64)
        if len(known) > 1:
            observed = np.argsort(np.argsort([first[number] for number in known]))
            ranks = np.argsort(np.argsort(drawn[:, known], axis=1), axis=1)
            rise = np.log1p(np.maximum(0, known - STARTUP + 1))
            rise = rise - rise.mean()
            miss = (ranks - observed) @ rise
            scale = len(known) * math.sqrt(float(rise @ rise)) / 8 + 1e-9
            likely = np.exp(-0.5 * (miss / scale) ** 2) + 1e-12
            chosen = generator.choice(CANDIDATES, self._count, p=likely / likely.sum())
            drawn = drawn[chosen]
            drawn[:, known] = np.sort(drawn[:, known], axis=1)[:, observed]
        return drawn[: self._count]

    def _places(self, worths: NDArray[np.float64], crossing: float) -> dict[tuple[int, int], float]:
        """Give the recorded values of each rung the order that they have."""
        found: dict[tuple[int, int], float] = {}
        for epoch, values in self._values.items():
            numbers = np.array(sorted(values, key=lambda n: values[n]), dtype=np.int64)
            latent = worths[numbers] + crossing * self._generator.normal(size=len(numbers))
            found |= {
                (int(number), epoch): float(value)
                for number, value in zip(numbers, np.sort(latent), strict=True)
            }
        return found

    def _paces(self, count: int) -> NDArray[np.float64]:
        """Draw the mean seconds of an epoch of each trial.

        A trial with epochs lies between its own mean and everybody's, as far as its epochs vary.
        Everybody's mean counts every epoch: the trials that go far are like those that went far.
        """
        trained = [t for t in self._situation.trials if t.epochs and t.seconds]
        if not trained:
            mean = math.log(self._situation.epoch_s) + PACE_ERROR * self._generator.normal()
            return np.exp(mean + PACE_SPREAD * self._generator.normal(size=count))
        numbers = [trial.number for trial in trained]
        epochs = np.array([trial.epochs for trial in trained], dtype=float)
        own = np.log([trial.seconds / trial.epochs for trial in trained])
        own_variance = self._jitter**2 / epochs
        mean = float(np.average(own, weights=epochs))
        squares = float(np.sum((own - own.mean()) ** 2 - own_variance))
        variance = (max(0.0, squares) + 2 * PACE_SPREAD**2) / (len(own) + 1)
        error = math.sqrt(variance * float(np.sum(epochs**2))) / float(epochs.sum())
        mean += error * self._generator.normal()
        paces = mean + math.sqrt(variance) * self._generator.normal(size=count)
        certainty = variance / (variance + own_variance)
        drawn = self._generator.normal(size=len(own)) * np.sqrt(certainty * own_variance)
        paces[numbers] = mean + certainty * (own - mean) + drawn
        return np.exp(paces)

    def _spread_within(self) -> float:
        """Return how epochs of one trial differ in length, in logarithms."""
        last: dict[int, float] = {}
        squares, count = 2 * JITTER**2, 2
        for report in self._situation.reports:
            before = last.get(report.trial)
            if before and report.seconds:
                squares += math.log(report.seconds / before) ** 2 / 2
                count += 1
            last[report.trial] = report.seconds
        return math.sqrt(squares / count)


def worth(
    numbers: NDArray[np.int64], gain: NDArray[np.float64], normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the latent worth of trials, lower is better, from standard normal draws.

    The mean falls by `gain` times the logarithm of the trials after TPE's random ones (one unit
    is four trials), and the spread shrinks with it.

    Args:
        numbers: of the trials, (N,).
        gain: of each replication, (R, 1); 0 for a sampler that does not learn.
        normal: (R, N).
    """
    learnt = np.log1p(np.maximum(0, numbers - STARTUP + 1) / 4)
    return -gain * learnt + normal / (1 + SHRINKAGE * learnt * np.sign(gain))
