"""A stage whose builder was killed goes on from the state that it saved last."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from posetune.api import Progress, Stage, StageWork
from posetune.stages.cache import StageCache
from posetune.storage import open_storage

STEPS = 5


class Broken(Exception):
    """Ends a build."""


def counting(began: list[int], *, breaks_at: int | None = None) -> Stage:
    """Return a stage of five steps that saves its state after each, and notes where it began."""

    def build(folder: Path, progress: Progress, work: StageWork) -> None:
        done = 0

        def read(state: Path) -> None:
            nonlocal done
            done = int((state / "done").read_text())

        def write(state: Path) -> None:
            (state / "done").write_text(str(done))

        work.load("count", read)
        began.append(done)
        while done < STEPS:
            if done == breaks_at:
                raise Broken
            done += 1
            work.save("count", write)
        write(folder)

    return Stage("count", {}, [], 0, build)


def break_off(storage: Path, *, at: int = 3, key: str = "k") -> None:
    with pytest.raises(Broken):
        StageCache(open_storage(storage)).obtain(counting([], breaks_at=at), key)


def test_the_next_attempt_goes_on_and_the_product_leaves_no_state(tmp_path: Path) -> None:
    break_off(tmp_path)
    began: list[int] = []
    product = StageCache(open_storage(tmp_path)).obtain(counting(began), "k")

    assert began == [3]
    assert (product.folder / "done").read_text() == "5"
    assert [path.name for path in (tmp_path / "stages/count").iterdir()] == ["k"]


def test_a_product_of_another_key_begins_anew(tmp_path: Path) -> None:
    break_off(tmp_path)
    began: list[int] = []
    StageCache(open_storage(tmp_path)).obtain(counting(began), "other")

    assert began == [0]


@pytest.mark.parametrize("harm", ["change", "delete", "manifest", "partial"])
def test_a_damaged_state_is_ignored(tmp_path: Path, harm: str) -> None:
    break_off(tmp_path)
    (state,) = (tmp_path / "stages/count/k.work/count").iterdir()
    if harm == "change":
        (state / "files/done").write_text("4")
    elif harm == "delete":
        (state / "files/done").unlink()
    elif harm == "manifest":
        (state / "product.json").unlink()
    else:
        state.rename(state.with_name(f"{state.name}.1234.partial"))
        (state.with_name(f"{state.name}.1234.partial") / "product.json").unlink()
    began: list[int] = []
    StageCache(open_storage(tmp_path)).obtain(counting(began), "k")

    assert began == [0]


def test_a_state_that_cannot_be_saved_does_not_end_the_build(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "stages/count/k.work"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where the states' folder should be")
    began: list[int] = []
    product = StageCache(open_storage(tmp_path)).obtain(counting(began), "k")

    assert began == [0]
    assert (product.folder / "done").read_text() == "5"
    assert "stages/count/k.work/count: how far the stage is was not saved" in caplog.text


def test_pruning_spares_a_young_state_and_deletes_an_old_one(tmp_path: Path) -> None:
    for key in ("young", "old"):
        break_off(tmp_path, key=key)
    os.utime(tmp_path / "stages/count/old.work", (1.0, 1.0))
    cache = StageCache(open_storage(tmp_path))

    assert [entry.key for entry in cache.prune(set())] == ["old"]
    assert [(entry.key, entry.state) for entry in cache.entries()] == [("young", "partial")]


def test_states_that_outlived_their_product_are_pruned(tmp_path: Path) -> None:
    break_off(tmp_path, key="built")
    left_over = tmp_path / "stages/count/built.work"
    kept = tmp_path / "kept"
    shutil.copytree(left_over, kept)
    cache = StageCache(open_storage(tmp_path))
    cache.obtain(Stage("count", {}, [], 0, lambda folder, *_: (folder / "f").touch()), "built")
    shutil.copytree(kept, left_over, dirs_exist_ok=True)

    assert [entry.place for entry in cache.prune({"built"})] == ["stages/count/built.work"]
    assert [(entry.key, entry.state) for entry in cache.entries()] == [("built", "whole")]


KILLED = """
import sys, time
from pathlib import Path
from posetune.api import Stage
from posetune.stages.cache import StageCache
from posetune.storage import open_storage

def build(folder, progress, work):
    found = work.load("count", lambda state: print((state / "done").read_text(), flush=True))
    work.save("count", lambda state: (state / "done").write_text("saved"))
    if not found:
        print("nothing", flush=True)
        time.sleep(600)
    (folder / "product").write_text("whole")

StageCache(open_storage(Path(sys.argv[1]))).obtain(Stage("count", {}, [], 0, build), "k")
"""


@pytest.mark.slow
def test_the_state_of_a_killed_process_is_found_by_the_next(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    first = start()
    assert first.stdout is not None
    assert first.stdout.readline() == "nothing\n"
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert start().communicate(timeout=60)[0] == "saved\n"
