"""The queue reads at 80 columns."""

from __future__ import annotations

import dataclasses
import io

from rich.console import Console

from posetune.report.queue import queue_table, waiting_lines
from posetune.study.sharing.queue import QueueEntry

WIDTH = 80
PART = "a larger part of the cluster, which others have by priority and share"
FULL = QueueEntry(
    sweep="heatmaps-night-full",
    owner="annabell@workstation-17",
    cluster="c",
    holds=12,
    cpu=2.0,
    gpu=1.0,
    open=188,
    entitled=12,
    wants=16,
    priority=0,
    share=1.0,
    waits_for=PART,
)
URGENT = dataclasses.replace(FULL, sweep="urgent", priority=10, share=2.5, waits_for="")


def lines(*entries: QueueEntry) -> list[str]:
    screen = Console(file=io.StringIO(), width=WIDTH)
    with screen.capture() as shown:
        screen.print(queue_table(entries))
    return shown.get().splitlines()


def row_of(entry: QueueEntry, shown: list[str]) -> list[str]:
    """The words of the line that begins with a sweep's name; owner and slot stand below it."""
    (at,) = [i for i, line in enumerate(shown) if line.split()[:1] == [entry.sweep]]
    assert shown[at + 1].split() == [entry.owner, "(2", "CPU,", "1", "GPU)"]
    return shown[at].split()


def test_a_sweep_has_two_lines_where_priority_and_share_differ() -> None:
    shown = lines(FULL, URGENT)
    assert row_of(FULL, shown) == [FULL.sweep, "0", "1", "12", "x", "12", "16", "188"]
    assert row_of(URGENT, shown) == ["urgent", "10", "2.5", "12", "x", "12", "16", "188"]
    assert max(map(len, shown)) <= WIDTH


def test_a_long_name_is_folded_and_the_numbers_are_whole() -> None:
    name = "a-sweep-with-a-name-that-is-longer-than-its-column"
    shown = lines(dataclasses.replace(FULL, sweep=name), URGENT)
    first = next(i for i, line in enumerate(shown) if line.strip().startswith("a-sweep"))
    assert shown[first].split()[1:] == ["0", "1", "12", "x", "12", "16", "188"]
    folded = "".join(line.split()[0] for line in shown[first : first + 5] if line.strip())
    assert folded.startswith(name + FULL.owner)


def test_priority_and_share_are_left_out_where_all_are_equal() -> None:
    shown = lines(FULL, dataclasses.replace(FULL, sweep="other"))
    assert "priority" not in "".join(shown)
    assert row_of(FULL, shown)[1:3] == ["12", "x"]


def test_what_a_sweep_waits_for_stands_in_a_line_of_its_own() -> None:
    assert "larger part" not in "".join(lines(FULL, URGENT))
    assert waiting_lines([FULL, URGENT]) == [f"{FULL.sweep}: {PART}"]
