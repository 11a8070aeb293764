"""`posetune list`: find sweeps by tag, owner and state."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from posetune.cli.acting import study_of
from posetune.cli.options import AddressOption, HomeOption, JsonOption
from posetune.cli.relay import relay
from posetune.cli.screen import console, print_json
from posetune.report.leaderboard import STATE_STYLES
from posetune.report.steering import shown_tags
from posetune.study.reading import list_sweeps
from posetune.study.states import SweepStatus
from posetune.study.view import SweepView

__all__ = ["list"]


def list(  # noqa: A001 - the command's name
    tag: Annotated[
        str | None, typer.Option(help="Only sweeps with this tag: NAME or NAME=VALUE.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option(help="Only sweeps that this person started: NAME or NAME@HOST.")
    ] = None,
    state: Annotated[
        SweepStatus | None, typer.Option(help="Only sweeps in this state.", case_sensitive=False)
    ] = None,
    home: HomeOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the sweeps of a study, newest first, with owner, tags and notes.

    posetune list --owner ana --state running

    posetune list --tag paper=figure-3
    """
    if address is not None:
        given = {"--tag": tag, "--owner": owner, "--state": state}
        more = [word for name, value in given.items() if value for word in (name, str(value))]
        raise relay("list", *more, address=address, home=home, as_json=as_json)
    views = [
        view
        for view in list_sweeps(study_of(home))
        if _has_tag(view, tag) and _is_of(view, owner) and state in (None, view.state)
    ]
    if as_json:
        print_json({"sweeps": [_as_json(view) for view in views]})
        return
    table = Table("sweep", "state", "trials", "owner", "tags", "newest note", box=SIMPLE)
    for view in views:
        table.add_row(
            view.name,
            Text(view.state, STATE_STYLES.get(view.state, "")),
            f"{sum(trial.state.is_end for trial in view.trials)}/{view.most_trials}",
            Text(view.owner),
            Text(shown_tags(view.tags)),
            Text(view.remarks[-1].text if view.remarks else ""),
        )
    console.print(table)


def _has_tag(view: SweepView, tag: str | None) -> bool:
    if tag is None:
        return True
    name, separator, value = tag.partition("=")
    return name in view.tags and (not separator or view.tags[name] == value)


def _is_of(view: SweepView, owner: str | None) -> bool:
    return owner is None or owner in (view.owner, view.owner.partition("@")[0])


def _as_json(view: SweepView) -> dict[str, Any]:
    return {
        "name": view.name,
        "state": view.state,
        "owner": view.owner,
        "held_by": view.held_by,
        "tags": view.tags,
        "notes": [remark._asdict() for remark in view.remarks],
        "trials": len(view.trials),
        "most_trials": view.most_trials,
        "started": view.started,
    }
