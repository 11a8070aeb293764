"""Shows a sweep as tables, for people."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from posetune.report.findings.importance import param_importance
from posetune.report.findings.pruning import pruning_balance
from posetune.report.findings.search_notes import health_lines, patience_line, pause_lines
from posetune.report.leaderboard import FEW, STATE_STYLES, Leaderboard
from posetune.report.steering import steering_lines
from posetune.report.wording import (
    count_epochs,
    count_times,
    format_measure,
    format_seconds,
    format_value,
)
from posetune.spec.sweep import SweepSpec
from posetune.study.acts.act import EditSweep
from posetune.study.budget import energy_in_words, limit_in_words, unit
from posetune.study.forecasting.forecast import SIMULATION_S, forecast_sweep
from posetune.study.states import SweepStatus
from posetune.study.view import SweepView

__all__ = [
    "budget_used",
    "changed_params",
    "cost_of_hours",
    "forecast_line",
    "left_out",
    "next_steps",
    "no_forecast",
    "sweep_list",
    "sweep_tables",
]


def sweep_tables(view: SweepView, *, most: int = 20) -> RenderableType:
    """Return what `posetune show NAME` prints: leaderboard, baselines, budget, forecast and stages.

    Args:
        view: the sweep.
        most: number of trials that the leaderboard shows at most.
    """
    counts: dict[str, int] = {}
    for trial in view.trials:
        counts[trial.state] = counts.get(trial.state, 0) + 1
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    head = Text.assemble(
        f"sweep {view.name}: ",
        (view.state, STATE_STYLES.get(view.state, "")),
        f" ({view.stopped})" if view.stopped and view.state != SweepStatus.COMPLETE else "",
        f"; {len(view.trials)} of {view.most_trials} trials: {states or 'none yet'}",
        f"; {view.used_up}" if view.used_up else "",
    )
    parts: list[RenderableType] = [
        head,
        Text(view.waits_for, "yellow"),
        Leaderboard(view, most),
        Text("\n".join(pause_lines(view))),
        _comparison(view),
        _companions(view),
        _changes(view),
        _importance(view),
        Text(str(pruning_balance(view))),
        Text("\n".join(health_lines(view)), "yellow"),
        Text(patience_line(view)),
        Text(f"budget used: {budget_used(view)}"),
        Text(f"left out: {left_out(view)}" if left_out(view) else ""),
        *(Text(line) for line in steering_lines(view)),
        Text(forecast_line(view)),
    ]
    if view.stages:
        shared = ", ".join(
            f"{name} trained {count_times(use.trained)}, reused {use.reused}"
            for name, use in view.stages.items()
        )
        parts.append(Text(f"shared stages: {shared}"))
    return Group(*(part for part in parts if not isinstance(part, Text) or part.plain))


def changed_params(view: SweepView) -> dict[str, tuple[Any, Any]]:
    """Return the parameters in which the best trial differs from trial 0, which has the defaults.

    Returns:
        The default and the best trial's value of each such parameter, by its name.
    """
    first = next((trial for trial in view.trials if trial.number == 0), None)
    if view.best is None or first is None:
        return {}
    pairs = {name: (first.params[name], value) for name, value in view.best.params.items()}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def budget_used(view: SweepView) -> str:
    """Return how much of each limit of the budget is used, in words."""
    budget = view.spec.budget
    ended = sum(trial.state.is_end for trial in view.trials)
    parts = [f"{ended} of {view.most_trials} trials", f"training {format_seconds(view.trained_s)}"]
    if view.spec.resources.gpu or budget.gpu_hours:
        limit = limit_in_words(view.spec)
        parts.append(f"{view.gpu_hours:.3g} {f'of {limit}' if limit else unit(view.spec)}")
    if energy := energy_in_words(view.energy_j, view.spec):
        parts.append(energy)
    limit = f" of {format_seconds(3600 * budget.wall_hours)}" if budget.wall_hours else ""
    parts.append(f"{format_seconds(view.driven_s)}{limit} by the clock")
    return ", ".join(parts)


def forecast_line(view: SweepView) -> str:
    """Return how long the whole sweep is expected to take, in words; empty if nothing is known."""
    expected = forecast_sweep(view)
    if expected is None:
        ended = sum(trial.state.is_end for trial in view.trials)
        goes_on = bool(view.reports) and ended < view.most_trials
        return no_forecast(view.spec.with_trials(view.most_trials)) if goes_on else ""
    low, _, high = (format_seconds(seconds) for seconds in expected.wall_s)
    hours = [s * view.spec.resources.gpus_or_one / 3600 for s in expected.held_s]
    ends = ", ".join(f"{name} {share:.0%}" for name, share in expected.ends_by.items())
    return (
        f"forecast of the whole (80 %): {low} to {high} by the clock, {hours[0]:.3g} to "
        f"{hours[2]:.3g} {unit(view.spec)}{cost_of_hours(view.spec, hours[0], hours[2])}; ended "
        f"by {ends}"
    )


def cost_of_hours(spec: SweepSpec, low: float, high: float) -> str:
    """Return what GPU-hours cost, in words; empty where the sweep has no limit of cost."""
    budget = spec.budget
    if budget.cost is None or budget.cost_per_gpu_hour is None:
        return ""
    few, many = (hours * budget.cost_per_gpu_hour for hours in (low, high))
    return f" (cost {few:.4g} to {many:.4g}, of {budget.cost:g})"


def no_forecast(spec: SweepSpec) -> str:
    """Return what is known of a sweep that has too many trials to simulate: its bounds."""
    budget = spec.budget
    limits = [limit_in_words(spec)] if budget.limit_gpu_hours is not None else []
    if budget.wall_hours is not None:
        limits.append(f"{budget.wall_hours:g} hours by the clock")
    ends = [f"{budget.trials} trials of at most {spec.pruner.max_epochs} epochs", *limits]
    return (
        f"forecast: none, because {SIMULATION_S:g} s do not suffice to simulate so many trials; "
        f"it ends with {' or '.join(ends)}"
    )


def left_out(view: SweepView) -> str:
    """Return which trials a stopped sweep has not started or not finished, in words."""
    never, stopped = view.left_out
    parts = [f"{never} trials never started"] if never else []
    if stopped:
        named = [f"trial {n} after epoch {e}" for n, e in list(stopped.items())[:FEW]]
        named += [f"{len(stopped) - FEW} more"] if len(stopped) > FEW else []
        parts.append(f"{len(stopped)} stopped on their way ({', '.join(named)})")
    return ", ".join(parts)


def next_steps(view: SweepView, home_flag: str = "") -> str:
    """Return what a person can do next with a sweep, as one line.

    Args:
        view: the sweep.
        home_flag: the option `--home`, with a space before it, as the person gave it; empty for
            the default home.
    """
    name = view.name
    if view.state == SweepStatus.RUNNING:
        return f"posetune show {name}{home_flag} again, or posetune ui{home_flag}"
    if view.waiting_requests:
        return _taking_up(view, home_flag)
    if view.state == SweepStatus.INTERRUPTED and view.target_reached:
        harder = "lower" if view.spec.objective.mode == "min" else "higher"
        return (
            f"posetune promote {name}{home_flag} --model MODEL; or, to search on, give "
            f"budget.target a {harder} value in the file, or none, and then the same command again"
        )
    if view.state == SweepStatus.INTERRUPTED and view.patience_over:
        return (
            f"posetune promote {name}{home_flag} --model MODEL; or, to search on, give "
            "budget.patience a higher number in the file, or none, and then the same command again"
        )
    if view.state == SweepStatus.INTERRUPTED:
        grow = " (raise its budget in the file first)" if "budget" in view.stopped else ""
        return f"the command that started it, again: it continues{grow}"
    if view.state == SweepStatus.FAILED:
        return "mend what the reasons above say, then sweep under another name"
    return (
        f"posetune report {name}{home_flag} --out {name}.html, "
        f"posetune promote {name}{home_flag} --model MODEL"
    )


def _taking_up(view: SweepView, home_flag: str) -> str:
    """Return the command that takes up what people want of a sweep without a driver."""
    kinds = dict.fromkeys(request.act.kind for request in view.waiting_requests)
    wanted = ", ".join(kinds)
    if any(isinstance(request.act, EditSweep) for request in view.waiting_requests):
        command = f"posetune sweep NEWFILE --name {view.name}{home_flag}, with the edit's file"
    else:
        command = "the command that started it, again"
    return f"{command}: it takes up what waits for a driver ({wanted})"


def _changes(view: SweepView) -> RenderableType:
    """Return the best trial's parameters where they are not the defaults."""
    changes = changed_params(view)
    if view.best is None or view.best.number == 0:
        return Text("")
    if not changes:
        return Text(f"trial {view.best.number} has the defaults' parameters")
    table = Table("parameter", "default", f"trial {view.best.number}", box=SIMPLE)
    for name, (default, value) in changes.items():
        table.add_row(name, format_value(default), format_value(value))
    return table


