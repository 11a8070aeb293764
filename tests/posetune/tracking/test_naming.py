from __future__ import annotations

import pytest
from mlflow.utils.validation import _validate_metric_name, _validate_param_name

from posetune.tracking.naming import entity_key, param_value, tag_value

NAMES = [
    "P-MPJPE (mm)/a",
    "a[0]",
    "a//b",
    "/a",
    "../a",
    "a/./b",
    "x" * 300,
    "",
    ".",
    "\u00e4",
    "a\nb",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_becomes_one_that_mlflow_takes(name: str) -> None:
    _validate_metric_name(entity_key(name))
    _validate_param_name(entity_key(name))


@pytest.mark.parametrize("name", ["val/p_mpjpe_mm", "loss_weights.flow", "time/epoch_s", "a b:c"])
def test_a_name_that_mlflow_takes_is_left_as_it_is(name: str) -> None:
    assert entity_key(name) == name


def test_two_names_never_become_one() -> None:
    names = [*NAMES, "a[0)", "P-MPJPE [mm]/a", "a/b", "x" * 301]
    assert len({entity_key(name) for name in names}) == len(names)


def test_values_are_plain_text_or_json_within_the_limits() -> None:
    assert param_value("tpe") == "tpe"
    assert param_value(0.1) == "0.1"
    assert param_value([1, 2]) == "[1, 2]"
    assert param_value(None) == "null"
    assert len(param_value("x" * 9000)) == 6000
    assert len(tag_value("x" * 9000)) == 8000
