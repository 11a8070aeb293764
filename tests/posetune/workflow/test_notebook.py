"""The first hour of somebody in a notebook: train, sweep, look, promote, all from Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import posetune
from posetune.api import BadInputError

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.long
def test_a_notebooks_first_hour(
    toy_sweep: Callable[..., Path], migrated_home: Path, ray_head: str
) -> None:
    file = toy_sweep(trials=3, max_epochs=2, concurrent=1)
    trained = posetune.train(file, "try", settings={"x": 0.5}, home=migrated_home)
    assert [epoch["epoch"] for epoch in trained.epochs] == [1, 2]
    assert trained.params["x"] == 0.5
    assert trained.baselines == {"start": 2.0}
    assert Path(trained.model).is_dir()

    sweep = posetune.run_sweep(file, "first", home=migrated_home, address=ray_head)
    assert sweep.view().state == "COMPLETE"
    table = sweep.trials().to_pylist()
    assert [row["trial"] for row in table if row["state"] == "COMPLETE"]
    assert table[0]["value"] == sweep.view().best.value
    again = posetune.run_sweep(file, "first", home=migrated_home, address=ray_head)
    assert again.trials().equals(sweep.trials()), "the same call again changes nothing"

    promoted = posetune.promote("first", "pose", home=migrated_home)
    assert (promoted.gate, promoted.version) == ("ungated", 1)

    later = posetune.open("first", migrated_home)
    assert len(later.reports()) == sum(row["epochs"] for row in table)


def test_bad_input_is_an_exception_with_the_commands_words(
    toy_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    with pytest.raises(BadInputError, match="no such file"):
        posetune.run_sweep(tmp_path / "none.yaml", home=home)
    with pytest.raises(BadInputError, match="--set y: no such field"):
        posetune.train(toy_sweep(), settings={"y": 1}, home=home)
    with pytest.raises(BadInputError, match="nothing has run under this home yet"):
        posetune.promote("first", "pose", home=home)
