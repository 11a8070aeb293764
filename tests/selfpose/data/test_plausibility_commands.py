"""`posetune data import` refuses what cannot be right, or counts what it left out, in every format.

A refusal ends with exit code 2 and one line, and leaves nothing usable behind.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.pose_faults import (
    CASES,
    HAND_KINDS,
    KINDS_2D,
    KINDS_3D,
    NAMES,
    OF_A_FEW,
    SLOW_CASES,
    SPOILT,
    Change,
    HandChange,
    draw_hands,
    good,
    scaled,
    upside_down,
)
from support.pose_folders import (
    write_fetch,
    write_hands,
    write_mocap17,
    write_mpi_inf,
    write_videopose3d,
)

from selfpose.data.formats import recovered_cameras

COMMANDS = {
    "mocap17": ("--format", "mocap17", "--level", "plain", "--views", "1"),
    "fetch": ("--format", "human36m", "--frames", "all"),
    "videopose3d": ("--format", "human36m", "--frames", "all"),
    "mpi_inf": ("--format", "mpi_inf_3dhp"),
    "hands": (
        *("--format", "handdb", "--train", "synth2", "--prior", "synth3"),
        *("--val", "synth1", "--test", "manual_test"),
    ),
}
VALIDATED = {"videopose3d": "S8/Walking", "mpi_inf": "S8/Seq1"}
"""A recording beside those of `NAMES`, without which a split is empty."""


def _write_whole(form: str, root: Path, change: Change | HandChange, *, everywhere: bool) -> Path:
    """Write a folder with pictures, of which one recording is spoilt, or all are."""
    rng = np.random.default_rng(1)
    if form == "hands":
        parts = {part: draw_hands(rng) for part in ("synth1", "synth2", "synth3", "manual_test")}
        spoilt = parts if everywhere else ("synth2",)
        return write_hands(root, parts | {part: change(parts[part]) for part in spoilt})
    recordings = good(form, rng, names=[*NAMES[form], *filter(None, [VALIDATED.get(form)])])
    for name in recordings if everywhere else (SPOILT[form],):
        recordings[name] = change(recordings[name], rng)
    write = {
        "mocap17": write_mocap17,
        "fetch": write_fetch,
        "videopose3d": write_videopose3d,
        "mpi_inf": write_mpi_inf,
    }[form]
    return write(root, recordings)


@pytest.fixture
def import_words(
    posetune: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `posetune data import` on a folder of a format."""
    monkeypatch.setattr(recovered_cameras, "FIT_FRAMES", 20)

    def run(form: str, folder: str, *more: str) -> subprocess.CompletedProcess[str]:
        small = ("--image-size", "32", "--workers", "1")
        done = posetune("data", "import", folder, *COMMANDS[form], *small, *more)
        assert "Traceback" not in done.stderr
        return done

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
@pytest.mark.parametrize("form", COMMANDS)
def test_the_command_line_refuses_or_counts_and_leaves_nothing_usable(
    form: str, tmp_path: Path, import_words: Run, posetune: Run
) -> None:
    hands = form == "hands"
    all_change = HAND_KINDS["in [0, 1]"][0] if hands else scaled(0.001)
    change = HAND_KINDS["one joint far off"][0] if hands else upside_down
    words = "not in pixels" if hands else "likely in m"
    # VideoPose3D's files are in metres.
    all_change = scaled(25.4) if form == "videopose3d" else all_change
    words = "in no known unit" if form == "videopose3d" else words
    everything = _write_whole(form, tmp_path / "everything", all_change, everywhere=True)
    one = _write_whole(form, tmp_path / "one", change, everywhere=False)
    before = {path.name for path in tmp_path.iterdir()}

    refused = import_words(form, "everything", "--out", "refused")
    strict = import_words(form, "one", "--out", "strict", "--strict")
    left = {path.name for path in tmp_path.iterdir()} - before - {"home"}
    counted = import_words(form, "one", "--out", "counted")
    info = posetune("data", "info", "counted")

    assert everything.exists()
    for result, why in ((refused, words), (strict, "leave out --strict")):
        assert (result.returncode, result.stdout) == (2, "")
        assert why in result.stderr.replace("\n", " ")
    assert left == set()
    assert counted.returncode == 0, counted.stderr
    said = counted.stdout + counted.stderr
    assert re.search(r"left out: \d+ items: ", said)
    item = "hand_labels_synth/synth2" if hands else SPOILT[form]
    assert item in (tmp_path / "counted" / "skipped.csv").read_text()
    assert re.search(r"store counted: train \d+.* test [1-9]", said), said
    assert one.exists()
    checks = {"missing truth", "left and right", "rows"}
    checks |= {"bones in the picture"} if hands else {"size", "upright"}
    checks |= set() if form in ("hands", "mocap17") else {"2D against 3D", "depth"}
    for check in checks:
        assert f"check: {check}" in info.stdout + info.stderr


COMMAND_CASES = [
    *(case for case in (*CASES, *SLOW_CASES) if case[1] not in OF_A_FEW),
    *(("hands", kind) for kind in HAND_KINDS if kind != "one joint far off"),
]


@pytest.mark.long
@pytest.mark.parametrize("form", COMMANDS)
def test_the_command_line_refuses_every_kind_of_fault(
    form: str, tmp_path: Path, import_words: Run
) -> None:
    kinds = HAND_KINDS if form == "hands" else {**KINDS_3D, **KINDS_2D}
    for number, kind in enumerate(kind for case, kind in COMMAND_CASES if case == form):
        _write_whole(form, tmp_path / str(number), kinds[kind][0], everywhere=True)
        before = {path.name for path in tmp_path.iterdir()}
        refused = import_words(form, str(number), "--out", "store")

        assert (refused.returncode, refused.stdout) == (2, ""), kind
        assert re.search(r"(?m)^error: ", refused.stderr), (kind, refused.stderr)
        assert {path.name for path in tmp_path.iterdir()} - before - {"home"} == set()


@pytest.mark.slow
def test_the_unit_that_is_named_is_taken_by_the_command_line(
    tmp_path: Path, import_words: Run
) -> None:
    _write_whole("mocap17", tmp_path / "metres.h5", scaled(0.001), everywhere=True)

    assert import_words("mocap17", "metres.h5", "--out", "a", "--unit", "m").returncode == 0
