"""Shows a sweep as tables for people and as one JSON object for machines."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from posetune.report.importance import Importance, param_importance
from posetune.report.pruning import pruning_balance
from posetune.study.budget import unit
from posetune.study.forecasting.forecast import forecast_sweep
from posetune.study.states import SweepStatus, TrialState
from posetune.study.view import SweepView, TrialView

__all__ = [
    "as_json",
    "broken",
    "budget_used",
    "candidate_note",
    "changed_params",
    "count_epochs",
    "forecast_line",
    "format_params",
    "format_seconds",
    "left_out",
    "next_steps",
    "selection_note",
    "short_names",
    "sweep_list",
    "sweep_tables",
]

HEADER_CHARACTERS = 8
"""Number of characters up to which words share a line of a table's header."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
"""Stand for the parameters in a table that is too narrow for their names."""
FEW = 8
"""Number of trials that one line names; it counts the others."""
STATE_STYLES: dict[str, str] = {
    TrialState.COMPLETE: "green",
    TrialState.FAILED: "red",
    TrialState.INTERRUPTED: "yellow",
    TrialState.RUNNING: "cyan",
}


_FATES: dict[str, str] = {TrialState.PRUNED: "was cut", TrialState.FAILED: "failed"}
"""What became of a trial that did not reach the last rung, in words."""


def as_json(view: SweepView) -> dict[str, Any]:
    """Return the object that `posetune show NAME --json` prints."""
    best = view.best
    epoch, leaders = view.leaders
    found = param_importance(view)
    return {
        "name": view.name,
        "state": view.state,
        "stopped": view.stopped,
        "waits_for": view.waits_for,
        "objective": view.spec.objective.model_dump(),
        "budget": view.spec.budget.model_dump(),
        "trials": [_trial_json(trial) for trial in view.trials],
        "best": {**_trial_json(best), "metrics": view.best_metrics} if best else None,
        "best_among": {"epoch": epoch, "trials": leaders} if leaders else None,
        "importance": _importance_json(found),
        "baselines": view.baselines,
        "changed": {n: {"default": a, "best": b} for n, (a, b) in changed_params(view).items()},
        "used": {
            "trained_s": round(view.trained_s, 3),
            "gpu_hours": view.gpu_hours if view.spec.resources.gpu else 0.0,
            "trial_hours": round(sum(trial.held_s for trial in view.trials) / 3600, 6),
            "driven_s": round(view.driven_s, 3),
        },
        "left_out": view.left_out._asdict(),
        "forecast": _forecast_json(view),
        "stages": {
            name: {"trained": use.trained, "reused": use.reused}
            for name, use in view.stages.items()
        },
        "store": view.store,
        "store_digest": view.store_digest,
        "provenance": _without_diff_text(view.provenance),
    }


def _without_diff_text(provenance: dict[str, Any]) -> dict[str, Any]:
    diff = provenance.get("diff")
    if not isinstance(diff, dict):
        return provenance
    return {**provenance, "diff": {key: value for key, value in diff.items() if key != "text"}}


def _importance_json(found: Importance) -> dict[str, Any] | None:
    if not found.params:
        return None
    return {"epoch": found.epoch, "trials": found.trials, "params": dict(found.params)}


