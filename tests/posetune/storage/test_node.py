"""A node's copies stay within a limit, and those that a process uses are never removed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.sweeps import until

from posetune.api import BadInputError
from posetune.storage import fetch_progress
from posetune.storage.fetch_progress import saying_how_far
from posetune.storage.node import fetch_once, make_space

FETCHER = """
import os, sys
from pathlib import Path
from posetune.storage.node import fetch_once

def fetch(folder):
    (folder / "content").write_bytes(bytes(1000))
    if sys.argv[1] == "dies":
        os._exit(1)

for copy in sys.argv[2:]:
    fetch_once(Path(copy), fetch)
"""

OTHER_USER = """
import os, sys
from pathlib import Path
from posetune.storage.node import fetch_once, make_space

os.setuid(65534)
fetch_once(Path(sys.argv[1]), lambda partial: sys.exit("it is there"))
make_space(10_000)
"""

OPENER = """
import sys
from posetune.storage import open_folder

print(open_folder(sys.argv[1]))
"""


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of copies of stores of a node that has none yet; its limit is 2.5 kB."""
    monkeypatch.setenv("POSETUNE_CACHE", str(tmp_path))
    monkeypatch.setenv("POSETUNE_CACHE_GB", "2.5e-6")
    return tmp_path / "stores"


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_the_copy_that_was_not_asked_for_longest_is_removed_but_none_that_is_in_use(
    stores: Path,
) -> None:
    assert run(FETCHER, "ends", *(stores / name for name in "abcd")).returncode == 0
    fetch_once(stores / "a", lambda partial: pytest.fail("it is there"))
    os.utime(stores / "a.used", (0, 0))  # in use for very long
    make_space(500)
    assert names(stores) == ["a", "d"]
    assert (stores / "a" / "content").read_bytes() == bytes(1000)
    make_space(10_000)  # more than the limit by itself
    assert names(stores) == ["a"]


def test_what_a_fetch_that_died_has_left_is_removed(stores: Path) -> None:
    assert run(FETCHER, "dies", stores / "a").returncode == 1
    assert names(stores) == ["a.partial"]
    make_space(2000)
    assert names(stores) == []


def test_nothing_is_removed_within_the_limit(stores: Path) -> None:
    run(FETCHER, "ends", stores / "a", stores / "b")
    make_space(500)
    assert names(stores) == ["a", "b"]


def test_another_users_copy_is_shared_and_not_removed(
    monkeypatch: pytest.MonkeyPatch, required: Callable[[str, bool, str], None]
) -> None:
    required("root", os.geteuid() == 0, "be root, to become another user")
    monkeypatch.setenv("POSETUNE_CACHE_GB", "0")
    with tempfile.TemporaryDirectory(prefix="copies-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("POSETUNE_CACHE", folder)
        stores = Path(folder) / "stores"
        assert run(FETCHER, "ends", stores / "a", stores / "b").returncode == 0
        ended = run(OTHER_USER, stores / "a")
        assert ended.returncode == 0, ended.stderr
        assert names(stores) == ["a", "b"]


@pytest.mark.parametrize("given", ["much", "-1", "nan", ""])
def test_a_limit_that_is_no_size_is_refused(
    stores: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("POSETUNE_CACHE_GB", given)
    with pytest.raises(BadInputError, match=f"^POSETUNE_CACHE_GB={given}: must be the size in GB"):
        make_space(1)


@pytest.mark.slow
def test_a_store_on_s3_makes_way_for_another_that_is_fetched_later(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posetune.storage import open_storage

    for name in "ab":
        with open_storage(bucket).writing(name) as folder:
            (folder / "content").write_text(name)
    monkeypatch.setenv("POSETUNE_CACHE_GB", "0")
    first, second = (Path(run(OPENER, f"{bucket}/{name}").stdout.strip()) for name in "ab")
    assert not first.exists()
    assert (second / "content").read_text() == "b"


def test_a_long_fetch_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetch_progress, "EVERY_S", 0.01)
    with saying_how_far(tmp_path, "s3://bucket/store", 200_000_000):
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "file").write_bytes(bytes(50_000_000))
        line = "s3://bucket/store: 0.05 of 0.20 GB are fetched to this node (25 %)"
        until(lambda: line in capsys.readouterr().err.splitlines())
