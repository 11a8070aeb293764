"""Drives several sweeps on one simulated cluster, epoch by epoch, without Ray and without training.

Each driver asks its `ClusterTurn` as a real one does. All epochs take the same time, so what a
sweep has at work in an epoch is its slot-time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from support.simulated_driver import SimulatedTrial, simulated_start

from posetune.spec.sweep import ClusterRules
from posetune.study.driving.sweep import SweepRun
from posetune.study.search.rungs import Decision
from posetune.study.sharing.turn import ClusterTurn
from posetune.study.tables.database import Database

__all__ = ["SharedCluster", "SharingDriver"]


class SharingDriver:
    """The driver of one sweep on a cluster."""

    def __init__(self, run: SweepRun, *, slots: int, concurrent: int) -> None:
        """Begin to drive a sweep.

        Args:
            run: the sweep.
            slots: of the cluster.
            concurrent: how many trials it may have at a time.
        """
        self.rules = run.cluster_rules
        self.run, self.turn = run, ClusterTurn(run, "simulated", lambda: self.rules)
        self._slots, self._concurrent = slots, concurrent
        self.at_work: list[SimulatedTrial] = []

    def look(self) -> None:
        """Look at what the others want, after as long as a lease is renewed."""
        self.run.lease.renew()
        self.turn.look(fits=self._slots, room=self._concurrent)

    def take_slot(self) -> bool:
        """Begin a trial, if the sweep may and has one."""
        if len(self.at_work) >= self._concurrent or not self.turn.may_start:
            return False
        trial = self.run.next_trial()
        if trial is not None:
            self.at_work.append(SimulatedTrial(self.run, trial.number))
        return trial is not None

    def train(self) -> None:
        """Train an epoch of every trial at work."""
        for trial in list(self.at_work):
            goes_on = trial.step() == Decision.CONTINUE
            if goes_on and self.turn.gives_back:
                self.run.give_back(trial.number, self.turn.why)
                goes_on = False
            if not goes_on:
                self.at_work.remove(trial)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left of the sweep."""
        return not self.at_work and not self.run.may_start


class SharedCluster:
    """A cluster with some slots, and the drivers of the sweeps on it."""

    def __init__(self, database: Database, slots: int) -> None:
        self._database, self._slots = database, slots
        self.drivers: dict[str, SharingDriver] = {}

    def begin(
        self,
        name: str,
        *,
        trials: int = 200,
        seed: int = 0,
        concurrent: int | None = None,
        pruner: str = "none",
        gpu: float = 0.0,
        **rules: float,
    ) -> SharingDriver:
        """Start a sweep, or go on with it; `rules` are those of `cluster` in its file."""
        start = simulated_start(
            budget={"trials": trials},
            sampler={"seed": seed, "startup": 3},
            pruner={"name": pruner, "max_epochs": 9},
            resources={"gpu": gpu},
        )
        spec = start.spec.model_copy(update={"cluster": ClusterRules.model_validate(rules)})
        run = SweepRun(self._database, replace(start, name=name, spec=spec))
        most = concurrent or self._slots
        self.drivers[name] = SharingDriver(run, slots=self._slots, concurrent=most)
        return self.drivers[name]

    def epoch(self) -> dict[str, int]:
        """Let an epoch pass, and return how many slots each sweep had."""
        for driver in self.drivers.values():
            driver.look()
        for driver in self.drivers.values():
            driver.turn.look(fits=self._slots, room=driver._concurrent)
        while self._free and any(driver.take_slot() for driver in self.drivers.values()):
            pass
        had = {name: len(driver.at_work) for name, driver in self.drivers.items()}
        for driver in self.drivers.values():
            driver.train()
        self._end_those_that_are_over()
        return had

    def epochs(self, count: int) -> list[dict[str, int]]:
        """Let epochs pass, and return how many slots each sweep had in each."""
        return [self.epoch() for _ in range(count)]

    def to_the_end(self) -> None:
        """Let epochs pass until every sweep is over."""
        while self.drivers:
            had = self.epoch()
            assert sum(had.values()), "a sweep is not over, and no trial trains"

    def leave(self, names: Sequence[str]) -> None:
        """End drivers as a power cut does, but for their leases, which are given back."""
        for name in names:
            self.drivers.pop(name).run.lease.release()

    @property
    def _free(self) -> int:
        return self._slots - sum(len(driver.at_work) for driver in self.drivers.values())

    def _end_those_that_are_over(self) -> None:
        over = [name for name, driver in self.drivers.items() if driver.is_over]
        for name in over:
            driver = self.drivers.pop(name)
            driver.run.close(driver.run.finished)
