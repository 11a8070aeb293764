"""Two processes that train one trial learn what one process learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file

from posetune.api import BadInputError, TrialContext
from posetune.spec.sweep import SweepSpec
from posetune.storage import open_storage
from posetune.storage.store_place import StorePlace
from posetune.trial.run import Assignment, EpochResult, HandOver, TrialRun
from selfpose.config import SelfPoseConfig
from selfpose.trainable import SelfPose
from selfpose.training.data_parallel import Team
from selfpose.training.trial import Trial

SMALL: dict[str, Any] = {
    "image_size": 32,
    "width": 4,
    "batch_size": 8,
    "steps_per_epoch": 3,
    "val_frames": 16,
    "learning_rate": 1e-4,
    "lifting.width": 16,
    "flow.depth": 2,
    "flow.hidden": 8,
    "flow.steps": 5,
    "flow.batch_size": 16,
}
COMPLETE = SMALL | {
    "lift_prior": 4,
    "pretrain_silhouette": 2,
    "keypoint.map_px": 8,
    "discriminator.width": 4,
    "discriminator.noise": 0.2,
    "loss_weights.silhouette": 1,
    "loss_weights.bone": 1,
}
READ = SMALL | {
    "pretrain_bodies": 2,
    "pretrain_pairs": 2,
    "pretrain_batch": 4,
    "distort_images": True,
    "silhouette_hue": 1,
    "renderer.side_coding": True,
    "keypoint.map_px": 8,
    "discriminator.width": 4,
    "loss_weights.read": 1,
    "loss_weights.silhouette": 1,
}
LIFTING = SMALL | {"mode": "lifting"}


@pytest.fixture
def assign(tiny_store: Path, tmp_path: Path) -> Any:
    def assigned(fixed: dict[str, Any], processes: int, gpu: int = 0) -> Assignment:
        spec = SweepSpec.model_validate(
            {
                "objective": {"metric": "val/p_mpjpe_mm", "mode": "min"},
                "search": {"flow.depth": {"choice": [2]}},
                "fixed": fixed,
                "pruner": {"max_epochs": 3},
                "resources": {"cpu": 1, "processes": processes, "gpu": gpu},
                "budget": {"trials": 1},
            }
        )
        digest = SelfPose.describe_store(tiny_store).digest
        storage = open_storage(tmp_path / "storage")
        where = {"store": StorePlace(str(tiny_store), digest), "storage": storage}
        return Assignment(f"by-{processes}-{gpu}", 0, 1, 3, {}, spec, checkpoints=(), **where)

    return assigned


class WithoutValidation(SelfPose):
    metrics: ClassVar = {"val/p_mpjpe_mm": SelfPose.metrics["val/p_mpjpe_mm"]}

    def epoch(self) -> dict[str, float]:
        return {"val/p_mpjpe_mm": 0.0, **self._trial.train(self._trial.context.progress)}

    def draw(self, folder: Path) -> None:
        pass


def state_after(result: EpochResult, assignment: Assignment) -> dict[str, torch.Tensor]:
    folder = Path(assignment.storage.where(result.checkpoint.folder))
    return load_file(folder / "state/state.safetensors")


def train(assignment: Assignment, epochs: int, *, told: Iterator[bool]) -> list[EpochResult]:
    run = TrialRun(WithoutValidation(), assignment, told_to_stop=lambda: next(told, False))
    results = []
    try:
        for _ in range(epochs):
            results.append(run.next_epoch())
    except HandOver:
        within = run.hand_over()
        assert within is not None
        run.close()
        records = tuple(reversed([*(r.checkpoint for r in results), within]))
        again = dataclasses.replace(assignment, attempt=2, checkpoints=records)
        return results + train(again, epochs - len(results), told=told)
    run.close()
    return results


@pytest.mark.slow
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    ("fixed", "stop_at"),
    [
        pytest.param(COMPLETE, 5, id="complete", marks=pytest.mark.long),
        pytest.param(READ, None, id="read", marks=pytest.mark.long),
        pytest.param(LIFTING, 5, id="lifting"),
    ],
)
def test_two_processes_learn_what_one_learns(
    fixed: dict[str, Any], stop_at: int | None, assign: Any
) -> None:
    alone, together = assign(fixed, 1), assign(fixed, 2)
    expected = train(alone, 2, told=iter([]))
    # Within the second epoch both stop; two others go on from what the first one saved.
    found = train(together, 2, told=(asked == stop_at for asked in count()))
    assert [r.checkpoint.attempt for r in found] == [1, 2 if stop_at else 1]
    for one, two in zip(expected, found, strict=True):
        assert two.metrics == pytest.approx(one.metrics, rel=1e-5)
        before, after = state_after(one, alone), state_after(two, together)
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            torch.testing.assert_close(after[name], tensor, rtol=1e-5, atol=1e-7)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two CUDA devices")
@pytest.mark.parametrize("fixed", [COMPLETE, READ, LIFTING], ids=["complete", "read", "lifting"])
def test_two_gpus_learn_what_one_learns(fixed: dict[str, Any], assign: Any) -> None:
    """Without bf16, to the rounding of float32 after one epoch; not run on GPUs yet."""
    exact = {**fixed, "bf16": False}
    alone = train(assign(exact, 1, 1), 1, told=iter([]))
    together = train(assign(exact, 2, 2), 1, told=iter([]))
    for one, two in zip(alone, together, strict=True):
        assert two.metrics == pytest.approx(one.metrics, rel=1e-2)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tiny_store: Path, tmp_path: Path) -> None:
    config = SelfPoseConfig.model_validate({"mode": "lifting", "batch_size": 9})
    with pytest.raises(BadInputError, match="batch_size: 9 cannot be shared evenly by 2"):
        Trial(config, TrialContext(tiny_store, 0, tmp_path, processes=2))


def test_every_row_is_in_one_share() -> None:
    whole = torch.arange(12).reshape(12, 1)
    shares = [Team(rank, 3).share(whole).flatten().tolist() for rank in range(3)]
    assert shares == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
