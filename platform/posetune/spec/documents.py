"""Reads YAML files and remembers the line of each key, so that an error can name it.

PyYAML alone would not do: it takes the last of two equal keys in silence and forgets the lines,
and both matter in a file that decides how GPU-weeks are spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from posetune.api import BadInputError
from posetune.spec.yaml_limits import check_limits, check_numbers, read_text

__all__ = ["Document", "Key", "describe_errors", "read_document", "read_value"]

SHOWN = 200
"""Characters of a wrong value that a message repeats."""

Key = tuple[str | int, ...]
"""Path of a value in a document: the names of mappings and the indices of lists, from the top."""


@dataclass(frozen=True)
class Document:
    """Holds a parsed YAML mapping and the line of each of its keys."""

    source: str
    """Path of the file, for messages."""
    text: str
    """The file's text as it was read."""
    content: dict[str, Any]
    """The parsed mapping."""
    lines: Mapping[Key, int]
    """Line of each key and list item in the file, from 1."""

    def at(self, key: Key) -> str:
        """Return `file:line: key` for a message; a key that is missing gets its parent's line."""
        known = key
        while known and known not in self.lines:
            known = known[:-1]
        place = f"{self.source}:{self.lines[known]}" if known else self.source
        name = ".".join(str(part) for part in key)
        return f"{place}: {name}" if name else place


def read_document(path: Path) -> Document:
    """Read a YAML file whose content is a mapping.

    Raises:
        BadInputError: the file is missing or cannot be read, is not valid YAML, is not a mapping,
            has a key twice in one mapping, or goes beyond the limits of `yaml_limits`.
    """
    text = read_text(path)
    root = _compose(text, str(path))
    if not isinstance(root, yaml.MappingNode):
        raise BadInputError(f"{path}: must be a YAML mapping (key: value), see search_spaces/")
    lines: dict[Key, int] = {}
    _index(root, (), lines, str(path))
    content = _construct(root, str(path))
    return Document(str(path), text, content, lines)


def read_value(text: str, source: str) -> Any:
    """Return what a piece of YAML says, as a value in a sweep file would.

    Args:
        text: YAML.
        source: where it comes from, for messages.

    Raises:
        BadInputError: it is not valid, or goes beyond the limits of `yaml_limits`.
    """
    root = _compose(text, source)
    return None if root is None else _construct(root, source)


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        check_limits(text, source)
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _no_yaml(source, error) from error


def _construct(root: yaml.Node, source: str) -> Any:
    check_numbers(root, source)
    try:
        return yaml.SafeLoader("").construct_document(root)
    except yaml.YAMLError as error:
        raise _no_yaml(source, error) from error
    except ValueError as error:
        raise BadInputError(f"{source}: not valid YAML: {error}") from error


def _no_yaml(source: str, error: yaml.YAMLError) -> BadInputError:
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return BadInputError(f"{source}{line}: not valid YAML: {problem}")


def _index(node: yaml.Node, key: Key, lines: dict[Key, int], source: str) -> None:
    """Write the line of every key below `node` into `lines`; refuse a key that is given twice."""
    if isinstance(node, yaml.MappingNode):
        for name_node, value in node.value:
            name = str(name_node.value)
            line = name_node.start_mark.line + 1
            if (*key, name) in lines:
                first = lines[(*key, name)]
                raise BadInputError(
                    f"{source}:{line}: key {name!r} is given twice (first in line {first}); "
                    "keep one of them"
                )
            lines[(*key, name)] = line
            _index(value, (*key, name), lines, source)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines[(*key, i)] = item.start_mark.line + 1
            _index(item, (*key, i), lines, source)


def describe_errors(error: ValidationError, document: Document, below: Key = ()) -> str:
    """Return one line of text for each fault that pydantic found: place, key, fault and value.

    Args:
        error: what pydantic raised.
        document: the file that the checked values come from.
        below: path in the document of the mapping that was checked.
    """
    described = []
    for fault in error.errors(include_url=False):
        key = (*below, *(part for part in fault["loc"] if not str(part).startswith("kind:")))
        value = fault.get("input")
        # A fault of several sections together names them; the whole file says nothing more.
        is_hidden = fault["type"] in ("missing", "extra_forbidden", "hidden_value") or not key
        shown = "" if is_hidden else f", got {_short(value)}"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = "no such key"
        elif fault["type"] == "missing":
            message = "is missing"
        described.append(f"{document.at(key)}: {message}{shown}")
    return "\n".join(dict.fromkeys(described))


def _short(value: Any) -> str:
    """Return a value as Python writes it, cut where it is long."""
    written = repr(value)
    return written if len(written) <= SHOWN else f"{written[:SHOWN]}..."
