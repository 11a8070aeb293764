"""Everything that the tables of learning are made of can be run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.learning_cases import Case, read_cases
from support.learning_table import AIMS

from posetune.spec.loading import configure, default_params, load_sweep
from selfpose.config import SelfPoseConfig

CASES = read_cases()
SWEEPS = [name for name, case in CASES.items() if case.kind == "sweep"]
TRAININGS = [name for name, case in CASES.items() if case.kind == "training"]
TABLES = {*AIMS, "pieces", "beside", "beside-lifting"}


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
