"""How a trial that builds a stage says how far it is."""

from __future__ import annotations

from pathlib import Path

from posetune.storage import Log
from posetune.trial.stage_lines import StageLines


def test_lines_are_those_of_stages(tmp_path: Path) -> None:
    kept: list[None] = []
    log = Log(tmp_path / "log", keep=lambda: kept.append(None))
    tell = StageLines(log, every_s=0)
    tell(3, 70, "epoch 1")
    tell(600, 2000, "stage bodies error 0.0512")
    tell(700, 2000, "stage bodies ")
    assert log.file.read_text().splitlines() == [
        "stage bodies error 0.0512 (600 of 2000)",
        "stage bodies (700 of 2000)",
    ]
    assert len(kept) == 2, "each line is put where other nodes can read it"


def test_a_line_waits_for_the_last_one(tmp_path: Path) -> None:
    tell = StageLines(Log(tmp_path / "log"), every_s=3600)
    tell(600, 2000, "stage bodies")
    assert not (tmp_path / "log").exists()
