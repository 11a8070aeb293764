"""Storage: the same laws for a folder and for a bucket on a real S3 server."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from posetune.api import BadInputError, Progress, Stage, StageWork
from posetune.stages.cache import StageCache
from posetune.storage import Folder, Storage, open_folder, open_storage
from posetune.storage.digest import digest_folder


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "bucket":
        return open_storage(request.getfixturevalue("bucket"))
    return open_storage(tmp_path / "storage")


def write(storage: Storage, name: str, **files: bytes) -> str:
    with storage.writing(name) as folder:
        for file, content in files.items():
            (folder / file / "deep").mkdir(parents=True)
            (folder / file / "deep" / "content").write_bytes(content)
        return digest_folder(folder)


def test_what_was_written_is_read_again(storage: Storage) -> None:
    storage.prepare()
    large = os.urandom(11 * 1024**2)
    digest = write(storage, "a/b", one=b"1", two=large, three=b"")
    there = pickle.loads(pickle.dumps(storage))  # on another node
    with there.reading("a/b") as folder:
        assert folder is not None
        assert folder.name == "b"
        assert digest_folder(folder) == digest
    assert storage.children("a") == ["b"]
    assert storage.children("a/b") == ["one", "three", "two"]
    assert storage.children("nothing") == []
    assert storage.measure("a/b")[0] == 1 + len(large)
    assert abs(storage.measure("a/b")[1] - time.time()) < 60
    storage.remove("a/b")
    with there.reading("a/b") as folder:
        assert folder is None
    storage.remove("a/b")


def everything(storage: Storage, root: Path) -> list[str]:
    """Return all names in the bucket, or in the folder above the storage's."""
    if isinstance(storage, Folder):
        return sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    bucket = storage.address.split("/")[2]
    listed = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return [found["Key"] for found in listed]


def test_a_visit_leaves_nothing_unless_something_was_put_there(
    storage: Storage, tmp_path: Path
) -> None:
    if isinstance(storage, Folder):
        storage = open_storage(storage.root / "deeper")
    before = everything(storage, tmp_path)
    with storage.visited():
        storage.prepare()
        write(storage, "mark/a", one=b"1")
        assert everything(storage, tmp_path) != before
        storage.remove("mark")
    assert everything(storage, tmp_path) == before
    with storage.visited():
        storage.prepare()
        write(storage, "kept", one=b"1")
    assert storage.exists("kept/one/deep/content")
    with storage.visited():
        storage.prepare()
    assert storage.exists("kept/one/deep/content")


def test_a_folder_of_files_without_folders_is_read_again(storage: Storage) -> None:
    with storage.writing("a/b") as folder:
        (folder / "file").write_bytes(b"content")
    with storage.reading("a/b") as folder:
        assert folder is not None
        assert (folder / "file").read_bytes() == b"content"