def _trial_json(trial: TrialView) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "params": trial.params,
        "epochs": trial.epochs,
        "value": trial.chosen.value if trial.chosen else None,
        "epoch": trial.chosen.epoch if trial.chosen else None,
        "last_value": trial.value,
        "mlflow_run_id": trial.mlflow_run_id,
        "seconds": round(trial.seconds, 3),
        "attempts": trial.attempts,
        "seed": trial.seed,
        "reason": trial.reason,
    }


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
        f"; {len(view.trials)} of {view.spec.budget.trials} trials: {states or 'none yet'}",
    )
    parts: list[RenderableType] = [
        head,
        Text(view.waits_for, "yellow"),
        _Leaderboard(view, most),
        _comparison(view),
        _companions(view),
        _changes(view),
        _importance(view),
        Text(str(pruning_balance(view))),
        Text(f"budget used: {budget_used(view)}"),
        Text(f"left out: {left_out(view)}" if left_out(view) else ""),
        Text(forecast_line(view)),
    ]
    if view.stages:
        shared = ", ".join(
            f"{name} trained {_times(use.trained)}, reused {use.reused}"
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
    parts = [f"{ended} of {budget.trials} trials", f"training {format_seconds(view.trained_s)}"]
    if view.spec.resources.gpu or budget.gpu_hours:
        limit = f" of {budget.gpu_hours:g}" if budget.gpu_hours else ""
        parts.append(f"{view.gpu_hours:.3g}{limit} {unit(view.spec)}")
    limit = f" of {format_seconds(3600 * budget.wall_hours)}" if budget.wall_hours else ""
    parts.append(f"{format_seconds(view.driven_s)}{limit} by the clock")
    return ", ".join(parts)


def forecast_line(view: SweepView) -> str:
    """Return how long the whole sweep is expected to take, in words; empty if nothing is known."""
    expected = forecast_sweep(view)
    if expected is None:
        return ""
    low, _, high = (format_seconds(seconds) for seconds in expected.wall_s)
    hours = [s * view.spec.resources.gpus_or_one / 3600 for s in expected.held_s]
    ends = ", ".join(f"{name} {share:.0%}" for name, share in expected.ends_by.items())
    return (
        f"forecast of the whole (80 %): {low} to {high} by the clock, {hours[0]:.3g} to "
        f"{hours[2]:.3g} {unit(view.spec)}; ended by {ends}"
    )


def _forecast_json(view: SweepView) -> dict[str, Any] | None:
    expected = forecast_sweep(view)
    if expected is None:
        return None
    factor = view.spec.resources.gpus_or_one / 3600
    return {
        "epochs": [expected.epochs.low, expected.epochs.high],
        "driven_s": [expected.wall_s.low, expected.wall_s.high],
        "hours": [expected.held_s.low * factor, expected.held_s.high * factor],
        "ends_by": expected.ends_by,
    }


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
    if view.state == SweepStatus.INTERRUPTED:
        grow = " (raise its budget in the file first)" if "budget" in view.stopped else ""
        return f"the command that started it, again: it continues{grow}"
    if view.state == SweepStatus.FAILED:
        return "mend what the reasons above say, then sweep under another name"
    return (
        f"posetune report {name}{home_flag} --out {name}.html, "
        f"posetune promote {name}{home_flag} --model MODEL"
    )


def _changes(view: SweepView) -> RenderableType:
    """Return the best trial's parameters where they are not the defaults."""
    changes = changed_params(view)
    if view.best is None or view.best.number == 0:
        return Text("")
    if not changes:
        return Text(f"trial {view.best.number} has the defaults' parameters")
    table = Table("parameter", "default", f"trial {view.best.number}", box=SIMPLE)
    for name, (default, value) in changes.items():
        table.add_row(name, _format_value(default), _format_value(value))
    return table


def count_epochs(count: int) -> str:
    """Return a number of epochs in words: `1 epoch`, `2 epochs`."""
    return "1 epoch" if count == 1 else f"{count} epochs"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def sweep_list(views: list[SweepView]) -> Table:
    """Return a table with one row per sweep, for a terminal."""
    table = Table("sweep", "state", "trials", "best", "objective", "store", box=SIMPLE)
    for view in views:
        best = view.best
        table.add_row(
            view.name,
            Text(view.state, STATE_STYLES.get(view.state, "")),
            f"{sum(t.state in ('COMPLETE', 'PRUNED', 'FAILED') for t in view.trials)}"
            f"/{view.spec.budget.trials}",
            f"{best.chosen.value:.2f} (trial {best.number})" if best and best.chosen else "-",
            view.spec.objective.metric,
            view.store,
        )
    return table


class _Leaderboard:
    """The trials of a sweep, ranked: a table that names the parameters in whole words.

    Where the names do not fit, letters stand for them and a legend above says which.
    """

    def __init__(self, view: SweepView, most: int) -> None:
        self._view, self._most = view, most

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        short = short_names(list(self._view.spec.search))
        table = self._table([broken(name) for name in short])
        unlimited = options.update(max_width=10_000)
        if Measurement.get(console, unlimited, table).maximum > options.max_width:
            keys = [f"{LETTERS[i % 26]}{i // 26 or ''}" for i in range(len(short))]
            pairs = zip(keys, short, strict=True)
            yield Text(f"parameters: {', '.join(f'{key} {name}' for key, name in pairs)}")
            table = self._table(keys)
        yield table
        yield Text(self._notes())

    def _table(self, parameters: list[str]) -> Table:
        view = self._view
        value = view.spec.objective.metric.rpartition("/")[2]
        table = Table(box=SIMPLE, padding=0, pad_edge=False)
        widths = {"trial": 5, "state": 8, "epochs": 6, value: 7, "at": 2, "time": 5}
        for name, width in widths.items():
            table.add_column(broken(name), min_width=width, overflow="fold")
        for header in parameters:
            table.add_column(header, min_width=5, overflow="fold")
        ranked = view.ranked
        places = {trial.number for trial in ranked}
        rest = [trial for trial in view.trials if trial.number not in places]
        for trial in [*ranked, *rest][: self._most]:
            at = trial.chosen
            table.add_row(
                str(trial.number),
                Text(trial.state, STATE_STYLES.get(trial.state, "")),
                f"{trial.epochs}/{view.spec.pruner.max_epochs}",
                *(("-", "-") if at is None else (f"{at.value:.2f}", str(at.epoch))),
                _clock(trial.seconds),
                *(_format_value(trial.params[name]) for name in view.spec.search),
            )
        return table

    def _notes(self) -> str:
        view, most = self._view, self._most
        epoch, leaders = view.leaders
        note = selection_note(view)
        notes = [note] if note else []
        if leaders:
            many = f"the first {leaders} are ranked by their values"
            one = "the first is ranked by its value"
            notes.append(f"{many if leaders > 1 else one} after {count_epochs(epoch)}")
        if len(view.trials) > most:
            notes.append(f"{len(view.trials) - most} more: posetune show {view.name} --all")
        return "; ".join(notes)


def selection_note(view: SweepView) -> str:
    """Return in words what flatters the best trial's value, and whether it is the candidate.

    Nothing flatters where the last epoch counts.
    """
    return "; ".join(note for note in (_flattery(view), candidate_note(view)) if note)


def candidate_note(view: SweepView) -> str:
    """Return in words why `promote` does not take the best trial; empty if it does."""
    best, candidate = view.best, view.candidate
    if best is None or best.chosen is None or candidate is None or candidate is best:
        return ""
    reasons = []
    if best not in view.promotable:
        fate = _FATES.get(best.state, f"stands at epoch {best.epochs}")
        value, epoch = best.chosen.value, best.chosen.epoch
        reasons.append(f"trial {best.number}'s {value:.2f} at epoch {epoch} {fate}")
    passed = view.promotable[: view.promotable.index(candidate)]
    if passed:
        named = ", ".join(str(trial.number) for trial in passed[:FEW])
        more = f" and {len(passed) - FEW} more" if len(passed) > FEW else ""
        reasons.append(
            f"the best checkpoint of trial {named}{more} is gone (`keep` in the sweep file says "
            "how many are kept)"
        )
    among = [f"reached epoch {view.last_rung}"] if view.last_rung else []
    among += ["has its checkpoint"] if passed else []
    takes = f"`promote` takes trial {candidate.number}, the best that {' and '.join(among)}"
    return "; ".join([*reasons, takes])


def _flattery(view: SweepView) -> str:
    best = view.best
    if view.spec.objective.select == "last" or best is None or best.chosen is None:
        return ""
    extreme = "minimum" if view.spec.objective.mode == "min" else "maximum"
    return (
        f"trial {best.number}'s {best.chosen.value:.2f} is the {extreme} over "
        f"{count_epochs(best.epochs)} on the frames of validation that a sweep looks at, so it "
        "flatters; `promote` measures on the whole validation split"
    )


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
        table.add_row(Text(name, style), Text(f"{value:.1f}", style))
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


def short_names(names: list[str]) -> list[str]:
    """Return the shortest endings of dotted names that are different from each other."""
    parts = [name.split(".") for name in names]
    for length in range(1, max(map(len, parts), default=1) + 1):
        short = [".".join(part[-length:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return names


def broken(header: str) -> str:
    """Break a header between its words, so that no terminal breaks it inside of one."""
    lines = [""]
    for word in header.replace("_", "_ ").split():
        if lines[-1] and len(lines[-1] + word.rstrip("_")) > HEADER_CHARACTERS:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip("_") for line in lines)


def format_params(params: dict[str, Any]) -> str:
    """Return parameters as `name=value` in one line, with short names and rounded values."""
    short = short_names(list(params))
    return " ".join(f"{n}={_format_value(v)}" for n, v in zip(short, params.values(), strict=True))


def _format_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def format_seconds(seconds: float) -> str:
    """Return a duration in words, in its one or two largest units, e.g. `10 min 35 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
