"""Shows a running sweep as a live table, read from the driver's own memory."""

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
from posetune.report.wording import broken, format_measure, format_params, format_seconds
from posetune.spec.sweep import Objective
from posetune.storage import Storage
from posetune.study.driving.sweep import SweepRun
from posetune.study.forecasting.forecast import Forecaster
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord
from posetune.trial.stage_lines import StageNews

__all__ = ["SweepBoard", "live_table"]

ROWS = 12
LOOK_S = 5.0
"""Seconds between two looks for a newer forecast, and at the stages that are built."""


@contextmanager
def live_table(
    run: SweepRun, forecaster: Forecaster, storage: Storage, *, quiet: bool
) -> Iterator[None]:
    """Show the sweep while it runs; on no terminal, a line when something happens.

    What happens is that a trial ends, that another trial becomes the best, or that the sweep waits
    for something else. Otherwise there is a line a minute. The trials log in the storage.
    """
    if quiet:
        yield
        return
    board = SweepBoard(run, forecaster, storage)
    done = threading.Event()
    threading.Thread(target=board.look_around, args=(done,), daemon=True).start()
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


def _shown(best: TrialRecord | None, objective: Objective) -> str:
    at = None if best is None else best.chosen(objective)
    if best is None or at is None:
        return "none yet"
    return f"{format_measure(at.value)} (trial {best.number} at epoch {at.epoch})"


class SweepBoard:
    """Says how a sweep stands: as a table, or as lines for output that is no terminal."""

    def __init__(self, run: SweepRun, forecaster: Forecaster, storage: Storage) -> None:
        """Show a sweep, with what a forecaster expects of it; its trials log in the storage."""
        self._run, self._forecaster = run, forecaster
        self._stage_news = StageNews(storage, run.name)
        self.started = time.monotonic()
        self._left = ""
        """Time left, as an interval of 80 %; a thread of its own renews it."""
        self._stages: list[str] = []
        """How far the shared stages are that trials build now; set by the same thread."""
        # What the lines say already; what an earlier driver saw is no news.
        self._told = {trial.number for trial in run.trials if trial.state is not None}
        self._paused = {t.number: t.epoch for t in run.trials if t.is_paused}
        """The trials whose pauses the lines say already, and after which epoch."""
        self._leader = None if run.best is None else run.best.number
        self._waited_for, self._last_line = "", self.started

    def look_around(self, done: threading.Event) -> None:
        """Renew the time that is left and how far stages are, every few seconds, until `done`."""
        while not done.wait(LOOK_S):
            with contextlib.suppress(OSError):  # storage is away
                self.look_at_stages()
            with contextlib.suppress(BadInputError, SQLAlchemyError):  # the study is away
                forecast = self._forecaster.latest(self._run.view)
                if forecast is not None:
                    ends = forecast.wall_s
                    left = [max(0.0, end - forecast.driven_s) for end in ends]
                    self._left = f"{format_seconds(left[0])} to {format_seconds(left[2])}"

    def look_at_stages(self) -> None:
        """Learn how far the shared stages are that trials build before their first epoch."""
        starting = [t.number for t in list(self._run.trials) if t.state is None and not t.epoch]
        told = [(number, self._stage_news.of(number)) for number in starting]
        self._stages = [f"trial {number}: {line}" for number, line in told if line]

    def render(self) -> RenderableType:
        """Return the table of the newest trials, with a summary below."""
        trials = list(self._run.trials)
        shown = sorted(trials, key=lambda t: (t.state is not None, -t.number))[:ROWS]
        rows = [self.row(trial) for trial in sorted(shown, key=lambda t: t.number)]
        metric = broken(self._run.spec.objective.metric.rpartition("/")[2])
        table = Table("trial", "state", "epoch", metric)
        # No parameter is broken inside its name.
        words = [word for *_, params in rows for word in params.split()]
        table.add_column("params", min_width=min(max(map(len, words), default=0), 40))
        for row in rows:
            table.add_row(*row)
        stages = [Text(line) for line in self._stages]
        return Group(table, *stages, Text(self.summary()), Text(self._run.waits_for, "yellow"))

    def summary(self) -> str:
        """Return in one line how far the sweep is and which trial is the best."""
        run = self._run
        ended = [t for t in run.trials if t.state is not None]
        shown = _shown(run.best, run.spec.objective)
        left = f"{self._left} left" if self._left else "time left not known yet"
        elapsed = format_seconds(time.monotonic() - self.started)
        # Where last epochs count, the first of now may stand worse than the first of before.
        word = "best so far" if run.spec.objective.select == "best" else "first now"
        return (
            f"{run.name}: {len(ended)} of {run.state.most_trials} trials ended, {word} "
            f"{shown}, {elapsed} elapsed, {left}"
        )

    def print_lines(self, done: threading.Event) -> None:
        """Print what is new until the sweep is done."""
        finished = False
        while not finished:
            finished = done.wait(0.5)
            for line in self.news(time.monotonic()):
                console.print(line)

    def news(self, now: float) -> list[str]:
        """Return the lines to print at a time, in seconds; none while nothing happens."""
        run, best = self._run, self._run.best
        ended = [trial for trial in list(run.trials) if trial.state is not None]
        lines = []
        for trial in ended:
            if trial.number not in self._told:
                number, state, epoch, value, params = self.row(trial)
                lines.append(f"trial {number} {state} at epoch {epoch}: {value}  {params}")
        self._told |= {trial.number for trial in ended}
        lines += self._pauses()
        leads = None if best is None else best.number
        due = now - self._last_line >= LINE_EVERY_S
        if lines or leads != self._leader or due:
            lines += [*self._stages, self.summary()]
        if run.waits_for and (due or run.waits_for != self._waited_for):
            lines.append(run.waits_for)
        self._leader, self._waited_for = leads, run.waits_for
        if lines:
            self._last_line = now
        return lines

    def _pauses(self) -> list[str]:
        """Return a line for each trial that was paused since the last lines."""
        paused = {t.number: t for t in list(self._run.trials) if t.is_paused}
        lines = [
            f"trial {number} paused after epoch {trial.epoch}: {trial.why}"
            for number, trial in paused.items()
            if self._paused.get(number) != trial.epoch
        ]
        self._paused |= {number: trial.epoch for number, trial in paused.items()}
        return lines

    def row(self, trial: TrialRecord) -> tuple[str, str, str, str, str]:
        """Return a trial's number, state, epoch, value and parameters."""
        open_state = TrialState.RUNNING if trial.epoch else "STARTING"
        state = TrialState.PAUSED if trial.is_paused else trial.state or open_state
        value = "-" if trial.value is None else format_measure(trial.value)
        epoch = f"{trial.epoch}/{self._run.state.last_epoch(trial)}"
        return str(trial.number), state, epoch, value, format_params(trial.params)
