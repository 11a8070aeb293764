"""The live table of a sweep under way, read from the driver's own memory."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from posetune.api import BadInputError
from posetune.cli.screen import LINE_EVERY_S, console
from posetune.report.tables import format_params, format_seconds
from posetune.spec.sweep import Objective
from posetune.study.forecast import Forecaster
from posetune.study.states import TrialState
from posetune.study.sweep import SweepRun
from posetune.study.trials import TrialRecord

__all__ = ["live_table"]

ROWS = 12
FORECAST_S = 5.0
"""Between two questions whether there is a newer forecast."""


@contextmanager
def live_table(run: SweepRun, forecaster: Forecaster, *, quiet: bool) -> Iterator[None]:
    """Show the sweep while it runs; on no terminal, a line whenever a trial ends."""
    if quiet:
        yield
        return
    board = _Board(run, forecaster)
    done = threading.Event()
    threading.Thread(target=board.forecast, args=(done,), daemon=True).start()
    try:
        if console.is_terminal:
            with Live(get_renderable=board.render, console=console, refresh_per_second=2):
                yield
            return
        thread = threading.Thread(target=board.print_lines, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
    finally:
        done.set()


def _shown(best: TrialRecord, objective: Objective) -> str:
    at = best.chosen(objective)
    assert at is not None  # a trial without a value is not the best
    return f"{at.value:.2f} (trial {best.number} at epoch {at.epoch})"


class _Board:
    def __init__(self, run: SweepRun, forecaster: Forecaster) -> None:
        self._run, self._forecaster = run, forecaster
        self._started = time.monotonic()
        self._left = ""
        """Between what and what, with 80 %; set now and then by a thread of its own."""

    def forecast(self, done: threading.Event) -> None:
        """Ask again and again what is left of the sweep."""
        while not done.wait(FORECAST_S):
            with contextlib.suppress(BadInputError, SQLAlchemyError):  # the study is away
                forecast = self._forecaster.latest(self._run.view)
                if forecast is not None:
                    ends = forecast.wall_s
                    left = [max(0.0, end - forecast.driven_s) for end in ends]
                    self._left = f"{format_seconds(left[0])} to {format_seconds(left[2])}"

    def render(self) -> RenderableType:
        trials = list(self._run.trials)
        shown = sorted(trials, key=lambda t: (t.state is not None, -t.number))[:ROWS]
        table = Table("trial", "state", "epoch", self._run.spec.objective.metric, "params")
        for trial in sorted(shown, key=lambda t: t.number):
            table.add_row(*self._row(trial))
        return Group(table, Text(self.summary()), Text(self._run.waits_for, "yellow"))

    def summary(self) -> str:
        run = self._run
        told = [t for t in run.trials if t.state is not None]
        best = run.best
        shown = "none yet" if best is None else _shown(best, run.spec.objective)
        elapsed = format_seconds(time.monotonic() - self._started)
        return (
            f"{run.name}: {len(told)} of {run.spec.budget.trials} trials ended, best so far "
            f"{shown}, {elapsed} elapsed, {self._left or '?'} left"
        )

    def print_lines(self, done: threading.Event) -> None:
        """Print each trial's end, what is waited for, and the summary now and then."""
        printed = {trial.number for trial in self._run.trials if trial.state is not None}
        last, waited_for = time.monotonic(), ""
        while True:
            finished = done.wait(0.5)
            ended = [t for t in list(self._run.trials) if t.state and t.number not in printed]
            for trial in ended:
                printed.add(trial.number)
                number, state, epoch, value, params = self._row(trial)
                console.print(f"trial {number} {state} at epoch {epoch}: {value}  {params}")
            due = time.monotonic() - last > LINE_EVERY_S
            if ended or due:
                last = time.monotonic()
                console.print(self.summary())
            waits_for = self._run.waits_for
            if waits_for and (due or waits_for != waited_for):
                console.print(waits_for)
            waited_for = waits_for
            if finished:
                return

    def _row(self, trial: TrialRecord) -> tuple[str, str, str, str, str]:
        state = trial.state or (TrialState.RUNNING if trial.epoch else "STARTING")
        value = "-" if trial.value is None else f"{trial.value:.2f}"
        epoch = f"{trial.epoch}/{self._run.spec.pruner.max_epochs}"
        return str(trial.number), state, epoch, value, format_params(trial.params)
