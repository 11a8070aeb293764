"""`posetune logs`: what happened to a sweep, event by event."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.options import AddressOption, HomeOption, JsonOption, SweepArgument
from posetune.cli.relay import relay
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.storage import Storage
from posetune.study.history import read_history
from posetune.study.reading import read_sweep
from posetune.study.states import SweepStatus
from posetune.study.tables.database import open_database
from posetune.trial.checkpoints import log_file

__all__ = ["logs"]

FOLLOW_S = 1.0
"""Seconds between two looks for new events."""


def logs(
    name: SweepArgument,
    home: HomeOption = None,
    trial: Annotated[
        int | None,
        typer.Option(
            "--trial",
            help="Number of the only trial to show, with what its processes printed.",
            min=0,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show new events until the sweep ends.")
    ] = False,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what happened to a sweep, event by event, from its study.

    posetune logs first

    posetune logs first --trial 3 --follow
    """
    if address is not None:
        of_trial = [] if trial is None else ["--trial", str(trial)]
        arguments = ["logs", name, *of_trial, *(["--follow"] if follow else [])]
        raise relay(*arguments, address=address, home=home, as_json=as_json)

    resolved = Home.resolve(home)
    database = open_database(resolved.database, create=False)
    view = read_sweep(database, name)
    if trial is not None and trial >= len(view.trials):
        raise BadInputError(
            f"--trial {trial}: there is no such trial; sweep {name} has {len(view.trials)} so far, "
            "numbered from 0"
        )
    if as_json:
        print_json({"events": [asdict(h) for h in read_history(database, view.id, trial=trial)]})
        return
    printed = _Tail(resolved.storage, None if trial is None else log_file(name, trial))
    seen = 0
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            is_live = read_sweep(database, name).state == SweepStatus.RUNNING if follow else False
            for happening in read_history(database, view.id, trial=trial, after=seen):
                seen = happening.seq
                who = "sweep" if happening.trial is None else f"trial {happening.trial}"
                at = datetime.fromtimestamp(happening.at).strftime("%Y-%m-%d %H:%M:%S")
                console.out(f"{at} {who}: {happening.text}", highlight=False)
            printed.show()
            if not is_live:
                return
            time.sleep(FOLLOW_S)


class _Tail:
    """Shows what is appended to a log, which need not exist yet."""

    def __init__(self, storage: Storage, log: str | None) -> None:
        self._storage = storage
        self._log = log
        self._shown = 0

    def show(self) -> None:
        if self._log is None:
            return
        new = self._storage.read_log(self._log, self._shown)
        if not new and self._shown and not self._storage.read_log(self._log, self._shown - 1):
            # It is shorter than what was shown: its middle was cut out. Go on from its end of now.
            self._shown = len(self._storage.read_log(self._log))
        self._shown += len(new)
        if new:
            console.out(new.decode(errors="replace").rstrip(), highlight=False)
