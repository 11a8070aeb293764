"""A prior is believed at first, and unlearnt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.simulated_driver import simulated_start

from posetune.spec.sweep import SweepSpec
from posetune.study.search.belief import Belief
from posetune.study.search.curves.search import CurveSearch
from posetune.study.search.space import Space
from posetune.study.search.startup import start_values
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord

SEARCH = {
    "rate": {"float": [1e-4, 1.0], "log": True},
    "depth": {"int": [2, 16], "step": 2},
    "weight": {"choice": [0.0, 1.0, 10.0]},
}


def spec_of(prior: dict[str, Any], **changes: Any) -> SweepSpec:
    return simulated_start(search=SEARCH, prior=prior, **changes).spec


def test_a_number_alone_is_a_prior_and_survives_the_way_through_json() -> None:
    spec = spec_of({"rate": 0.01, "depth": {"value": 7, "width": 0.1}})
    assert (spec.prior["rate"].value, spec.prior["rate"].width) == (0.01, 0.25)
    assert SweepSpec.model_validate(spec.canonical()) == spec


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"speed": 1.0}, "speed is not searched"),
        ({"rate": 2.0}, r"rate is 2, outside \[0.0001, 1\]"),
        ({"rate": "fast"}, "prior.rate"),
    ],
)
def test_a_prior_that_says_nothing_of_the_search_is_refused(
    prior: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        spec_of(prior)


def test_every_second_start_value_is_drawn_around_the_prior() -> None:
    spec = spec_of({"rate": {"value": 1e-3, "width": 0.05}, "weight": {"value": 9, "width": 0.01}})
    space = Space(spec.search)
    believed = start_values(space, 0, 16, Belief(spec))
    plain = start_values(space, 0, 16)
    assert believed[1::2] == plain[1::2]
    rates = [np.log10(float(point["rate"])) for point in believed[::2]]
    assert abs(np.mean(rates) + 3) < 0.1
    assert {point["weight"] for point in believed[::2]} == {10.0}
    assert [point["depth"] for point in believed[::2]] == [point["depth"] for point in plain[::2]]


def search_after(count: int, best: float) -> CurveSearch:
    """A search that believes in rate 0.1, after trials that are best at another rate."""
    spec = spec_of({"rate": {"value": 0.1, "width": 0.05}}, sampler={"name": "gp"})
    space, trials, log = Space(spec.search), [], []
    for number, params in enumerate(start_values(space, 1, count)):
        record = TrialRecord(number, params, 0, attempt=1, epoch=9, state=TrialState.COMPLETE)
        value = abs(np.log10(float(params["rate"])) - np.log10(best))
        record.values, record.value = {9: float(value)}, float(value)
        trials.append(record)
        log.append((number, 9))
    return CurveSearch(spec, trials, log)


def test_the_model_believes_it_at_first_and_unlearns_it() -> None:
    """Trials are best at a rate of 0.001."""
    rates = {count: float(search_after(count, 1e-3).ask(count)["rate"]) for count in (4, 60)}
    assert abs(np.log10(rates[4]) + 1) < 0.7
    assert abs(np.log10(rates[60]) + 3) < 0.7
