"""Everything that the tables of learning are made of can be run, and the tables say what was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import learning_sweeps_table, learning_trainings_table
from support.learning_cases import Case, read_cases
from support.learning_sweeps_table import ablation_table, sweep_table, sweep_wrists_table
from support.learning_table import AIMS
from support.learning_trainings_table import trainings_table

from posetune.spec.loading import configure, default_params, load_sweep
from selfpose.config import SelfPoseConfig

CASES = read_cases()
SWEEPS = [name for name, case in CASES.items() if case.kind != "training"]
TRAININGS = [name for name, case in CASES.items() if case.kind == "training"]
TABLES = {*AIMS, "pieces", "beside", "beside-lifting"}
WHERE = {"processor": "a machine", "commit": "0123456789", "load": 2.0}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_is_a_sweep_file_with_fields_that_are_there(name: str, repository: Path) -> None:
    case = CASES[name]
    spec, trainable, _ = load_sweep(repository / case.source)
    params = default_params(spec, trainable.config_model)
    config = configure(SelfPoseConfig, spec.fixed, {**params, **case.set, "stage_seed": 1})

    assert config.model_dump()["stage_seed"] == 1
    assert case.level in TABLES


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_has_one_seed_for_sampler_and_stages(
    name: str, repository: Path, tmp_path: Path
) -> None:
    case = CASES[name]
    file = tmp_path / case.file
    file.write_text(case.sweep_text(2))
    spec, _, _ = load_sweep(file)
    as_it_stands, _, _ = load_sweep(repository / case.source)

    assert spec.sampler.seed == spec.fixed["stage_seed"] == 2
    assert spec.search == as_it_stands.search
    assert {**spec.fixed, "stage_seed": None} == {**as_it_stands.fixed, "stage_seed": None}
    assert case.level == name


def test_the_changes_of_a_sweep_are_written_into_its_file() -> None:
    changes = {"budget.trials": 1, "fixed.loss_weights.read": 0.5}
    case = CASES["quickstart"].model_copy(update={"set": changes})
    document = yaml.safe_load(case.sweep_text(0))

    assert document["budget"]["trials"] == 1
    assert document["fixed"]["loss_weights"]["read"] == 0.5
    assert "budget.trials: 1" in case.sweep_command(0)


def test_a_sweep_shares_no_home() -> None:
    with pytest.raises(ValueError, match="`shares`"):
        Case(title="", level="", kind="sweep", file="", store="", shares="quickstart-pieces")


def test_trainings_that_share_a_home_share_the_stages_of_its_file() -> None:
    piece, alone = CASES["piece"], CASES["plain"]

    assert "--set" not in piece.command(1)
    assert piece.command(1)[-2:] == ["--epochs", "6"]
    assert "steps_per_epoch=1" in piece.stages_command()
    assert alone.command(1)[-1] == "stage_seed=1"


def test_what_was_not_measured_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_only(monkeypatch, {})

    assert sweep_table("quickstart", plain).splitlines()[1] == "0|not measured yet|||||||"
    assert sweep_wrists_table("quickstart", plain).splitlines()[1] == "0|not measured yet|||"
    assert trainings_table("pieces", plain).splitlines()[1] == "nothing|0, 1|not measured yet|||"


def test_the_table_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    swept = {
        "clock_s": 277.4,
        "best": {"number": 8, "value": 85.41},
        "val_baselines": {"mean_shape": 100.4, "flat_depth_true_2d": 101.0},
        "val": {"value": 85.41, "whole_value": 86.5},
        **WHERE,
    }
    tested = {
        "metrics": {
            "test/p_mpjpe_mm": spread(85.3),
            "test/p_mpjpe_mirrored_mm": spread(84.9),
            "test/flat_predicted_mm": spread(121.2),
        },
        "baselines": {"mean_shape": spread(100.9), "flat_depth_true_2d": spread(101.2)},
        "gains": {"mean shape": spread(15.6), "own 2D, flat": spread(35.9)},
        "wrists_px": {"left_wrist": spread(3.22), "right_wrist": spread(3.01)},
        "wrists_gain_px": {"left_wrist": spread(1.55), "right_wrist": spread(1.65)},
        "gate": "passed",
    }
    keep_only(monkeypatch, {"quickstart": {"0": {**swept, "test": tested}, "1": swept}})

    _, first, second, third, *lines = sweep_table("quickstart", plain).splitlines()
    assert first == (
        "0|4 min 37 s|85.4|86.5|85.3 (84.3 to 86.3)|84.9|121.2 (120.2 to 122.2)"
        "|15.6 (14.6 to 16.6)|35.9 (34.9 to 36.9)"
    )
    assert second == "1|4 min 37 s|85.4|86.5|not opened||||"
    assert third.startswith("2|not measured yet")
    assert "on the test split the mean shape is at 100.9 mm" in lines[-1]
    wrists = sweep_wrists_table("quickstart", plain).splitlines()[1]
    assert wrists.startswith("0|3.22 (2.22 to 4.22)|1.55 (0.55 to 2.55)|3.01")


def test_the_table_of_an_ablation(monkeypatch: pytest.MonkeyPatch) -> None:
    both = CASES["ablation"].model_copy(update={"seeds": (0, 1)})
    monkeypatch.setattr(learning_sweeps_table, "read_cases", lambda: {"ablation": both})
    keep_only(monkeypatch, {})
    assert ablation_table("ablation", plain).splitlines()[1] == "not measured yet||"
    trials = [
        {"params": {"flow": 1, "bone": 5}, "value": 45.31},
        {"params": {"flow": 0, "bone": 5}, "value": None},
    ]
    keep_only(monkeypatch, {"ablation": {"1": {"trials": trials, **WHERE}}})

    rows = ablation_table("ablation", plain).splitlines()
    assert rows[:3] == [
        "changed|seed 0, mm|seed 1, mm",
        "nothing|not measured yet|45.3",
        "`flow: 0`|not measured yet|failed",
    ]


def test_the_table_of_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = {"p_mpjpe_mm": 89.2, "error_2d_px": 1.17, "lifted_true_mm": 52.1}
    evaluated = {
        "metrics": {f"val/{name}": spread(value) for name, value in metrics.items()},
        "baselines": {"mean_shape": spread(100.4), "flat_depth_true_2d": spread(101.0)},
    }
    well = {"processor_s": 33.2, "failed": "", "val": evaluated, **WHERE}
    lost = {"processor_s": 14.0, "failed": "the same 2D pose (the spread is 0.5%)", **WHERE}
    keep_only(monkeypatch, {"piece": {"0": well}, "piece-no-reader": {"0": well, "1": lost}})

    rows = trainings_table("pieces", plain).splitlines()
    assert rows[1] == "nothing|0, 1|33, -|89.2, not measured yet|1.17, -|52.1, -"
    assert rows[2].endswith("|33, 14|89.2, failed: the same 2D pose|1.17, -|52.1, -")
    assert rows[-1].startswith("The mean shape is at 100.4 mm")
    beside = trainings_table("beside-lifting", plain, first={"piece": "ours"}, sees_images=False)
    assert beside.splitlines()[1] == "ours|0, 1|33, -|89.2, not measured yet"


def keep_only(monkeypatch: pytest.MonkeyPatch, kept: dict[str, dict[str, Any]]) -> None:
    for module in (learning_sweeps_table, learning_trainings_table):
        monkeypatch.setattr(module, "read_figures", lambda name: kept.get(name, {}))


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    assert all(len(row) == len(head) for row in rows)
    return "\n".join("|".join(line) for line in [head, *rows])


def spread(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 1, "high": mean + 1}