def _best_of(view: SweepView) -> str:
    """Return a sweep's best value and its trial in words."""
    best = view.best
    if best is None or best.chosen is None:
        return "-"
    return f"{format_measure(best.chosen.value)} (trial {best.number})"


def sweep_list(views: list[SweepView]) -> Table:
    """Return a table with one row per sweep, for a terminal."""
    table = Table("sweep", "state", "trials", "best", "objective", "store", box=SIMPLE)
    for view in views:
        table.add_row(
            view.name,
            Text(view.state, STATE_STYLES.get(view.state, "")),
            f"{sum(t.state.is_end for t in view.trials)}/{view.most_trials}",
            _best_of(view),
            view.spec.objective.metric,
            view.store,
        )
    return table


def _comparison(view: SweepView) -> Table:
    """Return a table of the best trial and the trivial baselines, the best value first."""
    best = view.best
    rows = [(f"baseline: {name}", value) for name, value in view.baselines.items()]
    if best is not None and best.chosen is not None:
        after = count_epochs(best.chosen.epoch)
        rows.append((f"best: trial {best.number} after {after}", best.chosen.value))
    default = next((t for t in view.trials if t.number == 0), None)
    if default is not None and default is not best and default.chosen is not None:
        after = count_epochs(default.chosen.epoch)
        rows.append((f"defaults: trial 0 after {after}", default.chosen.value))
    table = Table(f"{view.spec.objective.metric} on validation", "value", box=SIMPLE)
    for name, value in sorted(rows, key=lambda row: view.spec.objective.sign * row[1]):
        style = "bold" if name.startswith("best") else ""
        table.add_row(Text(name, style), Text(format_measure(value, 1), style))
    return table


def _importance(view: SweepView) -> RenderableType:
    """Return a table of the parameters by importance, which names the trials and the epoch."""
    found = param_importance(view)
    if not found.params:
        return Text(f"importance of the parameters: nothing to say yet ({found.reason})")
    compared = f"over {found.trials} trials after {count_epochs(found.epoch)}"
    table = Table("parameter", f"importance, {compared}", box=SIMPLE)
    for name, share in found.params.items():
        table.add_row(name, f"{share:.0%}")
    return table


def _companions(view: SweepView) -> RenderableType:
    """Return the other metrics of the best trial on validation, so that no number stands alone."""
    objective = view.spec.objective.metric
    shown = {n: v for n, v in view.best_metrics.items() if n.startswith("val/") and n != objective}
    if not shown or view.best is None:
        return Text("")
    values = ", ".join(
        f"{name.removeprefix('val/')} {'-' if value is None else format(value, '.4g')}"
        for name, value in shown.items()
    )
    return Text(f"trial {view.best.number} also has on validation: {values}")
