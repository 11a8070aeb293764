"""Finds the lines that a mutant or a planted fault changes, and changes them in a copy of the tree.

A change is data: `{"file", "within", "before", "after"}`, the lines before and after without their
indentation, the name of the file and of the innermost function or class that holds them. None of
it is a line number or a folder, so a change outlives what moves a module, a class or a function.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

SOURCES = ("platform", "trainables")
TELLING = 30
"""Characters from which on a line that stands once in all sources is known by its text alone."""


class GoneError(LookupError):
    """The lines that were to be changed are no longer there."""


class Place(NamedTuple):
    """Where lines stand."""

    file: Path
    first: int
    within: str


def plant(tree: Path, edit: Mapping[str, str]) -> Path:
    """Change the lines of an edit in a tree, and return their file.

    Raises:
        GoneError: the lines are not there, or not to be told from others.
    """
    place = find(tree, edit)
    lines = place.file.read_text().splitlines()
    # The first line may stand deeper than the others.
    indent = " " * (indentation(lines[place.first]) - indentation(edit["before"]))
    after = textwrap.indent(edit["after"], indent).splitlines()
    lines[place.first : place.first + len(edit["before"].splitlines())] = after
    place.file.write_text("\n".join(lines) + "\n")
    return place.file


def find(tree: Path, edit: Mapping[str, str]) -> Place:
    """Find the lines of an edit: by file and function, then by either, then by the text alone."""
    file, within, before = edit["file"], edit["within"], edit["before"]
    places = [
        place
        for root in SOURCES
        for path in sorted((tree / root).rglob("*.py"))
        for place in find_lines(path, before)
    ]
    here = [place for place in places if place.file.match(file)]
    namesakes = [place for place in places if place.within == within]
    both = [place for place in here if place.within == within]
    found = both or (namesakes if within else []) or here
    if not found and len(before) >= TELLING:
        found = places
    if len(found) != 1:
        raise GoneError(f"{file}, {within or 'module'}: found {len(found)} times: {before}")
    return found[0]


def find_lines(file: Path, text: str) -> Iterator[Place]:
    """Find where lines stand in a file, however they are indented."""
    source = file.read_text()
    lines = [line.strip() for line in source.splitlines()]
    wanted = [line.strip() for line in text.splitlines()]
    tree = None
    for first in range(len(lines) - len(wanted) + 1):
        if lines[first : first + len(wanted)] == wanted:
            tree = tree or ast.parse(source)
            yield Place(file, first, enclosing(tree, first + 1))


def indentation(text: str) -> int:
    """Return how many spaces a line begins with."""
    return len(text) - len(text.lstrip(" "))


def enclosing(tree: ast.AST, line: int) -> str:
    """Return the name of the innermost function or class that holds a line, or an empty one."""
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and holds(node, line)
    ]
    return max(found, key=lambda node: node.lineno).name if found else ""


def holds(node: ast.FunctionDef | ast.ClassDef, line: int) -> bool:
    """Tell whether a definition holds a line."""
    return node.lineno <= line <= (node.end_lineno or node.lineno)
