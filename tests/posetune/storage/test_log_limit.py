"""A log keeps its beginning and its end, whatever is printed into it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from support.sweeps import until

from posetune.cli.commands.results.logs import _Tail
from posetune.storage import open_storage
from posetune.storage.log_limit import HEAD_BYTES, LOG_BYTES, TAIL_BYTES, cut_log, limited

SAID = re.compile(rb"\[posetune: (\d+) bytes left out here; ")


def lines(first: int, count: int) -> bytes:
    return b"".join(
        b"line %09d of what a trial prints again and again\n" % n
        for n in range(first, first + count)
    )


@pytest.mark.parametrize("times", [1, 3])
def test_a_log_that_is_cut_keeps_its_ends_and_says_how_much_is_left_out(
    tmp_path: Path, times: int
) -> None:
    file, written = tmp_path / "log", b""
    for n in range(times):
        more = lines(300_000 * n, 300_000)
        written += more
        with file.open("ab") as log:
            log.write(more)
        cut_log(file)
    kept = file.read_bytes()
    assert len(kept) < HEAD_BYTES + TAIL_BYTES + 500
    assert kept[:HEAD_BYTES] == written[:HEAD_BYTES]
    assert kept.endswith(written[-TAIL_BYTES // 2 :])
    (left_out,) = SAID.findall(kept)
    gap = kept[HEAD_BYTES:].split(b"\n", 2)
    assert int(left_out) == len(written) - HEAD_BYTES - len(gap[2])


def test_a_small_log_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(lines(0, 1000))
    cut_log(file)
    assert file.read_bytes() == lines(0, 1000)


def test_what_is_printed_within_an_epoch_is_cut_while_it_is_printed(tmp_path: Path) -> None:
    log = limited(open_storage(tmp_path / "storage").log("sweep/0.log"))
    printed = os.open(log.file, os.O_APPEND | os.O_WRONLY | os.O_CREAT)  # as a process holds it
    try:
        for n in range(2):
            os.write(printed, lines(400_000 * n, 400_000))
            until(lambda: log.file.stat().st_size <= LOG_BYTES)
        os.write(printed, b"its last words\n")
    finally:
        os.close(printed)
        log.close()
    kept = log.file.read_bytes()
    assert kept.startswith(lines(0, 10))
    assert kept.endswith(lines(799_999, 1) + b"its last words\n")
    assert SAID.search(kept)


@pytest.mark.slow
def test_who_follows_a_log_that_is_cut_sees_what_comes_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = open_storage(tmp_path)
    tail, file = _Tail(storage, "0.log"), tmp_path / "0.log"
    file.write_bytes(lines(0, 220_000))
    tail.show()
    cut_log(file)
    tail.show()
    capsys.readouterr()
    with file.open("ab") as log:
        log.write(b"its last words\n")
    tail.show()
    assert capsys.readouterr().err == "its last words\n"
