"""A model is evaluated: its scores, the baselines beside them, tables and pictures.

One idea, all that one evaluation gives, read off the same made-up stores, so it is long.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from posetune.api import BadInputError
from posetune.promotion.judging.gate import judge
from selfpose.config import LiftingConfig, SelfPoseConfig
from selfpose.data.metadata import Metadata, write_metadata
from selfpose.data.shards import Shard, write_shard
from selfpose.data.store import open_store
from selfpose.evaluation import evaluate, pictures
from selfpose.evaluation.evaluate import evaluate_exported
from selfpose.evaluation.figures import SheetRow
from selfpose.inference import build_model, export_model, load_model
from selfpose.method.metrics import METRICS, validation_metrics
from selfpose.method.skeleton import H36M_17, Layout

SIZE = 32
PNG = b"\x89PNG\r\n"


def write_rows(root: Path, name: str, rows: int, *, has_3d: bool = True) -> tuple[Shard, ...]:
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
    if not has_3d:
        del columns["joints_3d"]
    return (write_shard(root, f"{name}/00000.arrow", columns),)


def make_store(
    root: Path,
    *,
    format_: str = "test",
    activities: tuple[str, ...] = ("Walking", "Sitting"),
    has_3d: bool = True,
    motions: tuple[str, ...] = ("a", "b", "c", "d", "e", "f"),
    facts: Mapping[str, str] | None = None,
) -> Path:
    train, test = (
        write_rows(root, name, rows, has_3d=has_3d) for name, rows in (("train", 60), ("test", 47))
    )
    metadata = Metadata(
        format=format_,
        layout=H36M_17.name,
        joints=H36M_17.joints,
        limbs=H36M_17.limbs,
        image_size=SIZE,
        activities=activities,
        subjects=("A", "B", "C"),
        motions=motions,
        facts=facts or {},
        licence="none",
        seed=0,
        made_from={},
        shards={"train": train, "prior": (), "val": (), "test": test},
    )
    write_metadata(root, metadata)
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures out where only numbers are looked at."""
    monkeypatch.setattr(evaluate, "draw_pictures", lambda *_, **__: {})


@pytest.fixture
def small_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show one row of each kind and of each subject."""
    monkeypatch.setattr(pictures, "_OF_EACH_KIND", 1)
    monkeypatch.setattr(pictures, "_OF_EACH_SUBJECT", 1)


def exported(folder: Path, mode: str = "complete") -> Path:
    """An untrained model."""
    config = SelfPoseConfig.model_validate(
        {"mode": mode, "image_size": SIZE, "width": 4, "lifting": LiftingConfig(width=16)}
    )
    torch.manual_seed(0)
    export_model(build_model(config, H36M_17, h=0.4), config, folder)
    return folder


class AllKnowing:
    """Reads an image's row from its first pixel, and lifts a true 2D pose to the true 3D pose."""

    image_size = SIZE
    config = SimpleNamespace(mode="complete")
    layout = H36M_17
    trained_on: Mapping[str, str] = {}
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


@pytest.mark.slow
@pytest.mark.usefixtures("small_sheets")
def test_a_perfect_model_is_perfect_on_every_row(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "load_model", lambda _: AllKnowing(store))
    monkeypatch.setattr(evaluate, "_ROWS_AT_ONCE", 7)
    told: list[tuple[int, int]] = []

    result = evaluate_exported(
        Path("exported"), store, "test", lambda done, total, note="": told.append((done, total))
    )

    of_validation = {name.replace("val/", "test/") for name in METRICS}
    assert set(result.metrics) - of_validation == {"test/p_pck_150", "test/p_auc"}
    for name in ("p_mpjpe_mm", "n_mpjpe_mm", "error_2d_px", "lifted_true_mm"):
        assert result.metrics[f"test/{name}"] == pytest.approx(0.0, abs=1e-3)
    assert told == [(done, 47) for done in (7, 14, 21, 28, 35, 42, 47)]
    assert set(result.pictures) == {
        *("random.png", "poses.png", "distribution.png"),
        *("random_A.png", "random_B.png", "random_C.png"),
    }
    assert all(picture.startswith(PNG) for picture in result.pictures.values())


