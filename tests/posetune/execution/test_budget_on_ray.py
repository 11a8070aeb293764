"""The limit of hours through the command line, on real Ray."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EPOCH_S = 0.3


def test_a_spent_limit_lets_the_leader_finish_and_says_what_was_left_out(
    posetune: Callable[..., subprocess.CompletedProcess[str]],
    shown: Callable[[str], dict],
    toy_sweep: Callable[..., Path],
) -> None:
    file = toy_sweep(trials=40, epoch_s=EPOCH_S)
    text = file.read_text()
    limit_s = 25 * EPOCH_S  # 9 of them for a complete trial

    hours = f"{limit_s / 3600:.6f}"
    file.write_text(text.replace("{trials: 40}", f"{{trials: 40, gpu_hours: {hours}}}"))
    result = posetune("sweep", file, "--name", "capped")
    assert result.returncode == 0, result.stderr
    view = shown("capped")
    assert view["state"] == "INTERRUPTED"
    assert view["best"]["state"] == "COMPLETE"
    never = view["left_out"]["never_started"]
    assert never == 40 - len(view["trials"])
    assert never > 20
