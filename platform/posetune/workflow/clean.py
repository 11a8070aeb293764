"""Applies the retention rule of a home: says which sweeps are old and needed by nobody.

The rule stands in `posetune.yaml`; nothing is ever deleted but by the command that a person gives,
and each sweep goes as `delete` takes it away, with all that `delete` refuses and leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from posetune.home import Home
from posetune.spec.home_file import Retention
from posetune.study.reading import list_sweeps
from posetune.study.states import SweepStatus
from posetune.study.tables import journal
from posetune.study.tables.database import Database
from posetune.study.tables.whole_sweep import last_event
from posetune.study.view import SweepView

__all__ = ["KEEP_TAG", "Judged", "judge"]

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


def judge(
    database: Database, home: Home, rule: Retention, *, now: float, by: str, everybody: bool
) -> list[Judged]:
    """Judge every sweep of a study, the oldest first.

    Args:
        database: the study.
        home: where its versions are registered.
        rule: which sweeps stay.
        now: seconds since the epoch.
        by: who asks, as person@host.
        everybody: whether the sweeps of others may go, too.

    Raises:
        BadInputError: MLflow cannot be reached, and the rule keeps what is registered there.
    """
    views = list_sweeps(database)[::-1]
    with database.reading() as connection:
        last = {view.name: last_event(connection, view.id)[1] for view in views}
        runs = {view.name: journal.read_runs(connection, view.id) for view in views}
    registered: set[str] = set()
    if "registered" in rule.keep and any(runs.values()):
        from posetune.promotion.uses import registered_runs  # imports MLflow

        registered = registered_runs(home)
    found = []
    for view in views:
        is_registered = any(run.run_id in registered for run in runs[view.name])
        why = (
            _is_young(last[view.name], rule, now)
            or ("a version of it is registered" if is_registered else "")
            or _is_needed(view, views, rule)
            or ("" if everybody else _is_of_others(view, by))
        )
        saved = sum(one.bytes for trial in view.trials for one in trial.checkpoints)
        at, trials = last[view.name], len(view.trials)
        found.append(Judged(view.name, view.owner, at, trials, saved, kept=why))
    return sorted(found, key=lambda judged: judged.last_at)


def _is_young(last_at: float, rule: Retention, now: float) -> str:
    return "" if now - last_at > rule.older_than_s else f"younger than {rule.older_than}"


def _is_needed(view: SweepView, views: Sequence[SweepView], rule: Retention) -> str:
    if view.state == SweepStatus.RUNNING:
        return "a driver is at work"
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
