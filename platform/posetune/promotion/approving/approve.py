"""Approves a version that waits for a second person, and moves the alias with the last of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from posetune.api import BadInputError
from posetune.home import Home
from posetune.promotion.aliases import AliasMove, number_of
from posetune.promotion.approving.approval import (
    Waiting,
    check_approver,
    forget_waiting,
    waiting_of,
    write_waiting,
)
from posetune.promotion.models import Version, find_alias, find_number
from posetune.promotion.request import Request
from posetune.tracking.server.connection import connect, exclusive, mlflow_faults_explained

__all__ = ["Approval", "approve", "evidence_of"]

_GIVEN = re.compile(r"(?:models:/)?(?P<model>[^/@]+)/(?P<number>\d{1,9})")


@dataclass(frozen=True)
class Approval:
    """Says what has become of a version that waits."""

    model: str
    version: int
    alias: str
    promoted_by: str
    approved_by: list[str]
    left: int
    """How many persons are still needed; 0 where the alias has moved."""
    replaced: int | None
    """Number of the version that the alias pointed at before."""
    decision: dict[str, Any]
    """The gate's decision with its numbers."""


def evidence_of(home: Home, given: str, alias: str | None = None) -> Approval:
    """Return what a version waits for, and the evidence; change nothing.

    Args:
        home: where the registry is.
        given: the version, MODEL/NUMBER.
        alias: the alias; None takes the only one that it waits for.

    Raises:
        BadInputError: there is no such version, or it waits for nothing.
    """
    with mlflow_faults_explained(home):
        version = _find(home, given)
        return _approval(version, _waiting(version, alias))


def approve(home: Home, given: str, alias: str | None = None, *, by: str) -> Approval:
    """Add a person's approval; with the last that is needed the alias moves.

    A command that was killed in between is ended by the same command of the same person.

    Args:
        home: where the registry is.
        given: the version, MODEL/NUMBER.
        alias: the alias; None takes the only one that it waits for.
        by: who approves it, as person@host.

    Raises:
        BadInputError: there is no such version, it waits for nothing, the person has said yes
            already, the alias moved meanwhile, or the version's files are damaged.
    """
    model = _parsed(given)["model"]
    with mlflow_faults_explained(home):
        client = connect(home)
        with exclusive(home.folder, f"approval-{model}"):
            version = _find(home, given)
            waiting = _waiting(version, alias)
            where = f"{version.uri} as {waiting.alias}"
            if waiting.left or by not in waiting.approved:
                check_approver(waiting, by, where)
                waiting = replace(waiting, approved=[*waiting.approved, by])
                _check_unmoved(home, version, waiting)
                write_waiting(client, version, waiting)
            if not waiting.left:
                _move(home, version, waiting, by=by)
                forget_waiting(client, version, waiting.alias)
    return _approval(version, waiting)


def _move(home: Home, version: Version, waiting: Waiting, *, by: str) -> None:
    client = connect(home)
    present = find_alias(client, version.model, waiting.alias)
    if number_of(present) == version.number:
        return  # whoever was killed here had moved it
    before = _replaced(home, version, waiting)
    request = Request(waiting.sweep, version.model, waiting.alias, by=by)
    AliasMove(client, home, request, before).move(
        version, did=f"approval of what {waiting.by} promoted"
    )


def _replaced(home: Home, version: Version, waiting: Waiting) -> Version | None:
    if waiting.replaces is None:
        return None
    return find_number(connect(home), version.model, str(waiting.replaces))


def _check_unmoved(home: Home, version: Version, waiting: Waiting) -> None:
    """Refuse an approval of what was judged against another version than the present one."""
    now = number_of(find_alias(connect(home), version.model, waiting.alias))
    if now not in (waiting.replaces, version.number):
        raise BadInputError(
            f"models:/{version.model}@{waiting.alias}: moved meanwhile, from version "
            f"{waiting.replaces or 'none'} to {now or 'none'}; version {version.number} was not "
            "judged against it: promote it again"
        )


def _find(home: Home, given: str) -> Version:
    parts = _parsed(given)
    found = find_number(connect(home), parts["model"], parts["number"])
    if found is None:
        raise BadInputError(f"{given}: there is no such version (posetune ui shows them)")
    return found


def _parsed(given: str) -> re.Match[str]:
    parts = _GIVEN.fullmatch(given)
    if parts is None:
        raise BadInputError(f"{given}: must be MODEL/VERSION, e.g. selfpose/3")
    return parts


def _waiting(version: Version, alias: str | None) -> Waiting:
    found = waiting_of(version)
    if alias is None and len(found) > 1:
        raise BadInputError(
            f"{version.uri}: waits as {' and as '.join(found)}; name one with --alias"
        )
    if not found or alias not in (None, *found):
        waits = f"; it waits as {', '.join(found)}" if found else ""
        as_alias = f" as {alias}" if alias else ""
        raise BadInputError(f"{version.uri}: waits for no approval{as_alias}{waits}")
    return found[alias or next(iter(found))]


def _approval(version: Version, waiting: Waiting) -> Approval:
    decision = version.tags.get("posetune.decision", "{}")
    try:
        numbers = json.loads(decision)
    except ValueError:  # a tag that MLflow has cut
        numbers = {"gate": version.tags.get("posetune.gate", "")}
    return Approval(
        model=version.model,
        version=version.number,
        alias=waiting.alias,
        promoted_by=waiting.by,
        approved_by=waiting.approved,
        left=waiting.left,
        replaced=waiting.replaces,
        decision=numbers,
    )
