from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from posetune.cli.screen import progress_bar


def test_a_line_of_progress_counts_what_is_new_and_says_what_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("posetune.cli.screen.LINE_EVERY_S", 0.0)
    monkeypatch.setattr("posetune.cli.screen.time", clock)
    with progress_bar("import") as progress:
        progress(1_000_000, 1_000_200, "continuing")
        clock.now = 0.5
        progress(1_000_100, 1_000_200, "train")
        progress(1_000_200, 1_000_200)
    lines = capsys.readouterr().err.splitlines()

    assert lines[0] == "import: 1000000/1000200, continuing"
    rate, left = re.findall(r", ([\d.]+)/s, (\d+) s left, train", " ".join(lines))[0]
    assert (rate, left) == ("200.0", "0")
