"""Lets an alias move only when a second person agrees.

`registry: {champion: {approve: 1}}` in the home's `posetune.yaml` asks for it. A promotion that the
gate lets pass then leaves the alias where it is, and the version gets a tag that says who promoted
it and which version it would replace. `approve` adds the name of another person; with the last one
that is needed the alias moves, and both names stay on the version, beside the gate's evidence.

It is a record of who agreed, and keeps mistakes away; who may write to MLflow can do without.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from posetune.api import BadInputError
from posetune.promotion.models import Version
from posetune.tracking.server.connection import patiently

__all__ = [
    "APPROVED_TAG",
    "PROMOTED_TAG",
    "Waiting",
    "ask_for_approval",
    "check_approver",
    "forget_waiting",
    "waiting_of",
    "write_waiting",
]

PROMOTED_TAG, APPROVED_TAG = "posetune.promoted_by.", "posetune.approved_by."
"""How the tags of a version begin that say who promoted and who approved it; the alias follows."""
_WAITS = "posetune.waits."


@dataclass(frozen=True)
class Waiting:
    """Says what a version waits for."""

    alias: str
    by: str
    """Who promoted it, as person@host."""
    replaces: int | None
    """Number of the version that the alias pointed at then; None where it pointed at none."""
    sweep: str
    needed: int
    """How many other persons have to approve it."""
    approved: list[str] = field(default_factory=list)
    """Who did so far, as person@host."""
    at: float = 0.0
    """When it was promoted; seconds since the epoch."""

    @property
    def left(self) -> int:
        """How many persons are still needed."""
        return max(0, self.needed - len(self.approved))


def ask_for_approval(
    client: MlflowClient, version: Version, waiting: Waiting, decision: str
) -> None:
    """Let a version wait for other persons.

    Args:
        client: of the registry.
        version: the version.
        waiting: what it waits for.
        decision: the gate's decision in a word.
    """
    text = f"{waiting.by} ({decision})"
    _tag(client, version, PROMOTED_TAG + waiting.alias, text)
    _untag(client, version, APPROVED_TAG + waiting.alias)  # of a promotion before
    write_waiting(client, version, replace(waiting, at=time.time()))


def write_waiting(client: MlflowClient, version: Version, waiting: Waiting) -> None:
    """Write down what a version waits for, and who approved it."""
    names = ", ".join(waiting.approved)
    if names:
        _tag(client, version, APPROVED_TAG + waiting.alias, names)
    _tag(client, version, _WAITS + waiting.alias, json.dumps(asdict(waiting)))


def forget_waiting(client: MlflowClient, version: Version, alias: str) -> None:
    """Say that a version waits no more."""
    _untag(client, version, _WAITS + alias)


def waiting_of(version: Version) -> dict[str, Waiting]:
    """Return what a version waits for, by alias."""
    return {
        name.removeprefix(_WAITS): Waiting(**json.loads(value))
        for name, value in version.tags.items()
        if name.startswith(_WAITS)
    }


def check_approver(waiting: Waiting, by: str, where: str) -> None:
    """Refuse a person who has said yes already, by promoting or by approving.

    Raises:
        BadInputError: says who it was.
    """
    person = by.partition("@")[0]
    said = [waiting.by, *waiting.approved]
    if person in {name.partition("@")[0] for name in said}:
        raise BadInputError(
            f"{where}: you are {person}, and {' and '.join(said)} said yes already; another person "
            "has to approve it"
        )


def _tag(client: MlflowClient, version: Version, key: str, value: str) -> None:
    model, number = version.model, str(version.number)
    patiently(lambda: client.set_model_version_tag(model, number, key, value))


def _untag(client: MlflowClient, version: Version, key: str) -> None:
    """Take a tag away, if it is there."""
    model, number = version.model, str(version.number)
    try:
        patiently(lambda: client.delete_model_version_tag(model, number, key))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
