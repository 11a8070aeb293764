"""Products that hold numbers which are not finite, or cannot be read, are seen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from posetune.stages.finite import ProductFaultError, check_product

Write = Callable[[Path, float], object]


def npz(folder: Path, value: float) -> None:
    np.savez(folder / "a.npz", x=np.array([1.0, value]))


def bfloat16(folder: Path, value: float) -> None:
    tensor = torch.tensor([[1.0, value]], dtype=torch.bfloat16)
    save_torch({"first": torch.ones(3), "x": tensor}, folder / "a.safetensors")


FORMS: list[Write] = [
    lambda folder, value: save_file(
        {"x": np.array([1, value], np.float32)}, folder / "a.safetensors"
    ),
    bfloat16,
    lambda folder, value: np.save(folder / "a.npy", np.array([1.0, value], np.float16)),
    npz,
    lambda folder, value: (folder / "a.json").write_text(json.dumps({"x": [1.0, value]})),
]


@pytest.mark.parametrize("write", FORMS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_found_in_every_format(
    tmp_path: Path, write: Write, value: float
) -> None:
    write(tmp_path, 2.0)
    check_product(tmp_path)
    write(tmp_path, value)
    with pytest.raises(ProductFaultError, match=r"^a\.[a-z]+: (1 numbers of|it holds)"):
        check_product(tmp_path)


def test_whole_numbers_empty_arrays_and_other_files_pass(tmp_path: Path) -> None:
    save_file({"n": np.arange(3), "none": np.empty((0, 2), np.float32)}, tmp_path / "a.safetensors")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "notes.txt").write_text("NaN")
    check_product(tmp_path)


@pytest.mark.parametrize("name", ["a.safetensors", "a.npy", "a.npz", "a.json"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"{\x00 no such thing")
    with pytest.raises(ProductFaultError, match=f"^{name}: cannot be read"):
        check_product(tmp_path)
