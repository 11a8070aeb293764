"""Measures candidates on the whole validation split, before a test split is opened.

A sweep looks at some frames of validation only, and the best of many epochs is partly the luckiest.
So the best and the last epoch of each finalist are measured again on all frames; of the candidate,
the epoch that is better there is promoted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from posetune.api import BadInputError, Progress, Trainable
from posetune.spec.sweep import Objective
from posetune.storage import Storage, open_folder
from posetune.study.view import SweepView, TrialView
from posetune.trial.exported import ExportedModel, verified_model

__all__ = ["Measured", "Validation", "choose_epoch"]


@dataclass(frozen=True)
class Measured:
    """Holds an epoch's value on the trial's validation frames and on the whole split."""

    trial: int
    """Number of the trial."""
    epoch: int
    """The epoch."""
    value: float | None
    """Objective that the trial reported then, on the frames that a sweep looks at."""
    whole_value: float | None
    """Objective on the whole validation split; None if it was not measured or is not finite."""


@dataclass(frozen=True)
class Validation:
    """Exports and measures the epochs of a sweep's trials."""

    storage: Storage
    """Where the sweep's checkpoints are."""
    view: SweepView
    """The sweep."""
    trainable: type[Trainable]
    """The class that the sweep file names."""
    store: str
    """Address of the sweep's data on this machine."""
    progress: Progress
    """Hears how far the evaluations are."""

    @cached_property
    def missing(self) -> str:
        """Why the whole split cannot be measured here; empty if it can."""
        try:
            found = self.trainable.describe_store(open_folder(self.store)).digest
        except BadInputError as error:
            return f"not known: {error}"
        is_same = found == self.view.store_digest
        return "" if is_same else "not known: the data at hand is not the sweep's"

    @contextmanager
    def models(
        self, trial: TrialView, epoch: int | None = None
    ) -> Iterator[list[tuple[ExportedModel, Measured]]]:
        """Give the models of a trial's best and last epoch, and what each came to.

        The epoch that counts (`objective.select`) comes first; where the last one counts, it is the
        only one.

        Args:
            trial: the trial.
            epoch: the only epoch to look at; None takes those.

        Raises:
            BadInputError: the checkpoint of an epoch is not kept, is missing or damaged.
        """
        with ExitStack() as stack:
            models = [
                stack.enter_context(
                    verified_model(
                        self.storage,
                        self.view,
                        trial,
                        trainable=self.trainable,
                        epoch=one,
                        store=self.store,
                        progress=self.progress,
                    )
                )
                for one in (_epochs(self.view.spec.objective, trial) if epoch is None else [epoch])
            ]
            yield [(model, self._measure(trial, model)) for model in models]

    def _measure(self, trial: TrialView, model: ExportedModel) -> Measured:
        then = [
            report.value
            for report in self.view.reports
            if (report.trial, report.epoch) == (trial.number, model.epoch)
        ]
        whole = None
        if not self.missing:
            folder: Path = open_folder(self.store)
            found = self.trainable.evaluate(model.folder, folder, "val", self.progress)
            measured = found.metrics.get(self.view.spec.objective.metric)
            whole = measured if measured is not None and math.isfinite(measured) else None
        return Measured(trial.number, model.epoch, then[0] if then else None, whole)


def _epochs(objective: Objective, trial: TrialView) -> list[int | None]:
    """Return the epoch that counts (None), and the last one if it is another and is kept."""
    epochs: list[int | None] = [None]
    is_other = trial.chosen is not None and trial.chosen.epoch != trial.epochs
    if objective.select == "best" and is_other and trial.checkpoint_of(trial.epochs) is not None:
        epochs.append(trial.epochs)
    return epochs


def choose_epoch(
    objective: Objective, models: Sequence[tuple[ExportedModel, Measured]]
) -> tuple[ExportedModel, Measured]:
    """Return the one that is best on the whole split; the first if none is known or all are equal.

    An epoch whose value is known is better than one whose value is not, e.g. because it is NaN.
    """
    chosen = models[0]
    for other in models[1:]:
        one, two = chosen[1].whole_value, other[1].whole_value
        if two is not None and (one is None or objective.better(two, one)):
            chosen = other
    return chosen
