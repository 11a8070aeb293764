"""`posetune notify`: which messages wait, sending them, and trying a destination."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from posetune.api import BadInputError
from posetune.cli.options import HomeOption, JsonOption
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.notifications.delivery import count_waiting, merged, send_waiting
from posetune.notifications.messages import sample_message
from posetune.notifications.senders import NotSentError, send
from posetune.notifications.wording import notification_line, waiting_json
from posetune.spec.home_file import HOME_FILE, read_home_destinations
from posetune.spec.loading import load_sweep
from posetune.spec.notify import Destination
from posetune.study.tables.database import open_database

__all__ = ["notify"]


def notify(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="With --test: a sweep file, whose destinations are tried too.",
            show_default=False,
        ),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Send a sample message to every destination.")
    ] = False,
    flush: Annotated[
        bool, typer.Option("--flush", help="Send what waits, but for what a live driver will send.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which messages wait, send them, or try a destination.

    Destinations stand under `notify` in a sweep file, and for all sweeps in posetune.yaml in the
    home. A driver sends their messages by itself; this is for those that it left.

    posetune notify

    posetune notify --test sweep.yaml

    posetune notify --flush --home runs
    """
    if test and flush:
        raise BadInputError("--test and --flush: give one of the two")
    if file is not None and not test:
        raise BadInputError(
            f"{file}: a sweep file goes with --test; messages are sent to the destinations that "
            "the last driver of their sweep had, or that posetune.yaml has now"
        )
    resolved = Home.resolve(home)
    if test:
        raise _try_all(_destinations(file, resolved), as_json=as_json)
    database = open_database(resolved.database, create=False)
    if not flush:
        waiting = count_waiting(database)
        if as_json:
            print_json({"waiting": waiting_json(waiting)})
        else:
            _say(notification_line(waiting) or "no message waits")
        return
    report = send_waiting(database, resolved)
    if as_json:
        print_json({"sent": report.sent, "waiting": waiting_json(report.waiting)})
    else:
        left = notification_line(report.waiting)
        _say(f"sent {report.sent}" + (f"; {left}" if left else ""))
    raise typer.Exit(1 if report.waiting else 0)


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)


def _destinations(file: Path | None, home: Home) -> tuple[Destination, ...]:
    of_sweep = () if file is None else load_sweep(file)[0].notify
    destinations = merged(of_sweep, read_home_destinations(home.folder))
    if not destinations:
        raise BadInputError(
            f"notify: no destination in {home.folder / HOME_FILE}"
            + (f" or {file}" if file else "; name a sweep file that has some, or write one there")
        )
    return destinations


def _try_all(destinations: tuple[Destination, ...], *, as_json: bool) -> typer.Exit:
    """Send a sample to each destination, and say how that went."""
    message = sample_message(time.time())
    found: list[dict[str, Any]] = []
    for destination in destinations:
        try:
            send(destination, message)
        except NotSentError as error:
            found.append({"destination": destination.key, "sent": False, "error": str(error)})
        else:
            found.append({"destination": destination.key, "sent": True, "error": ""})
        if not as_json:
            said = f"not sent: {found[-1]['error']}" if found[-1]["error"] else "sent"
            _say(f"{destination.key}: {said}")
    if as_json:
        print_json({"id": message.id, "destinations": found})
    return typer.Exit(0 if all(one["sent"] for one in found) else 1)
