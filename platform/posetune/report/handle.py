"""Gives a sweep's trials and reports to Python: `posetune.open(NAME)`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from posetune.home import Home
from posetune.study.tables import journal
from posetune.study.tables.database import open_database
from posetune.study.view import SweepView, read_sweep

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Sweep", "open_sweep"]


class Sweep:
    """Reads one sweep from its study; each call reads the study again."""

    def __init__(self, name: str, home: Home) -> None:
        """Open a sweep.

        Raises:
            BadInputError: there is no such sweep.
        """
        self.name = name
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


def open_sweep(name: str, home: str | os.PathLike[str] | None = None) -> Sweep:
    """Open a sweep by name.

    Args:
        name: name of the sweep.
        home: the home folder; None takes POSETUNE_HOME or, if that is not set, `runs`.

    Raises:
        BadInputError: there is no such sweep.
    """
    return Sweep(name, Home.resolve(None if home is None else Path(home)))