def test_a_block_that_raises_leaves_nothing(storage: Storage) -> None:
    def write_half() -> None:
        with storage.writing("a/b") as folder:
            (folder / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert storage.children("a") == []


def test_a_file_is_there_from_touch_to_remove(storage: Storage) -> None:
    assert not storage.exists("x/stop")
    storage.touch("x/stop")
    storage.touch("x/stop")
    assert storage.exists("x/stop")
    assert not storage.exists("x")
    assert (storage.read("x/stop"), storage.read("x/none")) == (b"", b"")
    storage.remove("x/stop")
    assert not storage.exists("x/stop")


def test_a_log_is_what_all_processes_wrote_in_turn(storage: Storage) -> None:
    assert storage.read_log("logs/s/0.log") == b""
    for text in ("first", "second"):
        log = storage.log("logs/s/0.log")
        with log.file.open("ab") as file:
            file.write(text.encode())
        log.keep()
        with log.file.open("ab") as file:
            file.write(b"!\n")
        log.close()
    assert storage.read_log("logs/s/0.log") == b"first!\nsecond!\n"
    assert storage.read_log("logs/s/0.log", 7) == b"second!\n"


def test_a_claim_is_held_by_one_and_then_by_the_next(storage: Storage) -> None:
    with storage.claim("stages/flow/k.claim") as ours:
        assert ours
        assert storage.is_claimed("stages/flow/k.claim")
        with storage.claim("stages/flow/k.claim") as too:
            assert not too
    assert not storage.is_claimed("stages/flow/k.claim")
    with storage.claim("stages/flow/k.claim") as ours:
        assert ours


def test_a_broken_product_is_built_again(storage: Storage) -> None:
    def build(folder: Path, progress: Progress, work: StageWork) -> None:
        (folder / "product").write_text("whole")

    cache = StageCache(storage)
    stage = Stage("flow", {}, [], 0, build)
    found = cache.obtain(stage, "k")
    assert found.trained
    assert not cache.obtain(stage, "k").trained
    (found.folder / "product").write_text("damaged")
    again = cache.obtain(stage, "k")
    assert again.trained == isinstance(storage, Folder)  # else it was this node's copy alone
    assert (again.folder / "product").read_text() == "whole"
    whole = [entry for entry in cache.entries() if entry.state == "whole"]
    assert [(entry.name, entry.key) for entry in whole] == [("flow", "k")]
    storage.remove(whole[0].place)
    assert not [entry for entry in cache.entries() if entry.state == "whole"]


def test_a_build_that_breaks_off_goes_on_from_the_state_that_it_saved(storage: Storage) -> None:
    found: list[str] = []

    def build(folder: Path, progress: Progress, work: StageWork) -> None:
        if not work.load("half", lambda state: found.append((state / "half").read_text())):
            for half in ("first", "second"):
                work.save("half", functools.partial(put, half))
            raise RuntimeError("no power")
        (folder / "product").write_text("whole")

    def put(half: str, state: Path) -> None:
        (state / "half").write_text(half)

    cache, stage = StageCache(storage), Stage("flow", {}, [], 0, build)
    with pytest.raises(RuntimeError, match="no power"):
        cache.obtain(stage, "k")
    assert storage.children("stages/flow/k.work/half") == ["00000002"]
    assert cache.obtain(stage, "k").trained
    assert found == ["second"]
    assert storage.children("stages/flow/k.work") == []


CONTENDER = """
import sys, time
from posetune.storage import open_storage

storage = open_storage(sys.argv[1])
left = int(sys.argv[2])
while left:
    with storage.claim("c.claim") as ours:
        if ours:
            left -= 1
            begun = time.time()
            time.sleep(0.1)
            print(begun, time.time(), flush=True)
    time.sleep(0.02)
"""


def test_a_product_is_found_on_a_node_that_has_no_copy_yet(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(folder: Path, progress: Progress, work: StageWork) -> None:
        (folder / "product").write_text("whole")

    built = StageCache(open_storage(bucket)).obtain(Stage("flow", {}, [], 0, build), "k")
    monkeypatch.setenv("POSETUNE_CACHE", str(tmp_path / "another-node"))
    cache = StageCache(open_storage(bucket))
    found = cache.find("flow", "k")
    assert found is not None
    assert found != built.folder
    assert (found / "product").read_text() == "whole"
    assert cache.find("flow", "other") is None


def test_a_product_that_is_broken_in_the_bucket_is_built_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(folder: Path, progress: Progress, work: StageWork) -> None:
        (folder / "product").write_text("whole")

    storage, stage = open_storage(bucket), Stage("flow", {}, [], 0, build)
    cache = StageCache(storage)
    assert cache.obtain(stage, "k").trained
    (product,) = (n for n in storage.children("stages/flow/k") if n != "product.json")
    with storage.writing(f"stages/flow/k/{product}") as folder:
        (folder / "product").write_text("damaged")
    monkeypatch.setenv("POSETUNE_CACHE", str(tmp_path / "another-node"))
    again = cache.obtain(stage, "k")
    assert again.trained
    assert (again.folder / "product").read_text() == "whole"


@pytest.mark.slow
def test_no_two_of_many_processes_hold_a_claim_at_once(bucket: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, bucket, "3"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(5)
    ]
    held = []
    for number, process in enumerate(processes):
        lines = process.communicate(timeout=300)[0].splitlines()
        held += [(*map(float, line.split()), number) for line in lines]
    held.sort()
    assert all(end <= begun for (_, end, _), (begun, _, _) in pairwise(held))
    assert Counter(number for _, _, number in held) == dict.fromkeys(range(5), 3)


def test_what_is_on_s3_is_fetched_once_and_again_when_it_was_replaced(bucket: str) -> None:
    storage = open_storage(bucket)
    write(storage, "stores/a", x=b"old")
    address = storage.uri("stores/a")
    first = open_folder(address)
    assert (first / "x/deep/content").read_bytes() == b"old"
    inode = (first / "x/deep/content").stat().st_ino
    assert open_folder(address) == first
    assert (first / "x/deep/content").stat().st_ino == inode
    write(storage, "stores/a", x=b"newer")
    assert (open_folder(address) / "x/deep/content").read_bytes() == b"newer"
    with pytest.raises(BadInputError, match="nothing is stored there"):
        open_folder(storage.uri("stores/b"))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("gs://bucket/x", "gs://: is not supported"),
        ("s3://key:planted-secret@bucket/x", "read from the environment"),
        ("s3://bucket/x?secret_key=planted-secret", "read from the environment"),
        ("s3://", "give s3://BUCKET/PREFIX"),
        ("s3://Bucket_/x", "give s3://BUCKET/PREFIX"),
    ],
)
def test_another_address_is_refused_without_showing_its_secret(address: str, said: str) -> None:
    with pytest.raises(BadInputError, match=said) as refused:
        open_storage(address)
    assert "planted-secret" not in str(refused.value)
