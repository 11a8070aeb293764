"""The manual is short, its links lead somewhere, and its commands exist."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from support.commands import command_environment
from support.events_table import events_table
from support.results_tables import PAGES as RESULT_PAGES
from support.results_tables import renewed

from posetune.cli.app import COMMANDS, app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MOST_LINES, MOST_BYTES = 150, 10_000
"""Of the README: who has to scroll for long reads nothing."""
NAMED_FILE = re.compile(r"`((?:search_spaces|platform|trainables|tests|cluster|docs)/[\w./-]+)`")
RUNNABLE = re.compile(r"^```(bash|python) run\n(.*?)^```", re.M | re.S)
"""A block of code that a test runs; the blocks of a page run one after the other in one folder."""
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
"""A link to a file: no address of the web, and no place on the same page."""


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands_of(page: Path) -> Iterator[list[str]]:
    """Yield the words of every `posetune ...` in a page's blocks of code."""
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", page.read_text(), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = (
                shlex.split(line.removeprefix("$ "), comments=True) if "posetune " in line else []
            )
            if words[:1] == ["posetune"]:
                yield words[1:]


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that is called, and what follows its name."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("posetune", [], resilient_parsing=True)
    while hasattr(command, "commands") or hasattr(command, "resolve_command"):
        _, command, words = command.resolve_command(context, words)
        context = command.make_context(command.name, [], resilient_parsing=True)
    return command, words


def texts_of(module: Path) -> Iterator[str]:
    """Yield every text in a module's code, with a null where an f-string has a value."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "\0" for p in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_readme_is_short_and_finished() -> None:
    text = (ROOT / "README.md").read_text()

    assert text.count("\n") <= MOST_LINES
    assert len(text.encode()) <= MOST_BYTES
    assert "@@" not in text


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    linked = LINK.findall(page.read_text())

    assert [link for link in linked if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_of_the_project_that_are_named_are_there(page: Path) -> None:
    named = NAMED_FILE.findall(page.read_text())

    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands_of(page):
        command, given = resolve(words)
        known = {
            name
            for parameter in command.params
            for name in [*parameter.opts, *parameter.secondary_opts]
        }
        options = [word.partition("=")[0] for word in given if word.startswith("--")]
        assert [option for option in options if option not in known | {"--help"}] == [], words


def runnable_pages() -> Iterator[Any]:
    """Yield the pages with blocks to run; those that start a sweep are long."""
    for page in PAGES:
        blocks = RUNNABLE.findall(page.read_text())
        if blocks:
            trains = any("posetune sweep" in code for _, code in blocks)
            marks = [pytest.mark.slow, *([pytest.mark.long, pytest.mark.ray] if trains else [])]
            yield pytest.param(page, blocks, marks=marks, id=page_id(page))


@pytest.mark.parametrize(("page", "blocks"), [*runnable_pages()])
def test_the_blocks_of_a_page_that_are_to_run_do(
    page: Path, blocks: list[tuple[str, str]], tmp_path: Path
) -> None:
    programs = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    environment = command_environment(tmp_path)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for language, code in blocks:
        ran = subprocess.run(
            [*programs[language], code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, f"{page}:\n{code}\n{ran.stdout}{ran.stderr}"


def test_the_manual_names_every_command() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()

    assert [name for name in COMMANDS if f"posetune {name}" not in text] == []


def test_every_page_can_be_found_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()

    assert [page_id(page) for page in PAGES[1:] if page_id(page) not in readme] == []


def test_the_table_of_events_is_that_of_the_classes() -> None:
    """Mend it with `python tests/support/events_table.py`."""
    assert events_table() in (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("page", RESULT_PAGES, ids=page_id)
def test_the_tables_of_results_are_those_of_the_benchmarks(page: Path) -> None:
    """Mend it with `make results`."""
    assert renewed(page.read_text()) == page.read_text()


def test_the_messages_that_are_explained_are_those_of_the_code() -> None:
    """Each message of the page stands in the code, with anything where the page has `...`."""
    said = {
        text
        for folder in ("platform", "trainables")
        for module in (ROOT / folder).rglob("*.py")
        for text in texts_of(module)
    }
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    explained = re.findall(r"^\| `([^`]+)` \|", page, re.M)

    assert len(explained) > 15
    for message in explained:
        parts = [re.escape(part.strip()) for part in message.split("...")]
        pattern = re.compile(r"\s*\0.*".join(parts), re.S)
        assert any(pattern.search(text) for text in said), message
