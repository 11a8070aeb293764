"""What a sweep file says of its search, through the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.commands import Posetune, run_here


@pytest.fixture
def command(tmp_path: Path) -> Posetune:
    return partial(run_here, folder=tmp_path)


@pytest.mark.slow
def test_check_says_what_a_patience_lacks(
    command: Posetune, toy_sweep: Callable[..., Path]
) -> None:
    file = toy_sweep()
    text = file.read_text()
    file.write_text(text.replace("budget: {", "budget: {patience: 3, "))
    (line,) = [
        line for line in command("check", file).stderr.splitlines() if "budget.patience: 3" in line
    ]
    assert line.startswith("warning: budget.patience: 3: nothing tells the noise between seeds")
    file.write_text(file.read_text().replace("seed: 0}", "seed: 0, repeats: 2}"))
    assert "nothing tells the noise" not in command("check", file).stderr


@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_starts_from_one_that_searched_other_fields_on_other_data(
    command: Posetune, toy_sweep: Callable[..., Path], toy_store: Path, ray_head: str
) -> None:
    file = toy_sweep(trials=4, max_epochs=2)
    text = file.read_text().replace("  depth: {int: [2, 8], step: 2}\n", "")
    file.write_text(text)
    run = ("--address", ray_head, "--no-tracking")
    assert command("sweep", file, "--name", "old", *run).returncode == 0

    (toy_store / "toy.json").write_text('{"another": 1}')
    wider = toy_sweep(trials=3, max_epochs=2)
    text = wider.read_text().replace("seed: 0}", "seed: 0, start_from: [old]}")
    text = text.replace("epoch_s: 0.0", "epoch_s: 0.0, hold_mb: 0")
    wider.write_text(text)
    refused = command("sweep", wider, "--name", "new", *run)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: sampler.start_from: sweep old is not compatible")
    assert "only sampler: {name: gp} learns from other data, at a discount" in refused.stderr

    wider.write_text(text.replace("name: tpe", "name: gp"))
    done = command("sweep", wider, "--name", "new", *run)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "starts from 4 trials of old, on other data (digest " in said
    assert "at a discount that gp learns; taken at the defaults of now: depth 4" in said
    assert json.loads(command("show", "new", "--json").stdout)["state"] == "COMPLETE"
