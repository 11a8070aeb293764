"""Takes the steps of one part of a stage, and goes on where a killed attempt stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from posetune.api import Progress, StageWork
from selfpose.training.checkpoint import TrainingState, load_state, save_state

__all__ = ["StagePart"]


@dataclass(frozen=True)
class StagePart:
    """Describes one loop of steps: its name, who is told of its progress, where its state is."""

    name: str
    """Name of the part, different from those of the stage's other parts."""
    progress: Progress
    """Is called with the number of steps done and of all steps."""
    work: StageWork
    """Keeps the state between attempts."""

    def run(
        self,
        step: Callable[[int], Tensor | None],
        *,
        steps: int,
        state: TrainingState,
        note: str = "error {:.4f}",
        told_every: int = 50,
    ) -> None:
        """Take all steps, or those that earlier attempts have left.

        What `progress` raises passes, once the state is saved.

        Args:
            step: takes the step of a number, from 0, and returns its loss, (), if there is one to
                tell. It must change nothing that lasts but `state`.
            steps: number of steps.
            state: everything that a step changes.
            note: how the loss is told.
            told_every: number of steps from one call of `progress` to the next.
        """
        counters: dict[str, Any] = {"steps": 0}
        self.work.load(self.name, lambda folder: counters.update(load_state(state, folder)))
        for number in range(counters["steps"], steps):
            loss = step(number)
            try:
                if number % told_every == 0:
                    told = "" if loss is None else note.format(float(loss.detach()))
                    self.progress(number, steps, told)
            except BaseException:  # told to stop
                self._keep(state, number + 1)
                raise
            if self.work.due():
                self._keep(state, number + 1)
        self._keep(state, steps)

    def _keep(self, state: TrainingState, done: int) -> None:
        self.work.save(self.name, lambda folder: save_state(state, {"steps": done}, folder))
