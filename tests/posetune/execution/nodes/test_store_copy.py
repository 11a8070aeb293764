"""A store that only the driver's node sees reaches the other nodes, once and whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sweeps import view

from posetune.execution.nodes.store_copy import PART_BYTES, read_parts, store_on_node
from posetune.storage.store_place import StorePlace
from posetune.testing.toy import Toy

HIDDEN = 'mount -t tmpfs tmpfs "$STORE"; exec "$@"'
"""Runs a command that sees nothing in the store's folder."""

FROM_THE_WORKER = """
import sys, ray
from posetune.execution.nodes.store_copy import own_node, store_on_node
from posetune.storage.store_place import StorePlace
from posetune.testing.toy import Toy

ray.init(address=sys.argv[1], log_to_driver=False)
(worker,) = [n["NodeID"] for n in ray.nodes() if n["Resources"].get("CPU")]
(head,) = [n["NodeID"] for n in ray.nodes() if not n["Resources"].get("CPU")]

@ray.remote(num_cpus=1, max_retries=0)
def ask(store, node):
    try:
        return store_on_node(StorePlace(store, "d" * 64, node), Toy)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

for store, node in ((sys.argv[2], head), (sys.argv[2], "e" * 56), ("/no/store", head)):
    print(ray.get(ask.remote(store, node)))
"""


def test_parts_put_together_are_the_files(tmp_path: Path) -> None:
    files = {
        "metadata.json": b"{}",
        "empty": b"",
        "train/deep/00000.arrow": bytes(range(256)) * (PART_BYTES // 128),
        "train/deep/00001.arrow": b"x" * PART_BYTES,
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    size, *parts = read_parts(str(tmp_path))
    assert size == sum(map(len, files.values()))
    joined = dict.fromkeys(files, b"")
    for name, data in parts:
        assert len(data) <= PART_BYTES
        joined[name] += data
    assert joined == files
    assert len(parts) == len(files) + 1


@pytest.mark.parametrize("node", ["", "a node"])
def test_a_store_that_is_seen_or_on_s3_is_read_where_it_is(node: str, toy_store: Path) -> None:
    for address in (str(toy_store), str(toy_store / "toy.json"), "s3://bucket/store"):
        assert store_on_node(StorePlace(address, "d", node), Toy) == address


def test_without_ray_whoever_reads_the_store_says_that_it_is_not_there(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert store_on_node(StorePlace(str(folder), "d"), Toy) == str(folder)


def test_what_would_be_copied_in_part_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="link is a link to a folder"):
        next(read_parts(str(tmp_path / "store")))
    with pytest.raises(NotADirectoryError, match="none is no folder"):
        next(read_parts(str(tmp_path / "none")))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("own_mounts")
def test_a_node_that_does_not_see_the_store_copies_it_once_from_the_drivers_node(
    ray_cluster: Any, toy_sweep: Callable[..., Path], toy_store: Path, tmp_path: Path
) -> None:
    cluster, cache = ray_cluster, tmp_path / "cache"
    cluster.start_head()
    cluster.start_workers(
        1,
        within=("unshare", "--mount", "sh", "-ec", HIDDEN, "sh"),
        STORE=str(toy_store),
        POSETUNE_CACHE=str(cache),
    )
    good = cluster.posetune("check", toy_sweep(), "--address", cluster.address)
    assert good.returncode == 0, good.stderr
    (copy,) = [path for path in (cache / "stores").iterdir() if path.is_dir()]
    files = {path.name: path.read_bytes() for path in toy_store.iterdir()}
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == files
    made = copy.stat().st_mtime_ns

    words = ("--address", cluster.address, "--name", "s", "--follow")
    run = cluster.posetune("submit", toy_sweep(), *words)
    assert run.returncode == 0, run.stdout + run.stderr
    found = view(cluster.folder / "home")
    assert found is not None
    assert {trial.state for trial in found.trials} <= {"COMPLETE", "PRUNED"}
    assert copy.stat().st_mtime_ns == made
    assert [path for path in (cache / "stores").iterdir() if path.is_dir()] == [copy]

    asked = subprocess.run(
        [sys.executable, "-c", FROM_THE_WORKER, f"{cluster.network}.1:{cluster.port}", toy_store],
        env=cluster.environment,
        capture_output=True,
        text=True,
    )
    changed, away, gone = asked.stdout.splitlines()
    assert changed.startswith(f"BadInputError: store {toy_store}: has changed on the driver's node")
    assert away.startswith(f"StorageError: store {toy_store}: this node does not see it")
    assert gone.startswith("BadInputError: store /no/store: cannot be read on the driver's node")
    assert "/no/store is no folder" in gone
    assert [path for path in (cache / "stores").iterdir() if path.is_dir()] == [copy]
