"""`posetune ui`: opens the MLflow UI on a home."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posetune.api import BadInputError
from posetune.cli.options import (
    HomeOption,
    JsonOption,
)
from posetune.home import Home
from posetune.notifications.notifier import sending
from posetune.study.tables.database import open_database

if TYPE_CHECKING:  # importing MLflow takes seconds
    from posetune.tracking.saved_views import SweepLinks

__all__ = ["ui"]

NEWEST = 3
"""Number of sweeps that the command prints links of."""


def ui(
    home: HomeOption = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to serve on; other machines reach the server unless it is loopback."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port to serve on.", min=1, max=65535)] = 5000,
    as_json: JsonOption = False,
) -> None:
    """Open the MLflow UI on this home, with a link for each of the newest sweeps; Ctrl-C ends it.

    Messages that wait since no driver lives are sent meanwhile.

    posetune ui --port 5001
    """
    from posetune.tracking.saved_views import sweep_links
    from posetune.tracking.server.ui import serve_ui

    resolved = Home.resolve(home)
    if not resolved.folder.is_dir():
        raise BadInputError(
            f"no home at {resolved.folder}: nothing has run there yet; name the one to show with "
            "--home (posetune sweep FILE makes one)"
        )
    resolved.prepare()

    def say(state: str, what: str) -> None:
        links: list[SweepLinks] = []
        if state == "running":
            with contextlib.suppress(BadInputError):  # there is no study yet
                database = open_database(resolved.database, create=False)
                links = sweep_links(database, resolved, what, most=NEWEST)
        (_say_json if as_json else _say)(state, what, links)

    with _sending(resolved):
        code = serve_ui(resolved, host=host, port=port, say=say)
    raise typer.Exit(code)


@contextmanager
def _sending(home: Home) -> Iterator[None]:
    """Send the messages that wait in the study, if there is one, while the UI is open."""
    try:
        database = open_database(home.database, create=False)
    except BadInputError:  # MLflow can be shown without a study
        yield
        return
    with sending(database, home):
        yield


def _say(state: str, what: str, links: Sequence[SweepLinks]) -> None:
    lines = {"starting": "starting MLflow on {} (Ctrl-C ends it)", "running": "MLflow runs at {}"}
    print(lines.get(state, "MLflow ended: {}").format(what), flush=True)
    for link in links:
        print(f"sweep {link.sweep}\n  its trials, best first      {link.trials}")
        if link.best:
            print(f"  the best beside each other  {link.best}", flush=True)


def _say_json(state: str, what: str, links: Sequence[SweepLinks]) -> None:
    """Print a state as one line of JSON, so that the reader of a stream sees where it ends."""
    line: dict[str, Any] = {"state": state, ("why" if state == "ended" else "address"): what}
    if state == "running":
        line["sweeps"] = [dataclasses.asdict(link) for link in links]
    print(json.dumps(line), flush=True)
