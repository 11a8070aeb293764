"""Stage products: built once however many ask, verified when read, rebuilt when broken."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from posetune.api import Progress, Stage, StageWork, TrialFailedError
from posetune.stages.cache import StageCache, stage_key
from posetune.storage import CLAIM_S, open_storage


def stage(counter: Path, *, depth: int = 4, seed: int = 0) -> Stage:
    def build(folder: Path, progress: Progress, work: StageWork) -> None:
        with counter.open("a") as file:
            file.write(f"{depth}\n")
        (folder / "depth.json").write_text(json.dumps(depth))

    return Stage("flow", {"depth": depth}, ["posetune.storage.digest"], seed, build)


def built(counter: Path) -> int:
    return len(counter.read_text().splitlines()) if counter.exists() else 0


def test_the_key_depends_on_what_the_stage_reads_and_on_nothing_else(tmp_path: Path) -> None:
    key = stage_key(stage(tmp_path / "a"), "data")
    assert key == stage_key(stage(tmp_path / "b"), "data")
    assert key != stage_key(stage(tmp_path / "a", depth=8), "data")
    assert key != stage_key(stage(tmp_path / "a", seed=1), "data")
    assert key != stage_key(stage(tmp_path / "a"), "other data")


def test_a_product_is_built_once_and_then_found(tmp_path: Path) -> None:
    counter, cache = tmp_path / "count", StageCache(open_storage(tmp_path))
    first = cache.obtain(stage(counter), "k")
    second = cache.obtain(stage(counter), "k")
    assert (first.trained, second.trained, built(counter)) == (True, False, 1)
    assert json.loads((second.folder / "depth.json").read_text()) == 4


def test_a_product_of_other_code_is_found_by_what_it_was_built_from(tmp_path: Path) -> None:
    counter, cache = tmp_path / "count", StageCache(open_storage(tmp_path))
    for key, asked in (
        ("a", stage(counter, depth=8)),
        ("b", stage(counter)),
        ("c", stage(counter)),
    ):
        cache.obtain(asked, key)
    assert cache.find_equal(stage(counter), ["lost", "a", "b", "c"]) == "b"
    assert cache.find_equal(stage(counter), ["a", "c", "b"]) == "c"
    assert cache.find_equal(stage(counter, seed=1), ["a", "b", "c"]) is None
    assert cache.find_equal(stage(counter, depth=2), ["a", "b", "c"]) is None
    (cache.obtain(stage(counter), "b").folder / "depth.json").write_text("5")
    assert cache.find_equal(stage(counter), ["b"]) is None, "it is broken"


@pytest.mark.parametrize("harm", ["change", "delete", "manifest"])
def test_a_broken_product_is_moved_aside_and_built_again(tmp_path: Path, harm: str) -> None:
    counter, cache = tmp_path / "count", StageCache(open_storage(tmp_path))
    folder = cache.obtain(stage(counter), "k").folder
    if harm == "change":
        (folder / "depth.json").write_text("5")
    elif harm == "delete":
        (folder / "depth.json").unlink()
    else:
        (folder.parent / "product.json").write_text("{")
    again = cache.obtain(stage(counter), "k")
    assert again.trained
    assert json.loads((again.folder / "depth.json").read_text()) == 4
    assert list((tmp_path / "stages" / "flow").glob("*.broken"))


def test_a_failed_build_leaves_nothing_and_may_be_tried_again(tmp_path: Path) -> None:
    def fail(folder: Path, progress: Progress, work: StageWork) -> None:
        (folder / "half").write_text("written")
        raise RuntimeError("no power")

    cache = StageCache(open_storage(tmp_path))
    with pytest.raises(RuntimeError, match="no power"):
        cache.obtain(Stage("flow", {}, [], 0, fail), "k")
    assert list((tmp_path / "stages" / "flow").iterdir()) == []
    assert cache.obtain(stage(tmp_path / "count"), "k").trained


Build = Callable[[Path, Progress, StageWork], None]


def fail(folder: Path, progress: Progress, work: StageWork) -> None:
    raise TrialFailedError("the flow diverged at step 300")


def write_nan(folder: Path, progress: Progress, work: StageWork) -> None:
    save_file({"weight": np.array([1.0, np.nan, np.inf])}, folder / "flow.safetensors")


def write_half(folder: Path, progress: Progress, work: StageWork) -> None:
    (folder / "flow.safetensors").write_bytes(b"\x10" + 7 * b"\0" + b"{")


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (fail, "the flow diverged at step 300"),
        (write_nan, "flow.safetensors: 2 numbers of weight are not finite"),
        (write_half, "flow.safetensors: cannot be read"),
    ],
)
def test_a_stage_that_cannot_be_built_is_built_once_for_all_its_trials(
    tmp_path: Path, build: Build, why: str
) -> None:
    counter = tmp_path / "count"

    def build_and_count(folder: Path, progress: Progress, work: StageWork) -> None:
        with counter.open("a") as file:
            file.write("x\n")
        build(folder, progress, work)

    failing = Stage("flow", {}, [], 0, build_and_count)
    said = []
    for trial in range(3):
        cache = StageCache(open_storage(tmp_path), f"sweep/{trial}")
        with pytest.raises(TrialFailedError, match=f"stage flow cannot be built: {why}") as raised:
            cache.obtain(failing, "k")
        said.append(str(raised.value))
    assert built(counter) == 1
    assert len(set(said)) == 1
    assert [(entry.key, entry.state) for entry in cache.entries()] == [("k", "failed")]
    cache.prune(set())
    assert cache.obtain(stage(counter), "k").trained, "it is built again after pruning"


BUILDER = """
import sys, time
from pathlib import Path
from posetune.api import Stage
from posetune.stages.cache import StageCache
from posetune.storage import open_storage

