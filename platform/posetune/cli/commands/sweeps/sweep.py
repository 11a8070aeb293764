"""`posetune sweep`: runs the trials of a sweep file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from posetune.cli.live import live_table
from posetune.cli.options import HomeOption, JsonOption, NameOption, StoreOption, SweepFile
from posetune.cli.relay import MLFLOW_LINE
from posetune.cli.screen import console, print_json
from posetune.execution.connection import RayNotStartedError
from posetune.execution.driver import StudyLostError
from posetune.notifications.wording import notification_line
from posetune.report.sweep_json import as_json as view_json
from posetune.report.tables import forecast_line, next_steps, no_forecast, sweep_tables
from posetune.storage import Storage
from posetune.study.driving.sweep import SweepRun
from posetune.study.forecasting.forecast import Forecaster, forecast
from posetune.study.forecasting.forecast_model import ForecastInput
from posetune.study.states import SweepStatus
from posetune.study.view import SweepView
from posetune.workflow.sweep import SweepEnd, run_sweep

__all__ = ["sweep"]


def sweep(
    file: SweepFile,
    name: NameOption = None,
    store: StoreOption = None,
    home: HomeOption = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster to join; 'auto' on one of its nodes (default: Ray on this machine)."
        ),
    ] = None,
    watch_machine: Annotated[
        bool,
        typer.Option(
            "--system-metrics", help="Also log to MLflow how busy the driver's machine is."
        ),
    ] = False,
    tracking: Annotated[
        bool,
        typer.Option(
            "--tracking/--no-tracking",
            help="Ship the sweep to MLflow while it runs; `posetune track` can do so afterwards.",
        ),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Run the trials of one sweep until its budget is spent.

    Ctrl-C lets the trials save where they are. The same command again continues the sweep: open
    trials go first, from their last checkpoint.

      posetune sweep search_spaces/selfpose/quickstart.yaml --name first
    """
    try:
        end = run_sweep(
            file,
            name,
            store=store,
            home=home,
            address=address,
            tracking=tracking,
            system_metrics=watch_machine,
            observer=_Terminal(quiet=as_json),
        )
    except (RayNotStartedError, StudyLostError) as error:
        console.print(f"{error}; nothing is lost, the same command again continues the sweep")
        raise typer.Exit(1) from error
    if as_json:
        print_json(view_json(end.view))
    else:
        console.print(sweep_tables(end.view))
    _say_how_it_ended(end, home, tracking=tracking)


_GROW = "raise the budget in the file; then "
"""What a person does first with a sweep whose budget is spent."""


class _Terminal:
    """Shows a sweep on the terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def begins(self, run: SweepRun, notes: Sequence[str]) -> None:
        for note in notes:
            console.print(note)
        if not self._quiet:
            console.print(_expected(run))

    def watching(
        self, run: SweepRun, forecaster: Forecaster, storage: Storage
    ) -> AbstractContextManager[None]:
        return live_table(run, forecaster, storage, quiet=self._quiet)

    def page(self, address: str) -> None:
        # On one line, however narrow the terminal: `submit` looks for it.
        console.print(MLFLOW_LINE + address, soft_wrap=True, markup=False)

    def leaves(self, reason: str) -> None:
        console.show_cursor()  # a live table has hidden it
        console.print(_goes_on(reason), soft_wrap=True)


def _goes_on(failure: str, first: str = "") -> str:
    """Return why a driver has ended itself, and how the sweep goes on."""
    return f"{failure}; {first}the same command again continues the sweep"


def _expected(run: SweepRun) -> str:
    """Return what the sweep, or its rest, will take; seconds are known from reports only."""
    if any(trial.epoch for trial in run.trials):
        return forecast_line(run.view())
    spec = run.spec.with_trials(run.state.most_trials)
    expected = forecast(ForecastInput(spec, slots=1))
    if expected is None:
        return no_forecast(spec)
    low, _, high = expected.epochs
    has_hours = spec.budget.limit_gpu_hours is not None or spec.budget.wall_hours is not None
    fewer = ", fewer if the hours of the budget run out" if has_hours else ""
    return (
        f"forecast (80 %): {low:.0f} to {high:.0f} epochs{fewer}; how long they take is shown once "
        "some are trained (posetune check measures it before)"
    )


def _say_how_it_ended(end: SweepEnd, home: Path | None, *, tracking: bool) -> None:
    view, home_flag = end.view, f" --home {home}" if home else ""
    if not end.is_tracked:
        cause = end.tracking_error if tracking else "--no-tracking"
        because = f" ({cause})" if cause else ""
        console.print(
            f"MLflow is behind{because}; bring it up to date: posetune track {view.name}{home_flag}"
        )
    if end.messages_waiting:
        waits = notification_line(end.messages_waiting)
        line = f"{waits}; send them: posetune notify --flush{home_flag}"
        console.print(line, soft_wrap=True, markup=False)
    if end.failure:
        if end.trace:
            console.print(end.trace, markup=False, highlight=False, soft_wrap=True)
        first = "mend the cause; then " if end.trace else ""
        console.print(_goes_on(end.failure, first), markup=False, soft_wrap=True)
        raise typer.Exit(1)
    if not (end.stopped_by_user or end.refused or _has_values(view)):
        _say_nothing_was_reported(view, home_flag)
        raise typer.Exit(1)
    if view.state == SweepStatus.INTERRUPTED:
        is_spent = not end.stopped_by_user and not end.refused
        if is_spent and (view.target_reached or view.patience_over):
            console.print(f"{view.stopped}. Next: {next_steps(view, home_flag)}", soft_wrap=True)
            raise typer.Exit(0)
        first = _GROW if is_spent else ""
        console.print(f"{view.stopped}; {first}the same command again continues it")
        raise typer.Exit(130 if end.stopped_by_user else 2 if end.refused else 0)
    if view.state == SweepStatus.FAILED:
        console.print(_reasons(view), markup=False)
        raise typer.Exit(1)
    console.print(f"Next: {next_steps(view, home_flag)}", soft_wrap=True)


def _has_values(view: SweepView) -> bool:
    return any(report.value is not None for report in view.reports)


def _say_nothing_was_reported(view: SweepView, home_flag: str) -> None:
    """Say that a sweep has no result at all, and what to do."""
    why = _reasons(view) if view.state == SweepStatus.FAILED else view.stopped
    if view.state == SweepStatus.INTERRUPTED:
        why += f"; {_GROW}the same command again continues it"
    metric = view.spec.objective.metric
    nothing = f"there is no result, because no trial has reported {metric}"
    look = f"posetune logs {view.name}{home_flag} --trial 0 shows what the first trial did"
    console.print(f"{why}. So far {nothing}: {look}", markup=False, soft_wrap=True)


def _reasons(view: SweepView) -> str:
    """Return why every trial of a sweep has failed, as one line."""
    return "every trial failed: " + "; ".join(sorted({t.reason for t in view.trials})[:3])
