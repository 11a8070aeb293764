"""Finds the model that a command was given: in the registry, in a study, or in a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from posetune.api import BadInputError, Progress, Trainable, silent
from posetune.home import Home
from posetune.spec.registration import load_trainable
from posetune.storage import open_folder, open_storage

__all__ = ["FoundModel", "open_model"]

_TRIAL = re.compile(r"(?P<sweep>[A-Za-z0-9][A-Za-z0-9_.-]{0,63})/(?P<trial>\d+)")


@dataclass(frozen=True)
class FoundModel:
    """Holds an exported model, and says which one it is."""

    name: str
    """Exact name of the model, for people: a version, a trial or a folder."""
    folder: Path
    trainable: type[Trainable]


@contextmanager
def open_model(
    given: str,
    home: Home,
    trainable: str,
    *,
    store: str | None = None,
    is_moved: bool = False,
    progress: Progress = silent,
) -> Iterator[FoundModel]:
    """Find a model; a folder that holds a copy is removed at the end.

    Args:
        given: `models:/NAME@ALIAS`, `models:/NAME/NUMBER`, a folder (an exported model, or a
            checkpoint that holds one), or `SWEEP/TRIAL`. A folder comes before a trial.
        home: where the registry and the study are.
        trainable: whose model it is, where that is not known from a sweep.
        store: address of the data at hand. If it is the sweep's, the model of a trial is made with
            it, where it has to be made; otherwise with the data where the sweep had it.
        is_moved: whether `store` is where a person says that the sweep's data are now: then they
            are looked for nowhere else.
        progress: hears how far stages are that have to be built again for that.

    Raises:
        BadInputError: there is no such model, or it is damaged.
    """
    if given.startswith("models:/"):
        from posetune.promotion.models import fetch_uri

        with TemporaryDirectory(prefix="posetune-model-") as scratch:
            version, folder = fetch_uri(home, given, Path(scratch))
            yield FoundModel(version.uri, folder, load_trainable(trainable))
        return
    with open_storage(given).reading("") as path:
        if path is not None:
            inner = path / "model"
            name = open_storage(given).address
            yield FoundModel(name, inner if inner.is_dir() else path, load_trainable(trainable))
            return
    trial = _TRIAL.fullmatch(given)
    if trial is None:
        raise BadInputError(
            f"{given}: no such folder; give a folder that holds an exported model, SWEEP/TRIAL, "
            "models:/NAME@ALIAS or models:/NAME/NUMBER"
        )
    sweep, number = trial["sweep"], int(trial["trial"])
    with _open_trial(
        home, sweep, number, store=store, is_moved=is_moved, progress=progress
    ) as found:
        yield found


@contextmanager
def _open_trial(
    home: Home,
    sweep: str,
    number: int,
    *,
    store: str | None,
    is_moved: bool,
    progress: Progress,
) -> Iterator[FoundModel]:
    from posetune.study.reading import read_sweep
    from posetune.study.tables.database import open_database
    from posetune.trial.exported import verified_model

    view = read_sweep(open_database(home.database, create=False), sweep)
    trial = next((t for t in view.trials if t.number == number), None)
    if trial is None:
        raise BadInputError(
            f"{sweep}/{number}: there is no such trial; sweep {sweep} has {len(view.trials)}, "
            f"numbered from 0 (posetune show {sweep})"
        )
    of_sweep = load_trainable(view.spec.trainable)
    if store is not None and not is_moved:
        is_of_sweep = of_sweep.describe_store(open_folder(store)).digest == view.store_digest
        store = store if is_of_sweep else None
    with verified_model(
        home.storage, view, trial, trainable=of_sweep, store=store, progress=progress
    ) as model:
        yield FoundModel(f"{sweep}/{number} (epoch {model.epoch})", model.folder, of_sweep)