@pytest.mark.usefixtures("undrawn")
def test_metrics_are_those_of_validation(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AllKnowing(store, (1.0, 1.2, -0.7))
    monkeypatch.setattr(evaluate, "load_model", lambda _: model)

    found = evaluate_exported(Path("exported"), store, "test").metrics

    rows = open_store(store).split("test")
    poses = model.lift(rows.joints_2d)
    expected = validation_metrics(
        poses,
        rows.joints_3d,
        predicted_2d_nj2=rows.joints_2d,
        truth_2d_nj2=rows.joints_2d,
        lifted_true_nj3=poses,
        activity_n=rows.activity,
        motion_n=rows.motion,
        layout=H36M_17,
        image_size=SIZE,
    )
    for name, value in expected.items():
        assert found[name.replace("val/", "test/")] == pytest.approx(value), name


@pytest.mark.usefixtures("undrawn")
def test_every_average_has_an_interval_that_holds_it(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "load_model", lambda _: AllKnowing(store, (1.0, 1.2, -0.7)))

    result = evaluate_exported(Path("exported"), store, "test")

    assert set(result.intervals) == {*result.metrics, *result.baselines}
    for name, value in {**result.metrics, **result.baselines}.items():
        low, high = result.intervals[name]
        assert low <= value + 1e-9, name
        assert value <= high + 1e-9, name
    low, high = result.intervals["test/p_mpjpe_mm"]
    assert high - low > 1.0
    activity = result.details["averages"]["p_mpjpe_mm"]["activities"]["Sitting"]
    assert activity["low"] < activity["mean"] < activity["high"]
    assert result.details["activities"]["Walking"] == {"frames": 24, "motions": 5, "pooled": True}


@pytest.mark.usefixtures("undrawn")
def test_the_table_has_the_supplementarys_columns_and_its_rows_only_for_human36m(
    tmp_path: Path,
) -> None:
    model = exported(tmp_path)
    texts = {}
    for format_ in ("human36m", "mocap17"):
        (tmp_path / format_).mkdir()
        made = make_store(tmp_path / format_, format_=format_, activities=("Photo", "WalkDog"))
        texts[format_] = evaluate_exported(model, made, "test").tables

    ours, other = texts["human36m"]["activities.md"], texts["mocap17"]["activities.md"]
    names = "Dir. Disc. Eat Greet Phon. Photo Pose Purch. Sit SitD. Smoke Wait Walk WalkD WalkT"
    heads = [f"{name} (mm, P-aligned)" for name in (*names.split(), "Avg.")]
    head = f"| Method | Assumptions | {' | '.join(heads)} |"
    assert ours.splitlines().count(head) == other.splitlines().count(head) == 2
    assert "| Sosa & Hogg 2023 | Unp. 2D | 84.4 | 77.8 |" in ours
    assert "102.5 | 96.7 |" in ours
    assert "not the mean of its row, 115.9" in ours
    assert "Sosa" not in other
    table = list(csv.DictReader(texts["human36m"]["activities.csv"].splitlines()))
    (mine,) = (r for r in table if (r["method"], r["statistic"]) == ("this model", "mean"))
    shown = next(line for line in ours.splitlines() if line.startswith("| this model |"))
    assert f"{float(mine['Photo (mm, P-aligned)']):.1f}" == shown.split(" | ")[7]
    assert mine["Dir. (mm, P-aligned)"] == ""
    assert "| motions | | 0 | 0 | 0 | 0 | 0 | 5 |" in ours
    assert "pck.md" not in texts["human36m"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("drifted", ["S9/Greeting-2", "S9/SittingDown 1"])
def test_the_figure_is_given_with_and_without_shifted_sequences(
    drifted: str, tmp_path: Path
) -> None:
    names = ("S9/Walking-1", drifted, "S9/Eating-1", "S11/Eating-1", "S11/Walking-1", "S1/Eating-1")
    made = make_store(tmp_path, format_="human36m", motions=names)
    result = evaluate_exported(exported(tmp_path), made, "test")

    error, motion = result.records["p_mpjpe_mm"], result.records["motion"]
    means = result.details["without_drift"]["means"]["p_mpjpe_mm"]
    assert means["all"] == pytest.approx(error.mean())
    assert means["without"] == pytest.approx(error[motion != 1].mean())
    (note,) = result.notes
    assert f"{means['all']:.1f} mm with, {means['without']:.1f} mm without the 10 frames" in note
    assert "--exclude-drift" in note


@pytest.mark.usefixtures("undrawn")
def test_data_without_shifted_sequences_has_one_figure(tmp_path: Path) -> None:
    for number, format_ in enumerate(("human36m", "mpi_inf_3dhp")):
        names = ("S9/Greeting-1", "b", "c", "d", "e", "S9/Greeting-2" if number else "f")
        folder = tmp_path / format_
        folder.mkdir()
        made = make_store(folder, format_=format_, motions=names)
        result = evaluate_exported(exported(folder), made, "test")

        assert result.notes == []
        assert "without_drift" not in result.details


@pytest.mark.usefixtures("undrawn")
def test_a_scale_and_annotations_that_differ_from_the_training_data_are_named(
    tmp_path: Path,
) -> None:
    folder = exported(tmp_path)
    config = load_model(folder).config
    trained_on = {"format": "test", "scale": "real", "annotations": "annot3", "level": "plain"}
    trained_on["background"] = "remove"
    export_model(build_model(config, H36M_17, h=0.4), config, folder, trained_on)
    facts = {"scale": "universal", "annotations": "univ_annot3", "level": "rooms"}
    other = make_store(tmp_path, facts=facts)
    notes = evaluate_exported(folder, other, "test").notes

    assert notes == [
        "scale differs: the model was trained on real, and is evaluated on universal",
        "annotations differs: the model was trained on annot3, and is evaluated on univ_annot3",
        "background differs: the model was trained on remove, and is evaluated on keep",
    ]
    same = {"scale": "real", "annotations": "annot3", "background": "remove"}
    assert evaluate_exported(folder, make_store(tmp_path, facts=same), "test").notes == []


@pytest.mark.usefixtures("undrawn")
def test_every_head_of_a_column_says_unit_and_alignment(tmp_path: Path) -> None:
    names = ("Standing/Walking", "On The Floor")
    made = make_store(tmp_path, format_="mpi_inf_3dhp", activities=names)
    tables = evaluate_exported(exported(tmp_path), made, "test").tables

    about = {"method", "assumptions", "statistic", "activity", "frames", "motions"}
    about.add("joint")
    for name in ("activities.csv", "pck.csv", "joints.csv"):
        for head in set(next(csv.reader([tables[name].splitlines()[0]]))) - about:
            assert re.search(r"\bmm\b|\bpx\b|share", head), head
            assert "aligned" in head or head.startswith("mean 2D pose minus"), head


@pytest.mark.usefixtures("undrawn")
def test_joints_are_scored_one_by_one(tmp_path: Path) -> None:
    found = evaluate_exported(exported(tmp_path), make_store(tmp_path), "test")
    table = list(csv.DictReader(found.tables["joints.csv"].splitlines()))
    means = [line for line in table if line["statistic"] == "mean"]

    assert [line["joint"] for line in means] == list(H36M_17.joints)
    frame = found.details["averages"]

    def mean(head: str) -> float:
        return sum(float(line[head]) for line in means) / len(means)

    error_px = frame["error_2d_px"]["frame"]["mean"]
    gain_px = frame["mean_2d_pose_px"]["frame"]["mean"] - error_px
    assert mean("2D error (px, not aligned)") == pytest.approx(error_px, abs=1e-3)
    assert mean("mean 2D pose minus model (px)") == pytest.approx(gain_px, abs=1e-3)
    assert mean("3D error (mm, P-aligned)") == pytest.approx(
        frame["p_mpjpe_mm"]["frame"]["mean"], abs=1e-3
    )


@pytest.mark.usefixtures("undrawn")
def test_mpi_inf_3dhp_gets_a_table_of_pck_and_auc(tmp_path: Path) -> None:
    names = ("Standing/Walking", "On The Floor")
    made = make_store(tmp_path, format_="mpi_inf_3dhp", activities=names)

    result = evaluate_exported(exported(tmp_path), made, "test")

    lines = result.tables["pck.md"].splitlines()
    heads = [f"{name} (mm, P-aligned)" for name in (*names, "Avg.")]
    assert f"| Method | Assumptions | {' | '.join(heads)} |" in (
        result.tables["activities.md"].splitlines()
    )
    (total,) = (line for line in lines if line.startswith("| all frames | 47 | 5 |"))
    assert f"{result.metrics['test/pck_150']:.3f} (" in total
    assert f"{result.metrics['test/p_auc']:.3f} (" in total
    table = list(csv.DictReader(result.tables["pck.csv"].splitlines()))
    assert {row["activity"] for row in table} == {*names, "all frames"}


@pytest.mark.slow
@pytest.mark.usefixtures("small_sheets")
def test_data_without_3d_truth_is_evaluated_in_2d(tmp_path: Path) -> None:
    made = make_store(tmp_path, has_3d=False)

    result = evaluate_exported(exported(tmp_path), made, "test")

    assert set(result.metrics) == {"test/error_2d_px"}
    assert set(result.baselines) == {"mean_2d_pose_px"}
    table = result.tables["activities.md"]
    assert table.startswith("# 2D error per activity, px")
    (mine,) = (line for line in table.split("##")[0].splitlines() if "| this model |" in line)
    assert mine.endswith(f"| {result.metrics['test/error_2d_px']:.1f} |")
    assert "rotation" not in table
    assert result.pictures["poses.png"].startswith(PNG)
    assert result.contest is not None
    assert (result.contest.score, result.contest.unit) == ("error_2d_px", "px")
    assert dict(result.contest.rivals) == {"mean 2D pose": "mean_2d_pose_px"}


@pytest.mark.usefixtures("undrawn")
def test_the_gate_can_judge_evaluations(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for factors in ((1.0, 1.0, 1.0), (1.0, 1.0, 0.5)):
        model = AllKnowing(store, factors)
        monkeypatch.setattr(evaluate, "load_model", lambda _, model=model: model)
        found.append(evaluate_exported(Path("exported"), store, "test"))
    exact, flat = found

    first = judge(exact, None, champion_name="")
    assert first.passed
    assert [c.other for c in first.comparisons] == ["mean shape", "own 2D, flat"]
    assert judge(exact, flat, champion_name="old").passed
    assert not judge(flat, exact, champion_name="old").passed
    gain = judge(exact, flat, champion_name="old").comparisons[0].gain
    assert gain == pytest.approx(flat.metrics["test/p_mpjpe_mm"], abs=1e-3)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("mode", "assumption"),
    [("complete", "Unp. 2D"), ("supervised", "Full-3D"), ("lifting", "true 2D pose")],
)
def test_the_table_says_what_a_model_was_trained_with(
    store: Path, tmp_path: Path, mode: str, assumption: str
) -> None:
    table = evaluate_exported(exported(tmp_path, mode), store, "test").tables["activities.md"]

    assert f"| this model | {assumption} |" in table


@pytest.mark.usefixtures("undrawn")
def test_a_model_that_is_given_true_2d_poses_says_so_and_has_no_2d_rival(
    store: Path, tmp_path: Path
) -> None:
    result = evaluate_exported(exported(tmp_path, "lifting"), store, "test")

    assert "given the TRUE 2D poses" in result.tables["activities.md"]
    assert result.contest is not None
    assert result.contest.sees == "true 2D poses"
    assert dict(result.contest.rivals) == {"mean shape": "mean_shape_mm"}


@pytest.mark.usefixtures("undrawn")
def test_records_say_where_each_error_comes_from(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "load_model", lambda _: AllKnowing(store, (1.0, 1.0, -1.0)))

    result = evaluate_exported(Path("exported"), store, "test")

    rows = open_store(store).split("test")
    for name in ("activity", "subject", "motion", "camera", "frame"):
        np.testing.assert_array_equal(result.records[name], getattr(rows, name))
    assert result.records["p_mpjpe_mm"].mean() == pytest.approx(
        result.metrics["test/p_mpjpe_frame_mm"]
    )
    assert result.records["p_mpjpe_mm"].min() > 30.0
    assert result.records["p_mpjpe_mirrored_mm"].max() < 1e-2


@pytest.mark.usefixtures("undrawn")
def test_baselines_are_those_of_the_same_rows(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "load_model", lambda _: AllKnowing(store, (1.0, 1.0, -1.0)))

    result = evaluate_exported(Path("exported"), store, "test")

    baselines, metrics = result.baselines, result.metrics
    assert baselines["depth_flipped_truth"] == pytest.approx(metrics["test/p_mpjpe_mm"], abs=1e-3)
    assert baselines["flat_depth_true_2d"] == pytest.approx(metrics["test/flat_predicted_mm"])
    assert 20.0 < baselines["mean_shape"] < baselines["depth_flipped_truth"]


def test_the_sheet_shows_best_median_worst_and_random_rows_of_different_motions(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[SheetRow] = []

    def draw_nothing(rows: Sequence[SheetRow], *, layout: Layout, title: str) -> bytes:
        shown.extend(rows)
        return PNG

    monkeypatch.setattr(evaluate, "load_model", lambda _: AllKnowing(store, (1.0, 1.0, 0.0)))
    monkeypatch.setattr(pictures, "draw_sheet", draw_nothing)

    error = evaluate_exported(Path("exported"), store, "test").records["p_mpjpe_mm"]

    shown = shown[:8]
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
        place = int((error < error[i]).sum()) + 1
        assert row.label.split("\n")[1:] == [
            ("Walking", "Sitting")[rows.activity[i]],
            "ABC"[rows.subject[i]],
            f"rank {place}",
            "of 47",
        ]
        assert row.score == f"{error[i]:.0f} mm"
        assert row.image_ss3 is not None
        assert row.image_ss3[0, 0, 1] == i


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("mode", ["complete", "lifting"])
def test_an_exported_model_is_evaluated(store: Path, tmp_path: Path, mode: str) -> None:
    result = evaluate_exported(exported(tmp_path, mode), store, "test")

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
    monkeypatch.setattr(evaluate, "load_model", lambda _: hand)

    with pytest.raises(BadInputError, match=r"hand21.*h36m17"):
        evaluate_exported(Path("exported"), store, "test")
