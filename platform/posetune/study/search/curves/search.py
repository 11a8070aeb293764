"""Proposes points by the model of curves: `sampler: {name: gp}`.

After the start values, the next point is the one whose end has the highest expected improvement
over the best value seen. The trials at work count as ending where they are expected to, so those
that run side by side are not all sent to the same place.

The sizes of the model are fitted in a thread, beside the driver's loop. Which fit a question is
answered by follows from how many reports there are: a fit to the first n reports is in force from
report n + `LAG` on, and whoever needs it waits for it. So the answers are a function of the sweep's
events in their order, and a driver that takes over repeats one fit only.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from posetune.spec.parameters import Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study.search.belief import Belief
from posetune.study.search.curves.data import CurveData, Reached, Seen
from posetune.study.search.curves.model import (
    CurveModel,
    CurveShape,
    Ends,
    Settings,
    fit,
    log_expected_improvement,
    start_shape,
)
from posetune.study.search.seeding import seed_for
from posetune.study.search.space import Key
from posetune.study.search.start_from import PriorTrial
from posetune.study.search.startup import start_values
from posetune.study.trials import TrialRecord

__all__ = ["CurveSearch", "Outlook", "Proposal"]

FIRST_FIT, GROWTH, LAG = 10, 1.15, 2
"""Reports at the first fit, by what they grow until the next, and after how many more it is in
force."""
MOST_LISTED = 1024
"""Of so many points at most a finite space is looked at as a whole."""
DRAWN = 512
"""Points that are drawn of any other."""
LEADERS, NEAR, STEP = 8, 8, 0.1
"""Around so many of the best trials so many points are tried, so far away in the unit cube."""


class Candidates(NamedTuple):
    """New points."""

    places_cd: NDArray[np.float64]
    """In [0, 1], one coordinate for each parameter."""
    seats_cd: NDArray[np.float64]
    """Where they lie for the model."""
    keys: list[Key]
    """What tells them apart, where the space is finite."""

    def without(self, tried: Collection[Key]) -> Candidates:
        """Return those that were not tried."""
        if not self.keys:
            return self
        fresh = [i for i, key in enumerate(self.keys) if key not in tried]
        keys = [self.keys[i] for i in fresh]
        return Candidates(self.places_cd[fresh], self.seats_cd[fresh], keys)


class Proposal(NamedTuple):
    """The most promising new point."""

    params: dict[str, Scalar]
    log_gain: float
    """Logarithm of its expected improvement."""
    mean: float
    """Where it is expected to end, transformed."""


class CurveSearch:
    """The model of one sweep's curves, brought up to its events at every question."""

    def __init__(
        self,
        spec: SweepSpec,
        trials: Sequence[TrialRecord],
        log: Sequence[tuple[int, int]],
        prior: Sequence[PriorTrial] = (),
        audited: Mapping[int, int] | None = None,
    ) -> None:
        """Look at a sweep.

        Args:
            spec: the sweep.
            trials: its trials; they change with its events, as the two below.
            log: the trial and epoch of each report, in their order; epoch 0 for a trial's failure.
            prior: trials of other sweeps within its search space.
            audited: the trials that run on where they would have been cut, and at which epoch.
        """
        self.spec, self._trials, self._log = spec, trials, log
        self._audited = audited if audited is not None else {}
        self.data = CurveData(spec, trials, prior)
        self.space = self.data.space
        self.belief = Belief(spec)
        self._progress = self.data.begin()
        self._read = 0
        """How many entries of the log are in the progress."""
        self._reports = 0
        self._due: dict[int, Reached] = {}
        """The progress at the newest fits that are due, by the number of reports."""
        self._fits: dict[int, Future[CurveShape]] = {}
        self._next_fit = FIRST_FIT
        self._thread = ThreadPoolExecutor(1, "curve fit")
        self._tried: set[Key] = set()
        self._known = 0
        """How many trials are among those tried."""
        self._listed: Candidates | None = None
        """Every point, where the space is small enough."""

    # -- what is asked -----------------------------------------------------------------------------

    @property
    def startup(self) -> int:
        """How many trials have start values."""
        return self.spec.startup * self.spec.sampler.repeats

    def ask(self, number: int) -> dict[str, Scalar]:
        """Return the parameters of the next trial."""
        if number >= self.startup:
            at_work = [t.number for t in self._trials if t.state is None and not t.is_paused]
            outlook = self.look(at_work)
            proposal = outlook.propose(number) if outlook is not None else None
            if proposal is not None:
                return proposal.params
        self._note_tried()
        seed = self.spec.sampler.seed
        point = start_values(self.space, seed, number + 1, self.belief)[number]
        if self.space.count is not None and self.space.key(point) in self._tried:
            return self.space.nearest_untried(point, self._tried)
        return point

    def look(
        self,
        at_work: Collection[int],
        *,
        first: Collection[int] = (),
        now: tuple[int, int, float | None] | None = None,
    ) -> Outlook | None:
        """Return what is expected after the reports so far; None while there are none.

        Args:
            at_work: the trials that count as ending where they are expected to.
            first: the trials that have to be among those that the model sees.
            now: a report that is not recorded yet: its trial, epoch and value.
        """
        self._catch_up()
        seen = self.data.see(self._progress, first={*at_work, *first}, now=now)
        if seen is None:
            return None
        shape = self._shape(self._reports + (now is not None))
        return Outlook(self, seen, CurveModel(shape, seen.observations), sorted(at_work))

    # -- the fits ----------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Read what was reported since, and begin the fits that are due."""
        for number, epoch in self._log[self._read :]:
            if epoch == 0:
                self._progress.failed.add(number)
                continue
            self._progress.failed.discard(number)  # a person has taken it up again
            if epoch <= self._audited.get(number, epoch):
                self.data.note_report(self._progress, number, epoch)
            self._reports += 1
            if self._reports >= self._next_fit:
                self._due[self._reports] = self._progress.copy()
                self._next_fit = math.ceil(self._reports * GROWTH)
                for old in sorted(self._due)[:-2]:
                    del self._due[old]
        self._read = len(self._log)
        in_force = max((n for n in self._due if n + LAG <= self._reports), default=0)
        for count, progress in sorted(self._due.items()):
            if count >= in_force and count not in self._fits:
                seen = self.data.see(progress)
                if seen is not None:
                    self._fits[count] = self._thread.submit(fit, seen.observations)

    def _shape(self, reports: int) -> CurveShape:
        """Return the fit that is in force after so many reports; wait for it if need be."""
        due = [count for count in self._fits if count + LAG <= reports]
        if not due:
            probe = self.data.unit(min(self._progress.epochs, default=0))
            return start_shape(len(probe))
        return self._fits[max(due)].result()

    # -- new points --------------------------------------------------------------------------------

    def _note_tried(self) -> None:
        if self.space.count is not None:
            for trial in self._trials[self._known :]:
                self._tried.add(self.space.key(trial.params))
        self._known = len(self._trials)

    def candidates(self, number: int, leaders: Sequence[int]) -> Candidates:
        """Return the points among which the next one is looked for, none that was tried.

        Args:
            number: of the trial that it is for.
            leaders: the best trials, around which more points are tried.
        """
        self._note_tried()
        if self.space.count is not None and self.space.count <= MOST_LISTED:
            if self._listed is None:
                self._listed = self._list()
            return self._listed.without(self._tried)
        seed = seed_for(self.spec.sampler.seed, number, "candidates")
        sobol = qmc.Sobol(self.space.dimensions, scramble=True, rng=seed)
        generator = np.random.default_rng(seed)
        near = [self._around(leader, generator) for leader in leaders[:LEADERS]]
        places = np.vstack([sobol.random(DRAWN), *near])
        seats, keys = self.space.snap(places)
        return Candidates(places, seats, keys).without(self._tried)

    def _list(self) -> Candidates:
        """Return every point of a finite space."""
        points = list(self.space.points())
        return Candidates(
            np.array([self.space.place_in_unit(point) for point in points]),
            np.array([self.space.to_unit(point) for point in points]),
            [self.space.key(point) for point in points],
        )

    def _around(self, number: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Return places around a trial, with one coordinate for each parameter."""
        middle = np.array(self.space.place_in_unit(self._trials[number].params))
        steps = STEP * generator.normal(size=(NEAR, len(middle)))
        return np.asarray(np.clip(middle + steps, 0.0, 1.0 - 1e-9))


class NewPoints(NamedTuple):
    """New points, and what is expected of them."""

    points: Candidates
    ends: Ends
    log_gains_c: NDArray[np.float64]
    """Logarithm of the expected improvement of each."""


class Outlook:
    """What the model expects of trials and of new points, after some reports."""

    def __init__(
        self, search: CurveSearch, seen: Seen, model: CurveModel, at_work: Sequence[int]
    ) -> None:
        self._search, self._seen, self._model = search, seen, model
        data = search.data
        dimensions = seen.observations.points_td.shape[1]
        self._work_wd = np.array([data.unit(n) for n in at_work]).reshape(-1, dimensions)
        self._work_w = self._indices(at_work)

    @property
    def best(self) -> float:
        """The best value seen, transformed."""
        return self._seen.best

    def value(self, z: float) -> float:
        """Return a transformed value in the objective's own terms."""
        return self._seen.scale.back(z)

    @property
    def seed(self) -> int:
        """The seed of the sweep's sampler."""
        return self._search.spec.sampler.seed

    def seat(self, number: int) -> list[float]:
        """Return where a trial lies for the model."""
        return self._search.data.unit(number)

    def observed(self, numbers: Sequence[int]) -> list[int]:
        """Return those of some trials that the model has seen."""
        return [number for number in numbers if number in self._seen.index]

    def ends(self, numbers: Sequence[int]) -> Ends:
        """Predict the ends of trials that are not at work."""
        points = np.array([self._search.data.unit(number) for number in numbers])
        return self._model.ends(points, self._indices(numbers), self._work_wd, self._work_w)

    def settings(self, seats_cd: NDArray[np.float64]) -> Settings:
        """Predict what the settings of some points come to, without what is a trial's own."""
        return self._model.settings(seats_cd)

    def new_points(self, number: int) -> NewPoints | None:
        """Return the points that a trial may have; None where all were tried."""
        points = self._search.candidates(number, self.leaders())
        count = len(points.seats_cd)
        if not count:
            return None
        fresh = np.arange(-count, 0) - number - 1  # none of those observed, and none at work
        ends = self._model.ends(points.seats_cd, fresh, self._work_wd, self._work_w)
        return NewPoints(points, ends, log_expected_improvement(ends, self.best))

    def propose(self, number: int) -> Proposal | None:
        """Return the most promising new point for a trial; None where all were tried."""
        new = self.new_points(number)
        if new is None:
            return None
        believed = new.log_gains_c
        if self._search.belief.has_any:
            believed = believed + self._search.belief.log_weight(new.points.places_cd, number)
        most = int(np.argmax(believed))
        params = self._search.space.from_unit(new.points.places_cd[most])
        return Proposal(params, float(new.log_gains_c[most]), float(new.ends.mean_c[most]))

    def leaders(self) -> list[int]:
        """Return the trials of the sweep that the model has seen, the best first."""
        seen = self._seen.observations
        best: dict[int, float] = {}
        for trial, value in zip(seen.trials_n, seen.values_n, strict=True):
            best[int(trial)] = min(float(value), best.get(int(trial), math.inf))
        of_index = {i: number for number, i in self._seen.index.items() if number >= 0}
        return [of_index[i] for i in sorted(best, key=lambda i: (best[i], i)) if i in of_index]

    def _indices(self, numbers: Sequence[int]) -> NDArray[np.int64]:
        """Return the index of each trial among those observed; its own below 0 for any other."""
        index = self._seen.index
        return np.array([index.get(n, -1 - n) for n in numbers], dtype=np.int64)
