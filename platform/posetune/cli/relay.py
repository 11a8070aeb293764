"""Runs a command on a cluster's head and shows what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from posetune.api import BadInputError
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.storage import open_storage

__all__ = ["MLFLOW_LINE", "ask_head", "is_job_server", "relay", "store_on_cluster"]

MLFLOW_LINE = "MLflow: "
"""How the line with the address of the sweep's run begins: `submit` looks for it."""


def is_job_server(address: str) -> bool:
    """Whether an address is a head's job server, rather than a cluster to join."""
    return address.startswith(("http://", "https://"))


def relay(
    *arguments: str,
    address: str,
    home: Path | None,
    as_json: bool,
    source: str = "",
    trainable: str = "",
) -> typer.Exit:
    """Run a command on the head and show its output; raise what is returned.

    Args:
        arguments: the words behind `posetune`.
        address: the head's job server.
        home: the home on the head.
        as_json: print what the command says as one JSON object.
        source: text of a sweep file that travels along, as sweep.yaml.
        trainable: the trainable that it names, whose package travels along.
    """
    from posetune.execution.jobs.parcel import Parcel
    from posetune.execution.jobs.sweep_jobs import run_there

    parcel = Parcel(Home.resolve(home), source=source, trainable=trainable)
    if as_json:
        code, found = ask_head(*arguments, address=address, parcel=parcel)
        print_json(found)
        return typer.Exit(code)
    parcel = replace(parcel, columns=console.width)

    def show(text: str) -> None:
        console.out(text, end="", highlight=False)

    return typer.Exit(run_there(arguments, parcel, address, show=show))


def ask_head(*arguments: str, address: str, parcel: Any) -> tuple[int, Any]:
    """Run a command with --json on the head; return its exit code and the JSON.

    A command that gives no JSON shows what it says instead, and ends this one.
    """
    from posetune.execution.jobs.sweep_jobs import run_there

    log: list[str] = []
    code = run_there([*arguments, "--json"], parcel, address, show=log.append)
    lines = "".join(log).splitlines()
    try:
        # Standard error stands there too; the object's braces are lines of their own.
        begin, end = lines.index("{"), len(lines) - lines[::-1].index("}")
        return code, json.loads("\n".join(lines[begin:end]))
    except ValueError:
        console.out("\n".join(lines), highlight=False)
        raise typer.Exit(code or 1) from None


def store_on_cluster(given: str | None, named: str | None) -> str:
    """Return the address of a store that is not on this machine.

    Args:
        given: what --store says.
        named: what the sweep file says.

    Raises:
        BadInputError: neither names one.
    """
    if given is None and named is None:
        raise BadInputError("no store: name one with --store, or as `store:` in the sweep file")
    return open_storage(given or named or "").address
