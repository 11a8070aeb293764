"""Applies the retention rule of a home: says which sweeps are old and needed by nobody.

The rule stands in `posetune.yaml`; nothing is ever deleted but by the command that a person gives,
and each sweep goes as `delete` takes it away, with all that `delete` refuses and leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from posetune.home import Home
from posetune.spec.home_file import Retention
from posetune.study.old.upgrade import refuse_old_tables
from posetune.study.reading import list_sweeps, read_sweep, sweep_names
from posetune.study.states import SweepStatus
from posetune.study.tables import journal
from posetune.study.tables.database import Database
from posetune.study.tables.whole_sweep import last_event
from posetune.study.view import SweepView

__all__ = ["KEEP_TAG", "Cleaning", "Judged"]

KEEP_TAG = "keep"
"""Tag of a sweep that no retention rule takes away."""


@dataclass(frozen=True)
class Judged:
    """Says whether the rule takes a sweep away."""

    sweep: str
    owner: str
    """Who started it, as person@host; empty where that is not known."""
    last_at: float
    """Time of its last event, in seconds since the epoch."""
    trials: int
    bytes: int
    """Size of its checkpoints."""
    kept: str
    """Why it stays; empty where it goes."""


class Cleaning:
    """Judges the sweeps of a study by its home's rule: all of them first, one again later."""

    def __init__(
        self, database: Database, home: Home, rule: Retention, *, by: str, everybody: bool
    ) -> None:
        """Read the sweeps of a study.

        Args:
            database: the study.
            home: where its versions are registered.
            rule: which sweeps stay.
            by: who asks, as person@host.
            everybody: whether the sweeps of others may go, too.

        Raises:
            BadInputError: the study has tables of an earlier version.
        """
        refuse_old_tables(database)
        self._database, self._home, self._rule = database, home, rule
        self._by, self._everybody = by, everybody
        self._views = list_sweeps(database)[::-1]

    def judge(self, *, now: float) -> list[Judged]:
        """Judge every sweep, the one whose last event is oldest first.

        Raises:
            BadInputError: MLflow cannot be reached, and the rule keeps what is registered there.
        """
        return sorted(self._judge(self._views, now), key=lambda judged: judged.last_at)

    def judge_again(self, name: str, *, now: float) -> Judged:
        """Judge one sweep as it is now, which may be hours after the others were read.

        Raises:
            BadInputError: the sweep is gone, or MLflow cannot be reached.
        """
        view = read_sweep(self._database, name)
        names = set(sweep_names(self._database)) - {name}
        self._views = [*(one for one in self._views if one.name in names), view]
        return self._judge([view], now)[0]

    def _judge(self, views: Sequence[SweepView], now: float) -> list[Judged]:
        with self._database.reading() as connection:
            last = {view.name: last_event(connection, view.id)[1] for view in views}
            runs = {view.name: journal.read_runs(connection, view.id) for view in views}
        registered: set[str] = set()
        if "registered" in self._rule.keep and any(runs.values()):
            from posetune.promotion.uses import registered_runs  # imports MLflow

            registered = registered_runs(self._home)
        found = []
        for view in views:
            is_registered = any(run.run_id in registered for run in runs[view.name])
            why = (
                _is_young(last[view.name], self._rule, now)
                or ("a version of it is registered" if is_registered else "")
                or _is_needed(view, self._views, self._rule)
                or ("" if self._everybody else _is_of_others(view, self._by))
            )
            saved = sum(one.bytes for trial in view.trials for one in trial.checkpoints)
            at, trials = last[view.name], len(view.trials)
            found.append(Judged(view.name, view.owner, at, trials, saved, kept=why))
        return found


def _is_young(last_at: float, rule: Retention, now: float) -> str:
    return "" if now - last_at > rule.older_than_s else f"younger than {rule.older_than}"


def _is_needed(view: SweepView, views: Sequence[SweepView], rule: Retention) -> str:
    if view.state == SweepStatus.RUNNING:
        return "a driver is at work"
    if view.waiting_requests:
        return "somebody has asked for something"
    if KEEP_TAG in view.tags:
        return f"it has the tag {KEEP_TAG}"
    if "unfinished" in rule.keep and view.state == SweepStatus.INTERRUPTED:
        return "it is not finished"
    if "best" in rule.keep and _is_best(view, views):
        return "it is the best on its data"
    return ""


def _is_best(view: SweepView, views: Sequence[SweepView]) -> bool:
    """Whether no sweep of the same model, data and objective has a better value."""
    value = _value(view)
    rivals = [_value(one) for one in views if _kind(one) == _kind(view)]
    known = [one for one in rivals if one is not None]
    return value is not None and value == view.spec.objective.best(known)


def _kind(view: SweepView) -> tuple[str, ...]:
    objective = view.spec.objective
    return view.spec.trainable, view.store_digest, objective.metric, objective.mode


def _value(view: SweepView) -> float | None:
    best = view.best
    return None if best is None or best.chosen is None else best.chosen.value


def _is_of_others(view: SweepView, by: str) -> str:
    theirs = view.owner.partition("@")[0]
    is_mine = theirs in ("", by.partition("@")[0])
    return "" if is_mine else f"it is {theirs}'s (--everybody takes it, too)"
