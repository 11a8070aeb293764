"""The points of a search space: counted, told apart, spread evenly, and the nearest one found."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

import pytest
from support.simulated_driver import simulated_start

from posetune.spec.parameters import Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study.search.space import Space, most_trials
from posetune.study.search.startup import start_values

SEARCH: dict[str, Any] = {
    "rate": {"choice": [1e-2, 1e-4, 1e-3]},
    "network": {"choice": ["a", "b", "c"]},
    "depth": {"int": [2, 9], "step": 3},
    "weight": {"float": [0.0, 0.3], "step": 0.1},
}


def spec_of(search: Mapping[str, Any], **changes: Any) -> SweepSpec:
    return simulated_start(search=search, **changes).spec


def space_of(search: Mapping[str, Any]) -> Space:
    return Space(spec_of(search).search)


@pytest.mark.parametrize(
    ("parameter", "count"),
    [
        ({"int": [1, 10]}, 10),
        ({"int": [1, 10], "step": 4}, 3),
        ({"int": [1, 1000], "log": True}, 1000),
        ({"float": [0.0, 0.3], "step": 0.1}, 4),
        ({"choice": [True, False]}, 2),
        ({"float": [0.0, 1.0]}, None),
    ],
)
def test_points_are_counted(parameter: dict[str, Any], count: int | None) -> None:
    assert space_of({"p": parameter}).count == count


def test_every_point_of_a_finite_space_has_a_key_of_its_own() -> None:
    space = space_of(SEARCH)
    points = list(space.points())
    assert len(points) == space.count == 3 * 3 * 3 * 4
    assert len({space.key(point) for point in points}) == space.count


def test_a_value_that_rounding_moved_is_the_same_point() -> None:
    space = space_of(SEARCH)
    point = {"rate": 1e-3, "network": "a", "depth": 5, "weight": 0.30000000000000004}
    assert space.key(point) == space.key({**point, "weight": 0.3})


def test_numbers_lie_in_their_order_and_names_equally_far_apart() -> None:
    space = space_of(SEARCH)
    point: dict[str, Scalar] = {"rate": 1e-3, "network": "b", "depth": 8, "weight": 0.0}
    assert space.to_unit(point)[:5] == [0.5, 0.0, 1.0, 0.0, pytest.approx(6 / 7)]
    named = space_of({"rate": {"choice": [1e-2, 1e-4, 1e-3], "unordered": True}})
    assert named.to_unit({"rate": 1e-4}) == [0.0, 1.0, 0.0]


def brute_force(space: Space, start: Mapping[str, Scalar], tried: set[Any]) -> float:
    return min(distance(space, start, p) for p in space.points() if space.key(p) not in tried)


def distance(space: Space, one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> float:
    numbers = [name for name in SEARCH if name != "network"]
    ordered = space_of({name: SEARCH[name] for name in numbers})
    apart = zip(ordered.to_unit(one), ordered.to_unit(other), strict=True)
    return sum((a - b) ** 2 for a, b in apart) + (one["network"] != other["network"])


def test_the_nearest_untried_point_is_the_nearest_of_all() -> None:
    space, generator = space_of(SEARCH), random.Random(0)
    points = list(space.points())
    for share in (0.0, 0.3, 0.7, 0.95):
        tried = {space.key(p) for p in points if generator.random() < share}
        for start in generator.sample(points, 8):
            found = space.nearest_untried(start, tried)
            assert space.key(found) not in tried
            nearest = brute_force(space, start, tried)
            assert distance(space, start, found) == pytest.approx(nearest)


def test_where_all_was_tried_nothing_is_nearest() -> None:
    space = space_of({"p": {"choice": ["a", "b"]}})
    tried = {space.key(point) for point in space.points()}
    with pytest.raises(ValueError, match="every point"):
        space.nearest_untried({"p": "a"}, tried)


@pytest.mark.parametrize("seed", range(5))
def test_start_values_cover_the_space_evenly(seed: int) -> None:
    """Of every eight, one is in each eighth of every parameter, and two in each quadrant."""
    space = space_of({"x": {"float": [0.0, 1.0]}, "y": {"float": [1.0, 100.0], "log": True}})
    values = [space.to_unit(point) for point in start_values(space, seed, 16)]
    for few in itertools.batched(values, 8) if hasattr(itertools, "batched") else [values[:8]]:
        for d in range(2):
            assert sorted(int(8 * value[d]) for value in few) == list(range(8))
    assert start_values(space, seed, 5) == start_values(space, seed, 16)[:5]


def test_the_whole_space_bounds_the_trials() -> None:
    search = {"p": {"choice": [1, 2, 3]}}
    assert most_trials(spec_of(search)) == 3
    assert most_trials(spec_of(search, budget={"trials": 2})) == 2
    assert most_trials(spec_of(search, sampler={"repeats": 4})) == 12
    assert most_trials(spec_of({"p": {"float": [0.0, 1.0]}})) == 14
