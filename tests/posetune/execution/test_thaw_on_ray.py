"""A search that pauses trials, through the command line, on real Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Posetune
from support.sweeps import Driver, Script, events

from posetune.study.events import AttemptBegun, Reported
from posetune.study.search.rungs import Decision

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

Show = Callable[[str], dict]
Write = Callable[..., Path]


def thawing(file: Path) -> Path:
    """The same sweep, with paused trials instead of cut ones."""
    text = file.read_text()
    text = text.replace("{name: tpe, seed: 0}", "{seed: 0}")
    pruner = "{name: asha, max_epochs: 9, grace_epochs: 1, reduction_factor: 3}"
    assert pruner in text
    file.write_text(text.replace(pruner, "{name: thaw, max_epochs: 9}"))
    return file


def test_paused_trials_go_on_later_and_a_killed_driver_leaves_them_paused(
    posetune: Posetune, shown: Show, toy_sweep: Write, ray_head: str, tmp_path: Path
) -> None:
    script = Script(tmp_path / "script", *["go"] * 8, "wait", "wait")
    file = thawing(toy_sweep(trials=6, concurrent=2, script=str(script.file)))
    command = ("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
    driver = Driver(tmp_path, *command)
    driver.until(script.is_over)
    driver.kill()
    script.let_go()
    states = {trial["state"] for trial in shown("s")["trials"]}
    assert "PAUSED" in states
    result = posetune(*command)
    assert result.returncode == 0, result.stderr

    trials = shown("s")["trials"]
    assert shown("s")["state"] == "COMPLETE"
    assert {trial["state"] for trial in trials} <= {"COMPLETE", "PRUNED"}
    reports = events(tmp_path / "home", Reported)
    epochs = {t["number"]: [r.epoch for r in reports if r.trial == t["number"]] for t in trials}
    assert epochs == {t["number"]: list(range(1, t["epochs"] + 1)) for t in trials}
    paused = {(r.trial, r.epoch) for r in reports if r.decision == Decision.PAUSE}
    begun = {(b.trial, b.from_epoch) for b in events(tmp_path / "home", AttemptBegun)}
    assert paused & begun, "one went on from where it was paused"
