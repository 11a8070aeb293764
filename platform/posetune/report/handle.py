"""Gives a sweep to Python, to look at and to steer: `posetune.open(NAME)`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posetune.home import Home
from posetune.provenance import this_person
from posetune.study.acts.act import (
    Act,
    AddNote,
    ExtendTrial,
    HoldSweep,
    PinTrial,
    ReleaseSweep,
    RetryTrial,
    SetTag,
    StopTrial,
)
from posetune.study.acts.asking import Asked, ask, branch_of, edit_of, enqueue_of
from posetune.study.reading import read_sweep
from posetune.study.tables import journal
from posetune.study.tables.database import open_database
from posetune.study.view import SweepView

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Sweep", "open_sweep"]


class Sweep:
    """Reads one sweep from its study, and steers it; each call reads the study again.

    What steers it returns what has become of the request: `event` is the number of the event that
    it became, or None while it waits for a driver. What the sweep does not allow raises a
    `BadInputError`.
    """

    def __init__(self, name: str, home: Home) -> None:
        """Open a sweep.

        Raises:
            BadInputError: there is no such sweep.
        """
        self.name, self._home = name, home
        self._database = open_database(home.database, create=False)
        self.view()

    def view(self) -> SweepView:
        """Return everything about the sweep, ranked."""
        return read_sweep(self._database, self.name)

    def trials(self) -> pa.Table:
        """Return an Arrow table with one row per trial, best first; `.to_pandas()` converts it.

        The columns are the trial's state, epochs, seconds, seed and the like, and one for each
        searched parameter. `value` is the objective at `epoch`, the epoch that counts: the best or
        the last, as `objective.select` says.
        """
        import pyarrow as pa

        view = self.view()
        ranked = {trial.number for trial in view.ranked}
        rest = [trial for trial in view.trials if trial.number not in ranked]
        rows = [
            {
                "trial": trial.number,
                "state": trial.state,
                "epochs": trial.epochs,
                "value": trial.chosen.value if trial.chosen else None,
                "epoch": trial.chosen.epoch if trial.chosen else None,
                "last_value": trial.value,
                "seconds": trial.seconds,
                "seed": trial.seed,
                "audited_at": view.audited.get(trial.number),
                "reason": trial.reason,
                "mlflow_run_id": trial.mlflow_run_id,
                **trial.params,
            }
            for trial in [*view.ranked, *rest]
        ]
        return pa.Table.from_pylist(rows)

    def reports(self) -> pa.Table:
        """Return an Arrow table with one row per epoch of each trial and every reported metric."""
        import pyarrow as pa

        view = self.view()
        rows = []
        with self._database.reading() as connection:
            for trial in view.trials:
                for report in journal.read_metrics(connection, view.id, number=trial.number):
                    facts = {"trial": trial.number, "epoch": report.epoch}
                    rows.append({**facts, "seconds": report.seconds, **(report.metrics or {})})
        return pa.Table.from_pylist(rows)

    # -- steering ------------------------------------------------------------------------------

    def note(self, text: str, trial: int | None = None) -> Asked:
        """Write a note about the sweep, or about a trial."""
        return self._ask(AddNote(text=text, trial=trial))

    def tag(self, name: str, value: str | None = "", trial: int | None = None) -> Asked:
        """Give the sweep, or a trial, a tag; the value None takes it away."""
        return self._ask(SetTag(name=name, value=value, trial=trial))

    def stop(self, trial: int) -> Asked:
        """End a trial after the epoch that is under way; it can be taken up again."""
        return self._ask(StopTrial(trial=trial))

    def pin(self, trial: int) -> Asked:
        """Let an open trial run to its last epoch, whatever the pruner says."""
        return self._ask(PinTrial(trial=trial))

    def retry(self, trial: int) -> Asked:
        """Take up a failed or stopped trial again, from its last checkpoint that is kept."""
        return self._ask(RetryTrial(trial=trial))

    def extend(self, trial: int, epochs: int, **params: Any) -> Asked:
        """Let a complete or pruned trial train on, up to epoch `epochs`.

        With parameters, a new trial goes on from its last checkpoint with them.
        """
        if params:
            act = branch_of(self._database, self.name, trial, epochs=epochs, settings=params)
            return self._ask(act)
        return self._ask(ExtendTrial(trial=trial, epochs=epochs))

    def enqueue(self, **params: Any) -> Asked:
        """Choose parameters of the next trial; `**{"flow.depth": 8}` for dotted names.

        Fields that are not given have the values of trial 0.
        """
        return self._ask(enqueue_of(self._database, self.name, params))

    def hold(self) -> Asked:
        """Let every trial save and wait; its slots are free for others."""
        return self._ask(HoldSweep())

    def release(self) -> Asked:
        """Let the sweep go on that was held."""
        return self._ask(ReleaseSweep())

    def edit(self, file: str | os.PathLike[str]) -> Asked:
        """Give the sweep another file: its budget, bounds and rungs hold from now on."""
        return self._ask(edit_of(Path(file), self._home.folder))

    def _ask(self, act: Act) -> Asked:
        return ask(self._database, self.name, act, by=this_person())


def open_sweep(name: str, home: str | os.PathLike[str] | None = None) -> Sweep:
    """Open a sweep by name.

    Args:
        name: name of the sweep.
        home: the home folder; None takes POSETUNE_HOME or, if that is not set, `runs`.

    Raises:
        BadInputError: there is no such sweep.
    """
    return Sweep(name, Home.resolve(None if home is None else Path(home)))