root, seconds = Path(sys.argv[1]), float(sys.argv[2])

def build(folder, progress, work):
    with (root / "count").open("a") as file:
        file.write("x\\n")
    time.sleep(seconds)
    (folder / "product").write_text("whole")

for key in sys.argv[3:]:
    print(key, StageCache(open_storage(root)).obtain(Stage("flow", {}, [], 0, build), key).trained)
"""


def start_builder(root: Path, seconds: float, *keys: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(root), str(seconds), *(keys or "k")],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_of_sixteen_processes_that_start_at_once_one_builds_each_of_five_products(
    tmp_path: Path,
) -> None:
    keys = ["2", "4", "6", "8", "10"]
    processes = [start_builder(tmp_path, 0.3, *keys[i % 5 :], *keys[: i % 5]) for i in range(16)]
    said = [line for p in processes for line in p.communicate(timeout=120)[0].split("\n") if line]
    assert sorted(line for line in said if line.endswith("True")) == sorted(
        f"{key} True" for key in keys
    )
    assert len(said) == 16 * 5
    assert built(tmp_path / "count") == 5


def test_what_a_trial_trained_before_it_was_killed_counts_as_trained_by_it(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    StageCache(open_storage(tmp_path), "sweep/0").obtain(stage(counter), "k")
    again, other = (
        StageCache(open_storage(tmp_path), f"sweep/{n}").obtain(stage(counter), "k") for n in (0, 1)
    )
    assert (again.trained, other.trained, built(counter)) == (True, False, 1)


@pytest.mark.slow
def test_the_claim_of_a_killed_builder_is_taken_over(tmp_path: Path) -> None:
    first = start_builder(tmp_path, 60)
    deadline = time.monotonic() + 30
    while built(tmp_path / "count") == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second = start_builder(tmp_path, 0)
    assert second.communicate(timeout=30)[0].strip() == "k True"


def test_the_claim_of_another_node_holds_until_it_was_not_touched_for_long(tmp_path: Path) -> None:
    claim = tmp_path / "stages" / "flow" / "k.claim"
    claim.parent.mkdir(parents=True)
    claim.write_text(json.dumps({"host": "another-node", "pid": 1}))
    cache = StageCache(open_storage(tmp_path))
    assert cache.try_obtain(stage(tmp_path / "count"), "k") is None
    long_ago = time.time() - CLAIM_S - 1
    os.utime(claim, (long_ago, long_ago))
    assert cache.obtain(stage(tmp_path / "count"), "k").trained
    assert [path.name for path in claim.parent.iterdir()] == ["k"]


def test_pruning_keeps_what_is_needed_and_what_is_being_built(tmp_path: Path) -> None:
    cache = StageCache(open_storage(tmp_path))
    for key in ("needed", "old", "broken"):
        cache.obtain(stage(tmp_path / "count"), key)
    (tmp_path / "stages/flow/broken/product.json").unlink()
    (tmp_path / "stages" / "flow" / "dead.1234.partial").mkdir()
    (tmp_path / "stages" / "flow" / "live.1234.partial").mkdir()
    live = {"host": socket.gethostname(), "pid": os.getpid()}
    (tmp_path / "stages" / "flow" / "live.claim").write_text(json.dumps(live))
    cache.obtain(stage(tmp_path / "count"), "fresh")
    os.utime(tmp_path / "stages/flow/old", (1.0, 1.0))
    pruned = cache.prune({"needed"})
    assert {entry.key for entry in pruned} == {"old", "broken", "dead"}
    assert {entry.key for entry in cache.entries()} == {"needed", "live", "fresh"}
