"""The page on new loss terms, followed to the letter in a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SMALLER = {
    "steps_per_epoch": 2,
    "val_frames": 16,
    "batch_size": 4,
    "lifting.width": 16,
    "flow.depth": 2,
    "flow.hidden": 8,
    "flow.steps": 5,
    "flow.batch_size": 16,
}


@pytest.mark.long
@pytest.mark.slow
def test_the_page_adds_a_term_that_is_trained_and_reported(
    repository: Path, tiny_store: Path, tmp_path: Path
) -> None:
    page = (repository / "docs" / "extend" / "loss-term.md").read_text()
    function, entry, command = re.findall(r"^```\w*\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    shutil.copytree(repository / "trainables" / "selfpose", tmp_path / "selfpose")
    table = tmp_path / "selfpose" / "method" / "losses.py"
    text = table.read_text()
    for before, new in (
        ("@dataclass(frozen=True)\nclass LossTerm", function),
        (')\n"""All loss terms,', f"{entry.rstrip()},\n"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, f"{new}{before}")
    table.write_text(text)

    program, *arguments = shlex.split(command)
    settings = [part for key, value in SMALLER.items() for part in ("--set", f"{key}={value}")]
    where = ["--store", str(tiny_store), "--home", str(tmp_path / "home"), "--epochs", "1"]
    result = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments, *settings, *where, "--json"],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert result.returncode == 0, result.stderr
    (epoch,) = json.loads(result.stdout)["epochs"]
    assert epoch["train/compactness"] > 0
    weighed = sum(weight * epoch[f"train/{name}"] for name, weight in WEIGHTS.items())
    assert epoch["train/total"] == pytest.approx(weighed, rel=1e-5)


WEIGHTS = {
    **dict.fromkeys(("reprojection_2d", "consistency_3d", "deformation", "flow"), 1.0),
    **dict.fromkeys(("bone", "symmetry"), 5.0),
    "compactness": 0.1,
}
"""What the page's command minimises: the terms of lifting.yaml, and the new one."""
