from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from posetune.api import BadInputError
from selfpose import evaluation
from selfpose.config import LiftingConfig, SelfPoseConfig
from selfpose.data.shards import Shard, write_shard
from selfpose.data.store import Metadata, open_store, write_metadata
from selfpose.evaluation import evaluate_exported
from selfpose.figures import SheetRow
from selfpose.inference import build_model, export_model
from selfpose.metrics import METRICS
from selfpose.skeleton import H36M_17, Layout

SIZE = 32
PNG = b"\x89PNG\r\n"


def write_rows(root: Path, name: str, rows: int) -> tuple[Shard, ...]:
    """Noisy people 4 m away; the first two bytes of an image are its row."""
    generator = np.random.default_rng(rows)
    shape = np.random.default_rng(7).normal(scale=300.0, size=(17, 3))
    poses = shape + generator.normal(scale=60.0, size=(rows, 17, 3)) + np.array([0, 0, 4000.0])
    index = np.arange(rows, dtype=np.int32)
    images = generator.integers(40, 90, (rows, SIZE * SIZE * 3), dtype=np.uint8)
    images[:, 0], images[:, 1] = index // 256, index % 256
    joints_2d = 4 * poses[..., :2] / poses[..., 2:]
    columns = {
        "joints_2d": joints_2d.reshape(rows, -1).astype(np.float32),
        "joints_3d": poses.reshape(rows, -1).astype(np.float32),
        "image": images,
        "activity": index % 2,
        "subject": index // 20,
        "motion": index // 10,
        "camera": index % 4,
        "frame": index % 10,
    }
    return (write_shard(root, f"{name}/00000.arrow", columns),)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    train, test = write_rows(root, "train", 60), write_rows(root, "test", 47)
    metadata = Metadata(
        format="test",
        layout=H36M_17.name,
        joints=H36M_17.joints,
        limbs=H36M_17.limbs,
        image_size=SIZE,
        activities=("Walking", "Sitting"),
        subjects=("A", "B", "C"),
        motions=("a", "b", "c", "d", "e", "f"),
        licence="none",
        seed=0,
        made_from={},
        shards={"train": train, "prior": (), "val": (), "test": test},
    )
    write_metadata(root, metadata)
    return root


