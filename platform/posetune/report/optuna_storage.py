"""Writes a sweep as an Optuna study, for optuna-dashboard and Optuna's own tools."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from posetune.api import BadInputError
from posetune.home import sqlite_address
from posetune.storage.whole_files import writing_whole
from posetune.study.search.sampler import distributions
from posetune.study.states import TrialState
from posetune.study.view import SweepView, TrialView

__all__ = ["export_study"]

_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    TrialState.STOPPED: OptunaState.FAIL,
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.INTERRUPTED: OptunaState.RUNNING,
    TrialState.PAUSED: OptunaState.RUNNING,
}


def export_study(view: SweepView, address: str) -> str:
    """Write the sweep as an Optuna study of the same name.

    A new SQLite file gets its name when it is complete. In a database that exists already, a study
    that could not be written completely is deleted again.

    Args:
        view: the sweep.
        address: SQLAlchemy URL, e.g. `sqlite:///optuna.db`.

    Returns:
        The address without its password.

    Raises:
        BadInputError: the address cannot be used, or has a study of this name.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise BadInputError(
            f"--to {address}: is no database address; write sqlite:///FILE or postgresql://..."
        ) from error
    shown = url.render_as_string(hide_password=True)
    file = Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None
    try:
        if file is None or file.exists():
            _write(view, address)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            with writing_whole(file) as partial:
                _write(view, sqlite_address(partial))
    except optuna.exceptions.DuplicatedStudyError as error:
        raise BadInputError(
            f"--to {shown}: has a study {view.name!r} already; give another file, or delete it "
            f"there (optuna delete-study --study-name {view.name} --storage {shown})"
        ) from error
    except (SQLAlchemyError, NoSuchModuleError, ImportError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BadInputError(f"--to {shown}: cannot be written ({reason})") from error
    return shown


def _write(view: SweepView, address: str) -> None:
    storage = RDBStorage(address)
    try:
        study = optuna.create_study(
            study_name=view.name,
            storage=storage,
            direction=view.spec.objective.direction,
        )
        try:
            study.set_user_attr("posetune.store_digest", view.store_digest)
            study.add_trials(_trials(view))
        except BaseException:
            optuna.delete_study(study_name=view.name, storage=storage)
            raise
    finally:
        storage.engine.dispose()


def _trials(view: SweepView) -> list[FrozenTrial]:
    space = distributions(view.spec)
    values: dict[int, dict[int, float]] = {trial.number: {} for trial in view.trials}
    for report in view.reports:
        if report.value is not None:
            values[report.trial][report.epoch] = report.value
    trials = []
    for trial in view.trials:
        written = create_trial(
            state=_STATES[trial.state],
            value=trial.value if trial.state.has_value else None,
            params=dict(trial.params),
            distributions=dict(space),
            intermediate_values=values[trial.number],
            user_attrs=_attributes(trial),
        )
        # Optuna sets both to now; the dashboard's timeline needs the sweep's own times.
        written.datetime_start = datetime.fromtimestamp(trial.asked)
        written.datetime_complete = datetime.fromtimestamp(trial.ended) if trial.ended else None
        trials.append(written)
    return trials


def _attributes(trial: TrialView) -> dict[str, object]:
    return {
        "posetune.state": trial.state,
        "posetune.seed": trial.seed,
        "posetune.seconds": trial.seconds,
        "posetune.reason": trial.reason,
        "mlflow.run_id": trial.mlflow_run_id,
    }
