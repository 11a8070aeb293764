"""Shows the trials of a sweep, ranked, and says what one should know of the first."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from posetune.report.wording import (
    broken,
    count_epochs,
    format_clock,
    format_measure,
    format_value,
    short_names,
)
from posetune.study.states import TrialState
from posetune.study.view import SweepView, TrialView

__all__ = ["FEW", "STATE_STYLES", "Leaderboard", "candidate_note", "selection_note"]


FEW = 8
"""Number of trials that one line names; it counts the others."""
STATE_STYLES: dict[str, str] = {
    TrialState.COMPLETE: "green",
    TrialState.FAILED: "red",
    TrialState.STOPPED: "magenta",
    TrialState.INTERRUPTED: "yellow",
    TrialState.PAUSED: "blue",
    TrialState.RUNNING: "cyan",
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
"""Stand for the parameters in a table that is too narrow for their names."""
_FATES: dict[str, str] = {
    TrialState.PRUNED: "was cut",
    TrialState.FAILED: "failed",
    TrialState.STOPPED: "was stopped",
}
"""What became of a trial that did not reach the last rung, in words."""


class Leaderboard:
    """Shows the trials of a sweep, ranked, as a table that names the parameters in whole words.

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
        if view.means:
            table.add_column("mean of its seeds", min_width=8, overflow="fold")
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
                f"{trial.epochs}/{trial.last_epoch}",
                *(("-", "-") if at is None else (format_measure(at.value), str(at.epoch))),
                format_clock(trial.seconds),
                *([_mean_of(view, trial)] if view.means else []),
                *(format_value(trial.params[name]) for name in view.spec.search),
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


def _mean_of(view: SweepView, trial: TrialView) -> str:
    """Return the mean of the trials with the same parameters, with its standard error."""
    found = view.means.get(trial.number - trial.number % view.spec.sampler.repeats)
    if found is None:
        return "-"
    error = "" if found.error is None else f" ± {found.error:.2f}"
    return f"{found.mean:.2f}{error} ({found.trials})"


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
        reasons.append(f"trial {best.number}'s {format_measure(value)} at epoch {epoch} {fate}")
    passed = view.promotable[: view.promotable.index(candidate)]
    if passed:
        named = ", ".join(str(trial.number) for trial in passed[:FEW])
        more = f" and {len(passed) - FEW} more" if len(passed) > FEW else ""
        reasons.append(
            f"the best checkpoint of trial {named}{more} is gone (the sweep file's key keep says "
            "how many are kept)"
        )
    among = [f"reached epoch {view.last_rung}"] if view.last_rung else []
    among += ["has its checkpoint"] if passed else []
    takes = f"posetune promote takes trial {candidate.number}, the best that {' and '.join(among)}"
    return "; ".join([*reasons, takes])


def _flattery(view: SweepView) -> str:
    best = view.best
    if view.spec.objective.select == "last" or best is None or best.chosen is None:
        return ""
    extreme = "minimum" if view.spec.objective.mode == "min" else "maximum"
    return (
        f"trial {best.number}'s {format_measure(best.chosen.value)} is the {extreme} over "
        f"{count_epochs(best.epochs)} on the frames of validation that a sweep looks at, so it "
        "flatters; posetune promote measures on the whole validation split"
    )
