"""What a trainable returns as its metrics is taken as floats, or refused by its name."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posetune.api import BadInputError, Trainable, TrialContext
from posetune.execution.nodes.plan import warn_of_no_rungs
from posetune.metrics import MetricError, read_metrics
from posetune.spec.sweep import SweepSpec
from posetune.testing.stages import build_stages
from posetune.testing.toy import Toy, ToyConfig

NAME = "val/error_mm"
TAKEN = ["epoch", "seconds", "trial", "time/epoch_s", "best/val/error_mm", "system/cpu"]


@pytest.mark.parametrize(
    "value",
    [
        0.5,
        np.float32(0.5),
        np.float16(0.5),
        np.array(0.5),
        torch.tensor(0.5),
        torch.tensor(0.5, dtype=torch.bfloat16),
        torch.tensor(0.5, requires_grad=True),
        Fraction(1, 2),
    ],
)
def test_a_real_number_of_every_kind_is_a_float(value: Any) -> None:
    read = read_metrics({NAME: value}, declared=[NAME], objective=NAME)

    assert read == {NAME: 0.5}
    assert type(read[NAME]) is float


@pytest.mark.parametrize("value", [3, np.int64(3), torch.tensor(3)])
def test_whole_numbers_are_floats(value: Any) -> None:
    assert type(read_metrics({NAME: value}, declared=[NAME])[NAME]) is float


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("nan"), torch.tensor(math.inf)])
def test_what_is_no_finite_number_passes_for_the_rungs_to_judge(value: Any) -> None:
    assert not math.isfinite(read_metrics({NAME: value}, declared=[NAME])[NAME])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "a NoneType: None"),
        ("0.5", "a str: '0.5'"),
        (True, "a bool: True"),
        (np.bool_(True), "a numpy.bool: np.True_"),
        (1j, "a complex: 1j"),
        ([0.5], r"a list: \[0.5\]"),
        (np.array([0.5]), r"a numpy.ndarray of shape \(1,\)"),
        (torch.zeros(2, 3), r"a torch.Tensor of shape \(2, 3\)"),
        (torch.tensor(1j), r"a torch.Tensor: tensor\(0\.\+1\.j\)"),
        (10**400, r"a int: 1000*\.\.\."),
        (np.timedelta64(5, "ns"), r"a numpy.timedelta64: np.timedelta64\(5,'ns'\)"),
        (np.array("2020-01-01", "M8[ns]"), r"a numpy.ndarray: array\('2020-[^\n]*"),
        (np.ma.masked, r"a numpy.ma.core.MaskedConstant: masked"),
        (np.array((1.0, 2.0), [("a", "f4"), ("b", "f4")]), r"a numpy.ndarray: array\([^\n]*"),
        (torch.empty((), device="meta"), r"a torch.Tensor: [^\n]*, which cannot be read \(.*\)"),
    ],
)
def test_what_is_no_real_number_is_refused_by_its_name(value: Any, said: str) -> None:
    with pytest.raises(MetricError, match=rf"metric '{NAME}' is {said}; it must be one real"):
        read_metrics({NAME: value}, declared=[NAME])


class Liar:
    """Looks like a NumPy scalar and raises what it likes."""

    shape = ()

    def __init__(self, found: Any) -> None:
        self.found = found

    def item(self) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def __repr__(self) -> str:
        raise KeyError("no text")


@pytest.mark.parametrize("found", ["0.5", None, [1.0], KeyError("a\nb"), OverflowError()])
def test_a_value_that_lies_is_one_line(found: Any) -> None:
    with pytest.raises(MetricError, match=rf"^metric '{NAME}' is a [^\n]*Liar[^\n]*$"):
        read_metrics({NAME: Liar(found)}, declared=[NAME])


def test_a_whole_set_of_frames_is_no_set_of_metrics() -> None:
    reported = {NAME: 1.0, **{f"frame/{i}": 0.0 for i in range(20_000)}}
    with pytest.raises(MetricError, match="reported 20001 metrics, more than 10000"):
        read_metrics(reported, declared=[NAME])


def test_a_name_of_numpy_is_a_plain_text() -> None:
    (name,) = read_metrics({np.str_(NAME): 1.0}, declared=[NAME])
    assert type(name) is str


@pytest.mark.parametrize(
    "name",
    ["", 3, "a\nb", "\x1b[31m", "x" * 251, "\ud800", *TAKEN],
)
def test_a_name_that_cannot_be_shown_or_is_taken_is_refused(name: Any) -> None:
    with pytest.raises(MetricError, match=r"^metric [^\n]*name[^\n]*$"):
        read_metrics({name: 1.0}, declared=[])


def test_missing_metrics_are_named_in_the_first_epoch_and_the_objective_in_all() -> None:
    declared = [NAME, "val/pck"]
    with pytest.raises(MetricError, match=r"did not report val/error_mm, val/pck; it reported l"):
        read_metrics({"loss": 1.0}, declared=declared, objective=NAME)
    assert read_metrics({NAME: 1.0}, declared=declared, objective=NAME, is_first=False)
    with pytest.raises(MetricError, match=r"did not report val/error_mm; it reported nothing"):
        read_metrics({}, declared=declared, objective=NAME, is_first=False)


def test_further_metrics_and_odd_names_are_taken() -> None:
    reported = {NAME: 1.0, "P-MPJPE (mm)": 2.0, "PCK@150": 3.0, "é:%": 4.0}

    assert read_metrics(reported, declared=[NAME]) == reported


@pytest.mark.parametrize("reported", [None, 0.5, [("a", 1.0)]])
def test_what_is_no_mapping_is_refused(reported: Any) -> None:
    with pytest.raises(MetricError, match=r"epoch\(\) returned a .*; it must return a mapping"):
        read_metrics(reported, declared=[])


def test_what_check_measures_names_the_metrics_that_an_epoch_lacks(
    tmp_path: Path, toy_store: Path
) -> None:
    class Forgetful(Toy):
        def epoch(self) -> dict[str, float]:
            return {"train/step": super().epoch()["train/step"]}

    config = ToyConfig()
    products = build_stages(Forgetful.stages(config, toy_store), tmp_path / "stages")
    context = TrialContext(store=toy_store, seed=0, work=tmp_path / "work", products=products)
    measure: Any = vars(Trainable)["forecast"].__func__  # what a trainable inherits
    with pytest.raises(BadInputError, match=r"Forgetful: epoch\(\) did not report val/error_mm"):
        measure(Forgetful, config, context)
    assert measure(Toy, config, context).epoch_s >= 0


@pytest.mark.parametrize(("grace", "warns"), [(1, False), (8, False), (9, True)])
def test_a_pruner_that_can_cut_nothing_is_warned_of(grace: int, warns: bool) -> None:
    spec = SweepSpec.model_validate(
        {
            "trainable": "posetune.testing.toy:Toy",
            "objective": {"metric": NAME, "mode": "min"},
            "search": {"x": {"float": [0.01, 1]}},
            "pruner": {"max_epochs": 9, "grace_epochs": grace},
            "budget": {"trials": 4},
        }
    )
    said = list(warn_of_no_rungs(spec))
    assert bool(said) == warns
    assert all("no trial is ever compared and cut" in line for line in said)
