"""Holds YAML text against limits before anything is built of it.

A few hundred bytes of YAML can stand for gigabytes (an alias of a list of aliases), for an endless
value (an alias within what it names) or for more brackets than Python can follow. The limits are
checked on the parser's events, which cost memory and time by the size of the text alone. They are
far above what a sweep file needs.

YAML 1.1 also reads some plain words as numbers that nobody means: 1:30 as 90, 010 as 8. Such words
are refused, and so are numbers that are not finite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from posetune.api import BadInputError
from posetune.storage.regular_file import refuse_pipe

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_NODES", "check_limits", "check_numbers", "read_text"]

MAX_BYTES = 1_000_000
"""Size of the largest file that is read, in bytes."""

MAX_DEPTH = 40
"""How many mappings and lists may lie within each other."""

MAX_NODES = 20_000
"""How many keys and values a file may have, with what its aliases stand for."""

MAX_DIGITS = 400
"""Characters of the longest number: a float has at most 309 digits before its point."""

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_OCTAL = re.compile(r"[-+]?0[0-7_]+")


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        BadInputError: the file is missing, a pipe, too large or no text.
    """
    refuse_pipe(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise BadInputError(
                f"{path}: is larger than {MAX_BYTES / 1e6:g} MB, which no sweep file needs; is it "
                "another file?"
            )
        return content.decode("utf-8")
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: cannot be read as text ({error})") from error


def check_limits(text: str, source: str) -> None:
    """Refuse text that is too deep, stands for too much, or has an alias within what it names.

    Args:
        text: YAML.
        source: where it comes from, for the message.

    Raises:
        BadInputError: names the line.
        YAMLError: the text is not YAML.
    """
    tally = _Tally(source)
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        tally.take(event)


@dataclass
class _Open:
    """A mapping or list that has begun and not ended."""

    anchor: str | None
    before: int
    """How many nodes came before it."""
    deepest: int
    """How many mappings or lists lie within each other where it is deepest, those around it too."""


class _Tally:
    """Counts what text stands for, event by event."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._nodes = 0
        self._open: list[_Open] = []
        self._sizes: dict[str, int] = {}
        """How many nodes the value of each anchor stands for."""
        self._depths: dict[str, int] = {}
        """How many mappings or lists lie within each other in the value of each anchor."""

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            anchor = event.anchor or ""
            if anchor in {each.anchor for each in self._open}:
                raise BadInputError(
                    f"{self._source}:{line}: the alias *{anchor} lies within what it stands "
                    "for, so it has no end; write the value out"
                )
            self._count(self._sizes.get(anchor, 1), line)
            self._reach(len(self._open) + self._depths.get(anchor, 0), line)
        elif isinstance(event, yaml.ScalarEvent):
            self._count(1, line)
            if event.anchor:
                self._sizes[event.anchor], self._depths[event.anchor] = 1, 0
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open.append(_Open(event.anchor, self._nodes, 0))
            self._count(1, line)
            self._reach(len(self._open), line)
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = self._open.pop()
            if ended.anchor:
                self._sizes[ended.anchor] = self._nodes - ended.before
                self._depths[ended.anchor] = ended.deepest - len(self._open)
            self._reach(ended.deepest, line)

    def _reach(self, depth: int, line: int) -> None:
        if depth > MAX_DEPTH:
            raise BadInputError(
                f"{self._source}:{line}: more than {MAX_DEPTH} mappings or lists lie within "
                "each other, with those of its aliases; no sweep file needs so many"
            )
        if self._open:
            self._open[-1].deepest = max(self._open[-1].deepest, depth)

    def _count(self, more: int, line: int) -> None:
        self._nodes += more
        if self._nodes > MAX_NODES:
            raise BadInputError(
                f"{self._source}:{line}: stands for more than {MAX_NODES} keys and values, with "
                "those of its aliases; no sweep file needs so many"
            )


def check_numbers(root: yaml.Node, source: str) -> None:
    """Refuse plain words that are read as numbers other than they look, and infinite ones.

    Raises:
        BadInputError: names the line.
    """
    for node in _scalars(root):
        if node.tag not in _NUMBERS:
            continue
        place = f"{source}:{node.start_mark.line + 1}"
        if len(node.value) > MAX_DIGITS:
            raise BadInputError(f"{place}: a number of {len(node.value)} digits is too long")
        try:
            number = yaml.SafeLoader("").construct_object(node)
        except ValueError as error:
            raise BadInputError(f"{place}: {node.value!r} is no number ({error})") from error
        if ":" in node.value or _OCTAL.fullmatch(node.value):
            raise BadInputError(
                f"{place}: {node.value} means {number:g} in YAML; write {number:g}, or the word "
                f"in quotes: '{node.value}'"
            )
        if isinstance(number, float) and not math.isfinite(number):
            raise BadInputError(
                f"{place}: must be a finite number, got {node.value}; leave the key out where "
                "there is no limit"
            )


def _scalars(root: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Yield the scalars below a node in order, those behind an alias each time it stands there."""
    if isinstance(root, yaml.ScalarNode):
        yield root
    elif isinstance(root, yaml.MappingNode):
        for key, value in root.value:
            yield from _scalars(key)
            yield from _scalars(value)
    elif isinstance(root, yaml.SequenceNode):
        for item in root.value:
            yield from _scalars(item)
