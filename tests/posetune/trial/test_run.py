"""A trial that is told to stop hands over what it has, and loses nothing."""

from __future__ import annotations

import dataclasses
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posetune.api import Progress, Stage, StageWork, TrialContext, TrialFailedError
from posetune.spec.sweep import Resources, SweepSpec
from posetune.stages.cache import StageCache, stage_key
from posetune.storage import open_storage
from posetune.storage.store_place import StorePlace
from posetune.testing.toy import STEPS, Toy
from posetune.trial.run import Assignment, HandOver, TrialRun


class Told:
    """Says yes at one of the questions, and counts them."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.asked = at, 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked == self.at


@pytest.fixture
def assignment(tmp_path: Path, toy_store: Path) -> Assignment:
    spec = SweepSpec.model_validate(
        {
            "trainable": "posetune.testing.toy:Toy",
            "objective": {"metric": "val/error_mm", "mode": "min"},
            "search": {"x": {"float": [0.01, 1]}},
            "pruner": {"max_epochs": 3},
            "budget": {"trials": 1},
        }
    )
    return Assignment(
        sweep="s",
        trial=0,
        attempt=1,
        seed=5,
        params={"x": 0.3},
        spec=spec,
        store=StorePlace(str(toy_store), Toy.describe_store(toy_store).digest),
        storage=open_storage(tmp_path / "storage"),
        checkpoints=(),
    )


def test_the_next_attempt_continues_within_the_epoch(assignment: Assignment) -> None:
    straight = TrialRun(Toy(), assignment)
    expected = [straight.next_epoch().metrics for _ in range(3)]
    told = Told(at=STEPS + 7)
    first = TrialRun(Toy(), assignment, told_to_stop=told)
    whole = first.next_epoch()
    with pytest.raises(HandOver):
        first.next_epoch()
    within = first.hand_over()
    assert within is not None
    assert (within.epoch, whole.checkpoint.partial_s) == (1, None)
    assert within.partial_s is not None
    counted = Told()
    second = TrialRun(
        Toy(),
        dataclasses.replace(assignment, attempt=2, checkpoints=(within, whole.checkpoint)),
        told_to_stop=counted,
    )
    found = [whole.metrics, *(second.next_epoch().metrics for _ in range(2))]
    assert found == expected
    assert counted.asked == 2 * STEPS - 6


def test_the_seconds_of_both_attempts_count(assignment: Assignment) -> None:
    slow = dataclasses.replace(assignment, params={"x": 0.3, "epoch_s": 0.5})
    first = TrialRun(Toy(), slow, told_to_stop=Told(at=1 + 6))
    with pytest.raises(HandOver):
        first.next_epoch()
    within = first.hand_over()
    assert within is not None
    second = TrialRun(Toy(), dataclasses.replace(slow, checkpoints=(within,)))
    assert second.next_epoch().seconds > 0.5


@pytest.mark.parametrize(("gpu", "share"), [(0, 1.0), (0.25, 0.25), (1, 1.0)])
def test_a_trial_knows_how_much_of_a_gpu_is_its_own(
    assignment: Assignment, monkeypatch: pytest.MonkeyPatch, gpu: float, share: float
) -> None:
    class Curious(Toy):
        def start(self, config: Any, context: TrialContext) -> None:
            assert context.gpu_share == share
            super().start(config, context)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    spec = assignment.spec.model_copy(update={"resources": Resources(gpu=gpu)})
    try:
        TrialRun(Curious(), dataclasses.replace(assignment, spec=spec))
    finally:
        tracemalloc.stop()  # the toy's device starts it


def test_a_trial_told_to_stop_while_it_trains_a_stage_leaves_the_stage_to_others(
    assignment: Assignment,
) -> None:
    class Patient(Toy):
        @classmethod
        def stages(cls, config: object, store: Path) -> list[Stage]:
            def build(folder: Path, progress: Progress, work: StageWork) -> None:
                for step in range(5):
                    progress(step, 5)
                (folder / "floor.json").write_text("0.1")

            return [Stage("floor", {}, [], 0, build)]

    with pytest.raises(HandOver):
        TrialRun(Patient(), assignment, told_to_stop=Told(at=3))
    assert list((assignment.storage.root / "stages" / "floor").iterdir()) == []
    assert TrialRun(Patient(), assignment).started.stages["floor"].trained


def test_a_stage_goes_on_where_a_trial_was_told_to_stop(assignment: Assignment) -> None:
    taken: list[int] = []

    class Careful(Toy):
        @classmethod
        def stages(cls, config: object, store: Path) -> list[Stage]:
            def build(folder: Path, progress: Progress, work: StageWork) -> None:
                found: list[int] = []
                work.load("steps", lambda state: found.append(int((state / "step").read_text())))
                for step in range(*found or [0], 5):
                    taken.append(step)
                    work.save("steps", lambda state: write(state / "step", str(len(taken))))
                    progress(step, 5)
                (folder / "floor.json").write_text("0.1")

            return [Stage("floor", {}, [], 0, build)]

    with pytest.raises(HandOver):
        TrialRun(Careful(), assignment, told_to_stop=Told(at=3))
    assert taken == [0, 1, 2]
    assert TrialRun(Careful(), assignment).started.stages["floor"].trained
    assert taken == [0, 1, 2, 3, 4]


def test_a_stage_is_built_on_its_own_number_of_threads(assignment: Assignment) -> None:
    before, seen = torch.get_num_threads(), []

    class Counting(Toy):
        @classmethod
        def stages(cls, config: object, store: Path) -> list[Stage]:
            def build(folder: Path, progress: Progress, work: StageWork) -> None:
                seen.append(torch.get_num_threads())
                (folder / "floor.json").write_text("0.1")

            return [Stage("floor", {}, [], 0, build)]

    resources = assignment.spec.resources.model_copy(update={"stage_cpu": before + 1.0})
    spec = assignment.spec.model_copy(update={"resources": resources})
    TrialRun(Counting(), dataclasses.replace(assignment, spec=spec))
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


def write(file: Path, text: str) -> None:
    file.write_text(text)


def test_a_trial_of_a_sweep_that_is_continued_stands_on_the_product_it_began_with(
    assignment: Assignment, toy_store: Path
) -> None:
    """The sweep used the product `before`, which today's code would build under another key."""
    (stage,) = Toy.stages(Toy.config_model.model_validate({"x": 0.3}), toy_store)
    cache = StageCache(assignment.storage)
    cache.obtain(stage, "before")
    cache.obtain(dataclasses.replace(stage, reads={"depth": 2}), "of-another-depth")
    keys = {"floor": ("of-another-depth", "before")}

    continued = dataclasses.replace(assignment, stage_keys=keys)
    found = TrialRun(Toy(), continued).started.stages["floor"]
    assert (found.key, found.trained) == ("before", False)

    of_today = stage_key(stage, assignment.store.digest)
    lost = dataclasses.replace(assignment, stage_keys={"floor": ("of-another-depth", "lost")})
    for asked in (assignment, lost):
        assert TrialRun(Toy(), asked).started.stages["floor"].key == of_today
    both = dataclasses.replace(assignment, stage_keys={"floor": ("before", of_today)})
    assert TrialRun(Toy(), both).started.stages["floor"].key == of_today


