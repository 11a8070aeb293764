"""Trains a sweep's best trials again with further seeds, so that luck picks no winner.

The best of many trials is partly the luckiest, while a mean over seeds is hardly a matter of luck.
So the finalists' means decide which trial is promoted; its own weights are promoted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from posetune.api import BadInputError, Progress, Trainable, silent
from posetune.home import Home
from posetune.promotion.judging.gate import Finalist
from posetune.spec.sweep import SweepSpec
from posetune.storage import open_folder
from posetune.storage.digest import digest_json
from posetune.study.search.seeding import seed_for
from posetune.study.states import TrialState
from posetune.study.view import SweepView, TrialView
from posetune.trial.single import (
    SingleEpoch,
    SingleTrial,
    forget_single,
    read_epochs,
    train_single,
)

__all__ = ["FINALISTS", "finalist_values", "retrain_finalists"]

FINALISTS = 3
"""Number of trials that are trained again, the best ones on validation."""


def retrain_finalists(
    view: SweepView,
    home: Home,
    *,
    trainable: type[Trainable],
    seeds: int,
    store: str,
    progress: Progress = silent,
) -> list[Finalist]:
    """Train the best complete trials again, one after the other in this process.

    A call that was broken off is continued by the same call.

    Args:
        view: the sweep.
        home: where storage is.
        trainable: the class that the sweep file names.
        seeds: number of further trainings of each finalist.
        store: address of the sweep's data.
        progress: hears how far each training is, and which one it is.

    Returns:
        The finalists, the best mean first; those whose mean is not finite come last.

    Raises:
        BadInputError: no trial is complete, the data is not the sweep's, or no finalist has a
            finite mean.
    """
    trials = [t for t in view.promotable if t.state == TrialState.COMPLETE][:FINALISTS]
    if not trials:
        raise BadInputError(
            f"sweep {view.name}: has no complete trial to train again; give --seeds 0, or "
            "continue the sweep"
        )
    if trainable.describe_store(open_folder(store)).digest != view.store_digest:
        raise BadInputError(
            f"{store}: is not the data of sweep {view.name}; give the address of that with --store"
        )
    found = []
    for trial in trials:
        assert trial.chosen is not None  # else it is not ranked
        values = [trial.chosen.value]
        for k in range(1, seeds + 1):
            single = _single(view, trial, home=home, store=store, number=k)
            told = _titled(progress, f"trial {trial.number}, seed {k} of {seeds}")
            values.append(_value(single, trainable, told))
        found.append(Finalist(trial.number, tuple(values)))
    if not any(finalist.is_finite for finalist in found):
        named = ", ".join(str(finalist.trial) for finalist in found)
        raise BadInputError(
            f"sweep {view.name}: trained again with other seeds, trials {named} reported values "
            "that are not finite, so none is chosen; name one with --trial"
        )
    sign = view.spec.objective.sign
    return sorted(found, key=lambda f: (not f.is_finite, sign * f.mean if f.is_finite else 0.0))


def finalist_values(view: SweepView, home: Home) -> tuple[tuple[float, ...], ...]:
    """Return what finalists of a sweep came to, as far as they were trained; nothing is trained.

    Args:
        view: the sweep.
        home: where its finalists were trained.

    Returns:
        The finite values of each finalist that has more than one: its own, and those of other
        seeds.
    """
    if not (home.folder / "finalists").is_dir():
        return ()
    found = []
    for trial in view.promotable[:FINALISTS]:
        if trial.state != TrialState.COMPLETE or trial.chosen is None:
            continue
        values = [trial.chosen.value]
        for number in itertools.count(1):
            single = _single(view, trial, home=home, store=view.store, number=number)
            if not single.record.exists():
                break
            epochs = read_epochs(single)
            if len(epochs) == single.spec.pruner.max_epochs:
                values.append(_selected(epochs, single.spec))
        finite = tuple(value for value in values if math.isfinite(value))
        if len(finite) > 1:
            found.append(finite)
    return tuple(found)


def _titled(progress: Progress, title: str) -> Progress:
    """Return a `Progress` that puts the title of a training before each note."""
    return lambda done, total, note="": progress(done, total, f"{title} {note}")


def _single(
    view: SweepView, trial: TrialView, *, home: Home, store: str, number: int
) -> SingleTrial:
    spec = view.spec.up_to(trial.last_epoch)
    what: list[Any] = [spec.trainable, spec.fixed, trial.params, view.store_digest]
    if spec != view.spec:  # a person has extended it
        what.append(trial.last_epoch)
    name = f"finalist-{view.name}-{trial.number}-{number}-{digest_json(what)[:12]}"
    return SingleTrial(
        name=name,
        spec=spec,
        params=trial.params,
        seed=seed_for(view.spec.sampler.seed, trial.number, f"finalist {number}"),
        store=store,
        store_digest=view.store_digest,
        storage=home.storage,
        record=home.folder / "finalists" / f"{name}.json",
    )


def _value(single: SingleTrial, trainable: type[Trainable], progress: Progress) -> float:
    """Return the objective at the epoch that counts of a training, which ran before or runs now.

    It is NaN if the training has no finite value there.
    """
    complete = single.spec.pruner.max_epochs
    if len(read_epochs(single)) < complete:
        train_single(single, trainable, progress=progress)
    if len(read_epochs(single)) < complete:  # an earlier posetune kept checkpoints alone
        forget_single(single)
        train_single(single, trainable, progress=progress)
    return _selected(read_epochs(single), single.spec)


def _selected(epochs: Sequence[SingleEpoch], spec: SweepSpec) -> float:
    """Return the value at the epoch that counts of a whole training; NaN where none is finite."""
    values = [float(epoch.metrics[spec.objective.metric]) for epoch in epochs]
    if spec.objective.select == "last":
        return values[-1]
    finite = [value for value in values if math.isfinite(value)]
    return spec.objective.best(finite) if finite else math.nan
