"""A sweep from Python: `posetune.open(NAME)`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from posetune.home import Home
from posetune.study import journal
from posetune.study.database import open_database
from posetune.study.view import SweepView, read_sweep

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Sweep", "open_sweep"]


class Sweep:
    """A sweep as its study tells it, read anew at each call."""

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
        """Return one row per trial, best first: state, value, what it took, and its parameters.

        An Arrow table; `.to_pandas()` makes it a data frame.
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
                "value": trial.value,
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
        """Return one row per epoch of each trial, with every metric that was reported."""
        import pyarrow as pa

        view = self.view()
        rows = []
        with self._database.reading() as connection:
            for trial in view.trials:
                for row in journal.read_metrics(connection, view.id, number=trial.number):
                    facts = {"trial": trial.number, "epoch": row["epoch"]}
                    rows.append({**facts, "seconds": row["seconds"], **row["metrics"]})
        return pa.Table.from_pylist(rows)


def open_sweep(name: str, home: str | os.PathLike[str] | None = None) -> Sweep:
    """Open a sweep by name.

    Args:
        name: the sweep.
        home: the home folder (default: POSETUNE_HOME, or `runs`).

    Raises:
        BadInputError: there is no such sweep.
    """
    return Sweep(name, Home.resolve(None if home is None else Path(home)))
