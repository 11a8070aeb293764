"""`posetune queue`: who holds what of a cluster, and who waits for what."""

from __future__ import annotations

from dataclasses import asdict

from posetune.cli.acting import study_of
from posetune.cli.options import AddressOption, HomeOption, JsonOption
from posetune.cli.relay import relay
from posetune.cli.screen import console, print_json
from posetune.report.queue import queue_table, waiting_lines
from posetune.study.sharing.queue import read_queue

__all__ = ["queue"]


def queue(
    home: HomeOption = None, address: AddressOption = None, as_json: JsonOption = False
) -> None:
    """Say which sweeps are at work, what each holds, and what it waits for.

    Sweeps of one study that are driven on the same cluster share its slots by `cluster.priority`
    and `cluster.share` of their files; "may have" is what follows from that now. Where a sweep
    shares its cluster with no other, that column is empty. Priority and share are shown where they
    differ, and below the table stands what each sweep waits for.

      posetune queue

      posetune queue --json
    """
    if address is not None:
        raise relay("queue", address=address, home=home, as_json=as_json)
    entries = read_queue(study_of(home))
    if as_json:
        print_json({"sweeps": [asdict(entry) for entry in entries]})
        return
    if not entries:
        console.print("no sweep has a driver at work")
        return
    console.print(queue_table(entries))
    waiting = waiting_lines(entries)
    if waiting:
        console.print("waits for:")
    for line in waiting:
        console.print(f"  {line}", soft_wrap=True)
