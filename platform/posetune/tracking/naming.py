"""Fits names and values into MLflow's limits."""

from __future__ import annotations

import json
import posixpath
import re
from typing import Any

from posetune.storage.digest import digest_json

__all__ = ["entity_key", "param_value", "tag_value"]

_KEY_CHARACTERS = 250
_PARAM_CHARACTERS = 6000
_TAG_CHARACTERS = 8000
_REFUSED = re.compile(r"[^\w\-. :/]", re.ASCII)


def entity_key(name: str) -> str:
    """Return a name that MLflow takes for a metric, param or tag.

    A name that has to be changed ends in a digest of the original, so that two names never become
    one.
    """
    clean = posixpath.normpath(_REFUSED.sub("_", name)).lstrip("/.") or "_"
    if clean == name and len(name) <= _KEY_CHARACTERS:
        return name
    return f"{clean[: _KEY_CHARACTERS - 9]}-{digest_json(name)[:8]}"


def param_value(value: Any) -> str:
    """Return a param's value as text, cut to MLflow's limit; a value that is no text as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return _cut(text, _PARAM_CHARACTERS)


def tag_value(value: Any) -> str:
    """Return a tag's value as text, cut to MLflow's limit."""
    return _cut(str(value), _TAG_CHARACTERS)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"
