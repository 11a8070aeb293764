"""`posetune stop`: asks a running sweep to stop."""

from __future__ import annotations

import time
from typing import Any

from posetune.api import BadInputError
from posetune.cli.options import AddressOption, HomeOption, JsonOption, SweepArgument
from posetune.cli.relay import relay
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.provenance import this_person
from posetune.study.reading import read_sweep
from posetune.study.states import SweepStatus
from posetune.study.tables.database import open_database
from posetune.study.tables.lease import ask_to_stop

__all__ = ["stop"]

STOP_S = 60.0
"""Seconds for which `stop` waits for the driver's end."""


def stop(
    name: SweepArgument,
    home: HomeOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a running sweep to stop: its trials save where they are, and it can be continued.

    posetune stop first

    posetune stop big --address http://head:8265 --home /shared/runs
    """
    if address is not None:
        raise relay("stop", name, address=address, home=home, as_json=as_json)

    database = open_database(Home.resolve(home).database, create=False)
    view = read_sweep(database, name)
    if not ask_to_stop(database, view.id, who=this_person()):
        raise BadInputError(f"sweep {name}: has no driver to stop; it is {view.state}")
    deadline = time.monotonic() + STOP_S
    with console.status(f"waiting for the driver of {name}"):
        while (view := read_sweep(database, name)).state == SweepStatus.RUNNING:
            if time.monotonic() > deadline:
                raise BadInputError(
                    f"sweep {name}: its driver was asked to stop, and runs on after {STOP_S:.0f} "
                    f"s; it stops when it next renews its lease (see posetune logs {name})"
                )
            time.sleep(0.3)
    outcome: dict[str, Any] = {"sweep": name, "state": view.state, "stopped": view.stopped}
    if as_json:
        print_json(outcome)
    else:
        console.print(f"sweep {name}: {view.state}, {view.stopped}")
        console.print("Next: the command that started it continues it")
