"""Every training of the tables of learning is one that can be given."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.learning_cases import read_cases
from support.learning_table import AIMS

from posetune.spec.loading import configure, default_params, load_sweep
from selfpose.config import SelfPoseConfig


@pytest.mark.parametrize("name", sorted(read_cases()))
def test_a_case_is_a_sweep_file_with_fields_that_are_there(name: str, repository: Path) -> None:
    case = read_cases()[name]
    spec, trainable, _ = load_sweep(repository / "search_spaces" / "selfpose" / case.file)
    params = default_params(spec, trainable.config_model)
    config = configure(SelfPoseConfig, spec.fixed, {**params, **case.set, "stage_seed": 1})

    assert config.model_dump()["stage_seed"] == 1
    assert case.level in AIMS
