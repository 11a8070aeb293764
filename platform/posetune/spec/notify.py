"""Says who wants to be told of what: the section `notify` of a sweep file and of `posetune.yaml`.

Every entry is a destination: a webhook, a Slack or Discord channel, or e-mail. A secret is never
written here, because a sweep file is kept in the study: an entry names the variable of the
environment or the file that holds it. The section is no part of what a sweep is, so it may change
at any time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    model_validator,
)
from pydantic_core import PydanticCustomError

from posetune.spec.parameters import Frozen

__all__ = [
    "EVENTS",
    "HIDDEN",
    "Destination",
    "Discord",
    "Email",
    "EventName",
    "Secret",
    "Slack",
    "Webhook",
    "check_distinct",
    "parse_destinations",
]

EventName: TypeAlias = Literal[
    "ended",
    "failed",
    "breaker",
    "new_best",
    "waiting",
    "budget",
    "held",
    "promoted",
    "rolled_back",
]
EVENTS: tuple[EventName, ...] = get_args(EventName)
"""Everything that a destination can be told of."""
HIDDEN = "hidden_value"
"""Type of a fault whose message does not repeat the value, because the value may be a secret."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_KEY = re.compile(r"(^|[&?])[^=&]*(pass|secret|token|key|sig)[^=&]*=", re.IGNORECASE)


def _check_variable(value: Any) -> Any:
    if isinstance(value, str) and not _VARIABLE.fullmatch(value):
        raise PydanticCustomError(HIDDEN, "must be the name of an environment variable")
    return value


class Secret(Frozen):
    """Says where a secret is: in a variable of the environment, or in a file of mode 600."""

    env: Annotated[str | None, BeforeValidator(_check_variable)] = Field(
        None, description="Name of the environment variable that holds the secret."
    )
    file: Path | None = Field(
        None,
        description="File that holds the secret in its first line; only its owner may read it "
        "(chmod 600).",
    )

    @model_validator(mode="after")
    def _is_one_place(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("give one of env and file")
        return self

    def __str__(self) -> str:
        return f"${self.env}" if self.env else str(self.file)


def _refuse_literal_secret(value: Any) -> Any:
    if isinstance(value, str):
        raise PydanticCustomError(
            HIDDEN,
            "is a secret, and a sweep file is kept in the study: give {env: NAME} or {file: PATH}",
        )
    return value


def _check_address(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PydanticCustomError(HIDDEN, "must be an address, https://... or http://...")
    if "@" in parts.netloc or _SECRET_KEY.search(parts.query):
        raise PydanticCustomError(
            HIDDEN,
            "holds a secret, and a sweep file is kept in the study: give {env: NAME} or "
            "{file: PATH}, where the whole address is",
        )
    return value


SecretPlace: TypeAlias = Annotated[Secret, BeforeValidator(_refuse_literal_secret)]
Address: TypeAlias = Annotated[str | Secret, BeforeValidator(_check_address)]


class _Entry(Frozen):
    """Is the base of every destination."""

    name: str = Field(
        "",
        max_length=100,
        description="Name of the destination. Messages that wait for it stay its own when its "
        "address changes. Default: its kind and address.",
    )
    events: tuple[EventName, ...] = Field(
        tuple(name for name in EVENTS if name != "new_best"),
        description="Events that are sent to the destination. Default: all but `new_best`.",
    )

    @property
    def kind(self) -> str:
        """The key that says which kind of destination it is."""
        return type(self).__name__.lower()

    @property
    def where(self) -> str:
        """Its address for people, without secrets."""
        return str(getattr(self, self.kind))

    @property
    def key(self) -> str:
        """The name by which messages are kept for it."""
        return self.name or f"{self.kind} {self.where}"

    def wants(self, event: str) -> bool:
        """Whether it is told of such events; a sample message goes to everyone."""
        return event in self.events or event == "test"


class Webhook(_Entry):
    """An HTTP server that takes a message as JSON, signed where a secret is given."""

    webhook: Address = Field(
        description="Address to which each message is posted as JSON; {env: NAME} or {file: PATH} "
        "where the address itself is a secret."
    )
    secret: SecretPlace | None = Field(
        None,
        description="Where the secret is that signs each message (HMAC-SHA256, as Standard "
        "Webhooks does). Default: messages are not signed.",
    )


class Slack(_Entry):
    """A channel of Slack, by its incoming webhook."""

    slack: SecretPlace = Field(description="Where the address of the incoming webhook is.")


class Discord(_Entry):
    """A channel of Discord, by its webhook."""

    discord: SecretPlace = Field(description="Where the address of the channel's webhook is.")


class Email(_Entry):
    """E-mail over SMTP."""

    email: tuple[str, ...] = Field(min_length=1, description="Addresses that get each message.")
    server: str = Field(description="Host name of the SMTP server.")
    port: int = Field(587, ge=1, le=65535, strict=True, description="TCP port of the SMTP server.")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls",
        description="How the connection is encrypted: `starttls` after the greeting, `tls` from "
        "the start (port 465), or `none`.",
    )
    sender: str = Field(description="Address from which the messages come.")
    user: str | None = Field(None, description="User to log in as. Default: no login.")
    password: SecretPlace | None = Field(None, description="Where the password of the user is.")

    @property
    def where(self) -> str:
        """Who gets the messages."""
        return ", ".join(self.email)

    @model_validator(mode="after")
    def _can_be_sent(self) -> Email:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together")
        if self.password and self.security == "none" and self.server not in _LOOPBACK:
            raise ValueError("a password needs security: starttls or tls")
        if any(mark in address for address in (*self.email, self.sender) for mark in "\r\n"):
            raise ValueError("an address is one line")
        return self


_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_KINDS: dict[str, type[_Entry]] = {
    "webhook": Webhook,
    "slack": Slack,
    "discord": Discord,
    "email": Email,
}


def _kinds(value: Any) -> list[str]:
    if isinstance(value, _Entry):
        return [value.kind]
    return [kind for kind in _KINDS if isinstance(value, dict) and kind in value]


def _check_kind(value: Any) -> Any:
    if len(_kinds(value)) != 1:
        known = ", ".join(_KINDS)
        raise PydanticCustomError(HIDDEN, f"must be a mapping with one of the keys {known}")
    return value


# pydantic would try all four classes and report the faults of each; told which one is meant by
# the tag, it reports those of that class alone.
Destination: TypeAlias = Annotated[
    Annotated[Webhook, Tag("kind:webhook")]
    | Annotated[Slack, Tag("kind:slack")]
    | Annotated[Discord, Tag("kind:discord")]
    | Annotated[Email, Tag("kind:email")],
    Discriminator(lambda value: f"kind:{_kinds(value)[0]}"),
    BeforeValidator(_check_kind),
]
_DESTINATIONS = TypeAdapter(tuple[Destination, ...])


def check_distinct(destinations: tuple[Destination, ...]) -> None:
    """Refuse two destinations of one name, since messages are kept by it.

    Raises:
        ValueError: says which name stands twice.
    """
    keys = [destination.key for destination in destinations]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f"two destinations are called {twice!r}; give each a name of its own")


def parse_destinations(given: Any) -> tuple[Destination, ...]:
    """Return the destinations that `dump` of each gave."""
    return _DESTINATIONS.validate_python(given)
