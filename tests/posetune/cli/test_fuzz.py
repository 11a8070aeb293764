"""Broken files and broken command lines: one clear line each, no traceback, nothing half written.

In process, because a command takes a second to start; a few as real commands too, to see that
nothing differs there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import Posetune

from posetune.api import BadInputError
from posetune.spec.loading import default_params, load_sweep

FILES, LINES, COMMANDS = 250, 100, 4
COMMAND_NAMES = [
    *("sweep", "check", "train", "show", "report", "compare", "reproduce", "export-study"),
    *(
        "track",
        "stages",
        "promote",
        "rollback",
        "logs",
        "stop",
        "predict",
        "export",
        "data import",
        "data info",
        "evaluate",
    ),
    *("submit", "ui"),
]
JUNK: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "x",
        "../..",
        "a\0b",
        "\N{SNOWMAN}",
    ),
    *(
        [],
        {},
        [1],
        {"a": 1},
        {"float": [1]},
        {"float": ["a", "b"]},
        {"choice": []},
        10**400,
        "1" * 999,
    ),
    *({"int": [1, 2, 3]}, {"float": [2, 1]}, {"int": [0.5, 1]}, {"choice": [[1]]}, [[]], "- : -"),
]
TEXT = [
    "\t",
    "{",
    "]",
    ": ",
    "&a *a",
    "!!python/object:os.system x",
    "\x00",
    "\ufeff",
    "---\n",
    "%",
    "<<: 1",
]


def break_value(generator: random.Random, tree: Any) -> None:
    """Replace, remove or add one thing somewhere in a parsed file."""
    while isinstance(tree, dict | list) and tree:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = generator.choice(keys)
        child = tree[key]
        if isinstance(child, dict | list) and child and generator.random() < 0.7:
            tree = child
            continue
        how = generator.choice(["replace", "replace", "remove", "add"])
        if how == "remove":
            del tree[key]
        elif how == "add" and isinstance(tree, dict):
            tree[generator.choice(["surplus", 7, None, "x.y", ""])] = generator.choice(JUNK)
        else:
            tree[key] = generator.choice(JUNK)
        return


def break_text(generator: random.Random, text: str) -> bytes:
    """Cut, double or spoil a file as bytes."""
    data = bytearray(text.encode())
    at = generator.randrange(len(data))
    how = generator.choice(["cut", "byte", "insert", "double"])
    if how == "cut":
        return bytes(data[:at])
    if how == "byte":
        data[at] = generator.randrange(256)
        return bytes(data)
    if how == "insert":
        return bytes(data[:at]) + generator.choice(TEXT).encode() + bytes(data[at:])
    lines = text.splitlines(keepends=True)
    lines.insert(generator.randrange(len(lines)), generator.choice(lines))
    return "".join(lines).encode()


def broken_files(text: str, count: int) -> Iterator[bytes]:
    generator = random.Random(0)
    for i in range(count):
        if i % 2:
            yield break_text(generator, text)
            continue
        tree = yaml.safe_load(text)
        for _ in range(generator.randrange(1, 3)):
            break_value(generator, tree)
        yield yaml.safe_dump(tree, allow_unicode=True, sort_keys=False).encode()


@pytest.mark.slow
def test_250_broken_sweep_files_are_refused_by_name_or_are_good_after_all(
    toy_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    text = toy_sweep().read_text()
    file = tmp_path / "broken.yaml"
    refused = []
    for content in broken_files(text, FILES):
        file.write_bytes(content)
        try:
            spec, trainable, _ = load_sweep(file)
            default_params(spec, trainable.config_model)
        except BadInputError as error:
            refused.append(str(error))
    assert len(refused) > FILES / 2
    assert [said for said in refused if str(file) not in said or "Traceback" in said] == []


def broken_lines(file: Path, store: Path, count: int) -> Iterator[list[str]]:
    """Command lines with something missing, surplus, misspelled or of the wrong kind."""
    generator = random.Random(1)
    words = [
        str(file),
        str(store),
        "none.yaml",
        "toy",
        "toy/0",
        "toy/x",
        "models:/a@b",
        "models:/a",
    ]
    words += [
        "--name",
        "--store",
        "--home",
        "--out",
        "--to",
        "--json",
        "--set",
        "x=9",
        "y",
        "--crop",
    ]
    words += ["--epochs", "-1", "0", "nan", "--seed", "--format", "toy", "--trainable", "no:thing"]
    words += ["posetune.testing.toy:Toy", "--model", "m", "--alias", "v1", "sqlite:///", "--bogus"]
    words += [
        "../up",
        "",
        "a b",
        "\N{SNOWMAN}",
        "-",
        "--",
        "--prune",
        "--no-evaluate",
        "--split",
        "x",
    ]
    for _ in range(count):
        command = generator.choice(COMMAND_NAMES).split()
        yield [*command, *generator.choices(words, k=generator.randrange(6))]


LONG = {"sweep", "submit", "ui"}
"""What would really run where the words happen to be right; these get one that is wrong."""


def harmless(line: list[str]) -> list[str]:
    if line[0] in LONG:
        return [*line, "--bogus"]
    if line[0] == "train":
        return [*line, "--set", "nothing=1"]
    return line


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


@pytest.mark.slow
def test_100_broken_command_lines_leave_nothing_behind(
    posetune: Posetune, toy_sweep: Callable[..., Path], toy_store: Path, tmp_path: Path
) -> None:
    file = toy_sweep(trials=1, max_epochs=1)
    for line in broken_lines(file, toy_store, LINES):
        result = posetune(*harmless(line))
        assert result.returncode in (0, 1, 2), (line, result.stderr)
        assert "Traceback" not in result.stdout + result.stderr, line
        assert result.returncode != 2 or result.stderr.strip(), line
    assert not [name for name in files_below(tmp_path) if ".partial" in name]
    home = tmp_path / "home"
    assert not home.exists(), files_below(home)


@pytest.mark.slow
@pytest.mark.long
def test_some_of_them_end_as_a_process_as_they_do_here(
    posetune: Posetune,
    posetune_process: Posetune,
    toy_sweep: Callable[..., Path],
    toy_store: Path,
    tmp_path: Path,
) -> None:
    file = toy_sweep(trials=1, max_epochs=1)
    lines = [harmless(line) for line in broken_lines(file, toy_store, COMMANDS)]
    for i, content in enumerate(broken_files(file.read_text(), COMMANDS)):
        (tmp_path / f"broken{i}.yaml").write_bytes(content)
        lines.append(["check", f"broken{i}.yaml", "--store", "nowhere"])
    for line in lines:
        here, there = posetune(*line), posetune_process(*line)
        assert (there.returncode, there.stdout) == (here.returncode, here.stdout), line
        assert there.stderr.replace("python -m posetune.cli", "posetune") == here.stderr, line
    assert not (tmp_path / "home").exists()