class Reporting(Toy):
    """Reports what a test says instead of its error; None leaves it out."""

    error: Any = None

    def epoch(self) -> dict[str, Any]:
        reported = {**super().epoch(), "val/error_mm": self.error}
        return {name: value for name, value in reported.items() if value is not None}


def test_a_metric_of_numpy_or_torch_arrives_as_a_float(assignment: Assignment) -> None:
    trainable = Reporting()
    trainable.error = np.float32(0.5)

    metrics = TrialRun(trainable, assignment).next_epoch().metrics

    assert metrics["val/error_mm"] == 0.5
    assert {type(value) for value in metrics.values()} == {float}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, r"epoch 1: epoch\(\) did not report val/error_mm; it reported train/step\. .*"),
        (np.ones(2), r"epoch 1: metric 'val/error_mm' is a numpy.ndarray of shape \(2,\); .*"),
    ],
)
def test_a_metric_that_is_missing_or_no_number_fails_the_trial_in_one_line(
    assignment: Assignment, error: Any, said: str
) -> None:
    trainable = Reporting()
    trainable.error = error

    with pytest.raises(TrialFailedError) as raised:
        TrialRun(trainable, assignment).next_epoch()
    assert re.fullmatch(said, str(raised.value))


def test_a_trainable_that_logs_to_mlflow_fails_in_one_line(assignment: Assignment) -> None:
    class Logging(Toy):
        def epoch(self) -> dict[str, Any]:
            import mlflow

            mlflow.log_metric("mine", 1.0)
            return dict(super().epoch())

    with pytest.raises(TrialFailedError, match=r"calls MLflow itself \(mlflow.log_metric\)"):
        TrialRun(Logging(), assignment).next_epoch()


def test_a_trial_that_goes_on_from_another_one_never_begins_anew(assignment: Assignment) -> None:
    parent = TrialRun(Toy(), assignment)
    saved = parent.next_epoch().checkpoint
    child = dataclasses.replace(assignment, trial=1, parent=0, checkpoints=(saved,))
    assert TrialRun(Toy(), child).epoch == 1
    assignment.storage.remove(saved.folder)
    with pytest.raises(TrialFailedError, match=f"is damaged or gone: {saved.folder}; "):
        TrialRun(Toy(), child)
