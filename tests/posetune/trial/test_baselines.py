"""Baselines are asked for in the driver's process, which no fault of a trainable ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from posetune.testing.toy import Toy
from posetune.trial.baselines import ask_baselines


def answering(answer: Any) -> type[Toy]:
    class Answering(Toy):
        @classmethod
        def baselines(cls, products: Any, metric: str) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

    return Answering


def test_numbers_of_every_kind_are_floats_and_others_are_left_out() -> None:
    found, fault = ask_baselines(
        answering({"mean": np.float32(2), "none": float("nan")}), {}, "val/error_mm"
    )
    assert (found, type(found["mean"]), fault) == ({"mean": 2.0}, float, "")


@pytest.mark.parametrize("answer", [KeyError("files\nof 2"), None, {"mean": "2.0"}, {3: 1.0}])
def test_a_fault_costs_the_baselines_and_is_said_in_one_line(answer: Any) -> None:
    found, fault = ask_baselines(answering(answer), {}, "val/error_mm")
    assert found == {}
    assert fault.startswith("no baselines of val/error_mm: ")
    assert "\n" not in fault