class AllKnowing:
    """Reads an image's row from its first pixel, and lifts a true 2D pose to the true 3D pose."""

    image_size = SIZE
    config = SimpleNamespace(mode="complete")
    layout = H36M_17
    joint_names: Sequence[str] = H36M_17.joints

    def __init__(self, store: Path, factors: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
        self.rows = open_store(store).split("test")
        self.factors = np.array(factors) / 300.0

    def joints_2d(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        index = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]
        return self.rows.joints_2d[index]

    def lift(self, joints_2d: NDArray[np.float32]) -> NDArray[np.float32]:
        row_of = {pose.tobytes(): row for row, pose in enumerate(self.rows.joints_2d)}
        poses = self.rows.joints_3d[[row_of[pose.tobytes()] for pose in joints_2d]]
        return ((poses - poses[:, :1]) * self.factors).astype(np.float32)


def test_a_perfect_model_is_perfect_on_every_row(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "load_model", lambda _: AllKnowing(store))
    monkeypatch.setattr(evaluation, "_ROWS_AT_ONCE", 7)
    told: list[tuple[int, int]] = []

    result = evaluate_exported(
        Path("exported"), store, "test", lambda done, total, note="": told.append((done, total))
    )

    assert set(result.metrics) == {name.replace("val/", "test/") for name in METRICS}
    for name in ("p_mpjpe_mm", "n_mpjpe_mm", "error_2d_px", "lifted_true_mm"):
        assert result.metrics[f"test/{name}"] == pytest.approx(0.0, abs=1e-3)
    assert told == [(done, 47) for done in (7, 14, 21, 28, 35, 42, 47)]
    assert result.pictures["poses.png"].startswith(PNG)


def test_records_say_where_each_error_comes_from(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "load_model", lambda _: AllKnowing(store, (1.0, 1.0, -1.0)))

    result = evaluate_exported(Path("exported"), store, "test")

    rows = open_store(store).split("test")
    for name in ("activity", "subject", "motion", "camera", "frame"):
        np.testing.assert_array_equal(result.records[name], getattr(rows, name))
    assert result.records["p_mpjpe_mm"].mean() == pytest.approx(
        result.metrics["test/p_mpjpe_frame_mm"]
    )
    assert result.records["p_mpjpe_mm"].min() > 30.0
    assert result.records["p_mpjpe_mirrored_mm"].max() < 1e-2


def test_baselines_are_those_of_the_same_rows(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "load_model", lambda _: AllKnowing(store, (1.0, 1.0, -1.0)))

    result = evaluate_exported(Path("exported"), store, "test")

    baselines, metrics = result.baselines, result.metrics
    assert baselines["depth_flipped_truth"] == pytest.approx(metrics["test/p_mpjpe_mm"], abs=1e-3)
    assert baselines["flat_depth_true_2d"] == pytest.approx(metrics["test/flat_predicted_mm"])
    assert 20.0 < baselines["mean_shape"] < baselines["depth_flipped_truth"]


def test_the_sheet_shows_best_median_worst_and_random_rows_of_different_motions(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[SheetRow] = []

    def draw_nothing(rows: Sequence[SheetRow], *, layout: Layout) -> bytes:
        shown.extend(rows)
        return PNG

    monkeypatch.setattr(evaluation, "load_model", lambda _: AllKnowing(store, (1.0, 1.0, 0.0)))
    monkeypatch.setattr(evaluation, "draw_sheet", draw_nothing)

    error = evaluate_exported(Path("exported"), store, "test").records["p_mpjpe_mm"]

    rows = open_store(store).split("test")
    index = [int((rows.joints_2d == row.joints_2d_j2).all(axis=(1, 2)).argmax()) for row in shown]
    kinds = [row.label.split("\n")[0] for row in shown]
    assert kinds == ["best", "best", "median", "median", "worst", "worst", "random", "random"]
    assert error[index[0]] == error.min()
    assert error[index[2]] == pytest.approx(np.median(error))
    assert error[index[4]] == error.max()
    for first, second in zip(index[::2], index[1::2], strict=True):
        assert rows.motion[first] != rows.motion[second]
    for i, row in zip(index, shown, strict=True):
        assert row.label.endswith(("Walking", "Sitting")[rows.activity[i]])
        assert row.image_ss3 is not None
        assert row.image_ss3[0, 0, 1] == i


@pytest.mark.parametrize("mode", ["complete", "lifting"])
def test_an_exported_model_is_evaluated(store: Path, tmp_path: Path, mode: str) -> None:
    config = SelfPoseConfig.model_validate(
        {"mode": mode, "image_size": SIZE, "width": 4, "lifting": LiftingConfig(width=16)}
    )
    torch.manual_seed(0)
    export_model(build_model(config, H36M_17, h=0.4), config, tmp_path)

    result = evaluate_exported(tmp_path, store, "test")

    assert all(np.isfinite(value) for value in result.metrics.values())
    lifted = result.metrics["test/lifted_true_mm"]
    if mode == "lifting":
        assert result.metrics["test/error_2d_px"] == 0.0
        assert result.metrics["test/p_mpjpe_mm"] == pytest.approx(lifted)
    else:
        assert result.metrics["test/error_2d_px"] > 0.0
        assert result.metrics["test/p_mpjpe_mm"] != lifted


@pytest.mark.parametrize(
    ("split", "message"),
    [("prior", "2D poses only"), ("val", "no rows"), ("tset", "no split 'tset'")],
)
def test_a_split_that_cannot_be_evaluated_is_refused(store: Path, split: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        evaluate_exported(Path("exported"), store, split)


def test_a_model_of_another_layout_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand = SimpleNamespace(layout=SimpleNamespace(name="hand21"), joint_names=("wrist",))
    monkeypatch.setattr(evaluation, "load_model", lambda _: hand)

    with pytest.raises(BadInputError, match=r"hand21.*h36m17"):
        evaluate_exported(Path("exported"), store, "test")
