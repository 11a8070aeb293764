"""Trains a sweep's best trials again with further seeds, so that luck picks no winner.

The best of many trials is partly the luckiest, while a mean over seeds is hardly a matter of luck.
So the finalists' means decide which trial is promoted; its own weights are promoted.
"""

from __future__ import annotations

import json

from posetune.api import BadInputError, Progress, Trainable, silent
from posetune.home import Home
from posetune.promotion.gate import Finalist
from posetune.storage import open_folder
from posetune.storage.digest import digest_json
from posetune.storage.whole_files import write_whole
from posetune.study.seeding import seed_for
from posetune.study.states import TrialState
from posetune.study.view import SweepView, TrialView
from posetune.trial.single import SingleTrial, forget_single, train_single

__all__ = ["FINALISTS", "retrain_finalists"]

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
        The finalists, the best mean first.

    Raises:
        BadInputError: no trial is complete, or the data is not the sweep's.
    """
    trials = [t for t in view.ranked if t.state == TrialState.COMPLETE and t.value is not None][
        :FINALISTS
    ]
    if not trials:
        raise BadInputError(f"sweep {view.name}: has no complete trial to train again")
    if trainable.describe_store(open_folder(store)).digest != view.store_digest:
        raise BadInputError(f"{store}: is not the data of sweep {view.name}; name it with --store")
    found = []
    for trial in trials:
        values = [float(trial.value or 0.0)]
        for k in range(1, seeds + 1):
            single = _single(view, trial, home=home, store=store, number=k)
            told = _titled(progress, f"trial {trial.number}, seed {k} of {seeds}")
            values.append(_value(single, trainable, told))
        found.append(Finalist(trial.number, tuple(values)))
    return sorted(found, key=lambda finalist: view.spec.objective.sign * finalist.mean)


def _titled(progress: Progress, title: str) -> Progress:
    """Return a `Progress` that puts the title of a training before each note."""
    return lambda done, total, note="": progress(done, total, f"{title} {note}")


def _single(
    view: SweepView, trial: TrialView, *, home: Home, store: str, number: int
) -> SingleTrial:
    what = [view.spec.trainable, view.spec.fixed, trial.params, view.store_digest]
    name = f"finalist-{view.name}-{trial.number}-{number}-{digest_json(what)[:12]}"
    return SingleTrial(
        name=name,
        spec=view.spec,
        params=trial.params,
        seed=seed_for(view.spec.sampler.seed, trial.number, f"finalist {number}"),
        store=store,
        store_digest=view.store_digest,
        storage=home.storage,
        record=home.folder / "finalists" / f"{name}.json",
    )


def _value(single: SingleTrial, trainable: type[Trainable], progress: Progress) -> float:
    """Return the objective after the last epoch of a training, which ran before or runs now."""
    done = single.record.with_suffix(".value.json")
    if not done.exists():
        value = _train(single, trainable, progress)
        if value is None:  # a process was killed between the last checkpoint and this file
            forget_single(single)
            value = _train(single, trainable, progress)
        write_whole(done, json.dumps(value))
    return float(json.loads(done.read_text(encoding="utf-8")))


def _train(single: SingleTrial, trainable: type[Trainable], progress: Progress) -> float | None:
    """Return the objective after the last epoch; None if nothing was left to train."""
    values: list[float] = []
    metric = single.spec.objective.metric
    train_single(
        single,
        trainable,
        on_start=lambda _: None,
        on_epoch=lambda result: values.append(float(result.metrics[metric])),
        progress=progress,
    )
    return values[-1] if values else None
