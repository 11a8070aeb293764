"""The steps of a part of a stage are each taken once, however often it is broken off."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from posetune.api import Progress, silent
from posetune.stages.work import KeptWork
from posetune.storage import open_storage
from selfpose.training.checkpoint import TrainingState
from selfpose.training.stages.part import StagePart


class Stop(BaseException):
    """As if the trial were told to stop."""


def stop_at(step: int) -> Progress:
    def progress(done: int, total: int, note: str = "") -> None:
        if done == step:
            raise Stop

    return progress


def run(folder: Path, progress: Progress, *, every_s: float = 3600) -> list[float]:
    """Take seven steps; return the numbers of all that lasts, in order."""
    taken = torch.zeros(7)

    def step(number: int) -> None:
        taken[number] += 1 + number

    work = KeptWork(open_storage(folder), "work", every_s=every_s)
    state = TrainingState({}, {}, {}, {"taken": taken})
    StagePart("a", progress, work).run(step, steps=7, state=state, told_every=2)
    return list(taken)


def test_a_step_after_which_it_was_told_to_stop_is_not_taken_again(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path, stop_at(4))
    state = next((tmp_path / "work" / "a").glob("*/files/state.json"))
    assert state.read_text() == '{"steps": 5}'

    assert run(tmp_path, silent) == [1, 2, 3, 4, 5, 6, 7]
    assert run(tmp_path, stop_at(6)) == [1, 2, 3, 4, 5, 6, 7], "nothing was left to do"


def test_what_is_told_is_how_many_steps_are_done_and_the_loss(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    part = StagePart("a", lambda *said: told.append(said), KeptWork(open_storage(tmp_path), "w"))
    part.run(
        lambda number: torch.tensor(number / 4),
        steps=5,
        state=TrainingState({}, {}, {}),
        note="loss {:.2f}",
        told_every=4,
    )

    assert told == [(0, 5, "loss 0.00"), (4, 5, "loss 1.00")]
