"""`posetune metrics`: a study as metrics for Prometheus."""

from __future__ import annotations

import re
from pathlib import Path
from signal import Signals
from typing import Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.acting import study_of
from posetune.cli.options import HomeOption, JsonOption
from posetune.cli.screen import print_json
from posetune.signals import take_signals
from posetune.study.tables.database import Database

__all__ = ["metrics"]


def metrics(
    listen: Annotated[
        str | None,
        typer.Option(help="Serve them at HOST:PORT until Ctrl-C.", show_default=False),
    ] = None,
    textfile: Annotated[
        Path | None,
        typer.Option(
            help="Write them into this file once, for node_exporter (its name ends in .prom).",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a study as metrics for Prometheus: trials, epochs, best, hours, what waits.

    Without an option they are printed. cluster/monitoring has alerts and a dashboard for them.

      posetune metrics

      posetune metrics --listen 127.0.0.1:9464

      posetune metrics --textfile /var/lib/node_exporter/posetune.prom
    """
    if listen is not None and textfile is not None:
        raise BadInputError("--listen and --textfile: give one of the two")
    place = None if listen is None else _address(listen)
    database = study_of(home)
    if place is not None:
        _serve(database, *place, as_json=as_json)
    elif textfile is not None:
        _write(database, textfile)
        if as_json:
            print_json({"file": str(textfile)})
    elif as_json:
        from posetune.workflow.exporter import METRICS, StudyMetrics

        print_json(
            {
                "metrics": [
                    {
                        "name": name,
                        "labels": dict(zip(METRICS[name][1], labels, strict=True)),
                        "value": value,
                    }
                    for name, labels, value in StudyMetrics(database).samples()
                ]
            }
        )
    else:
        from prometheus_client import generate_latest

        from posetune.workflow.exporter import registry_of

        print(generate_latest(registry_of(database)).decode(), end="")


def _address(listen: str) -> tuple[str, int]:
    parts = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})", listen)
    if parts is None or int(parts[2]) > 65535:
        raise BadInputError(f"--listen {listen}: must be HOST:PORT, e.g. 127.0.0.1:9464")
    return parts[1].strip("[]"), int(parts[2])


def _serve(database: Database, host: str, port: int, *, as_json: bool) -> None:
    from prometheus_client import start_http_server

    from posetune.workflow.exporter import registry_of

    try:
        server, thread = start_http_server(port, host, registry_of(database))
    except OSError as error:
        raise BadInputError(
            f"--listen {host}:{port}: cannot be served ({error.strerror}); give another port"
        ) from error
    address = f"http://{host}:{server.server_port}/metrics"
    if as_json:
        print_json({"address": address})
    else:
        print(f"metrics at {address} (Ctrl-C ends it)", flush=True)

    def end(_signal: Signals) -> bool:
        server.shutdown()
        return True

    with take_signals(end):
        thread.join()


def _write(database: Database, file: Path) -> None:
    from prometheus_client import write_to_textfile

    from posetune.workflow.exporter import registry_of

    try:
        write_to_textfile(str(file), registry_of(database))
    except OSError as error:
        raise BadInputError(f"--textfile {file}: cannot be written ({error.strerror})") from error
