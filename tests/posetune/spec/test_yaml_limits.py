"""YAML that stands for more than it seems is refused in one line, and nothing is built of it."""

from __future__ import annotations

import itertools
import os
import time
import tracemalloc
from pathlib import Path

import pytest

from posetune.api import BadInputError
from posetune.spec.documents import read_document, read_value
from posetune.spec.loading import load_sweep

LEVELS = "abcdefghijkl"
BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{inner}'] * 9)}]\n"
    for inner, name in itertools.pairwise(LEVELS)
)
"""842 bytes that stand for 9^12 numbers."""
CHAIN = "a: &a " + "[" * 38 + "1" + "]" * 38 + "\n"
CHAIN += "".join(
    f"{name}: &{name} " + "[" * 38 + f"*{inner}" + "]" * 38 + "\n"
    for inner, name in itertools.pairwise("abcdefghijklmnopqrstuvwxyzäöü")
)
"""Lists of which none is deep by itself, and each has the one before within it."""


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        pytest.param(BOMB, 5, "more than 20000 keys and values", id="nested aliases"),
        pytest.param("x: 1\na: &a [*a]\n", 2, "has no end", id="recursive alias"),
        pytest.param("a: &a\n  b: {c: *a}\n", 2, "has no end", id="recursive mapping"),
        pytest.param("x: 1\na: " + "[" * 3000, 2, "lie within each other", id="brackets"),
        pytest.param(CHAIN, 2, "lie within each other", id="aliases within each other"),
        pytest.param("a: " + "{b: " * 3000, 1, "lie within each other", id="braces"),
        pytest.param(
            "a: [" + "1," * 400_000 + "]",
            1,
            "more than 20000",
            id="many values",
            marks=pytest.mark.slow,
        ),
        pytest.param("x: 1\na: 1:30\n", 2, "1:30 means 90", id="base 60"),
        pytest.param("a: -1:30.5\n", 1, "-1:30.5 means -90.5", id="base 60 with a fraction"),
        pytest.param("a: [1, 010]\n", 1, "010 means 8", id="octal"),
        pytest.param("x: 1\na: .inf\n", 2, "must be a finite number, got .inf", id="inf"),
        pytest.param("a: {b: .NaN}\n", 1, "must be a finite number, got .NaN", id="nan"),
        pytest.param("a: 1.0e+999\n", 1, "must be a finite number", id="too large a float"),
        pytest.param("a: " + "9" * 5000, 1, "of 5000 digits is too long", id="digits"),
        pytest.param("x: 1\n? [a, b]\n: 1\n", 2, "not valid YAML", id="a list as a key"),
        pytest.param("x: 1\na: !!int word\n", 2, "'word' is no number", id="tag"),
    ],
)
def test_a_value_beyond_the_limits_is_one_line(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(BadInputError) as caught:
            read_document(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert peak < 100e6
    assert time.process_time() - began < 20


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    with file.open("w") as large:
        large.truncate(50_000_000_000)  # sparse: reading it whole would fail
    with pytest.raises(BadInputError, match="is larger than 1 MB"):
        read_document(file)


@pytest.mark.timeout(60)  # it waited for ever
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    os.mkfifo(file)
    with pytest.raises(BadInputError, match="is a pipe or a device, not a file"):
        read_document(file)


def test_aliases_that_end_are_read(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("a: &a {x: 1, y: '1:30'}\nb: *a\nc: {<<: *a, x: 010a}\n")
    expected = {"x": 1, "y": "1:30"}
    assert read_document(file).content == {
        "a": expected,
        "b": expected,
        "c": {**expected, "x": "010a"},
    }


def test_a_wrong_value_is_repeated_in_part(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("trainable: [" + "word, " * 5000 + "]\n")
    with pytest.raises(BadInputError) as caught:
        load_sweep(file)
    assert max(map(len, str(caught.value).splitlines())) < 600


def test_a_setting_on_the_command_line_has_the_same_limits() -> None:
    assert read_value("8", "--set depth") == 8
    with pytest.raises(BadInputError, match=r"--set x:1: must be a finite number"):
        read_value(".inf", "--set x")
