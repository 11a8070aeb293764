"""Laws of how slots are shared, on made-up demands."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import pytest

from posetune.study.sharing.entitlements import Demand, entitlements

SEEDS = range(300)


def demands(seed: int, *, alike: bool) -> list[Demand]:
    """Return demands of up to six sweeps; `alike`: with trials of one size and one priority."""
    draw = random.Random(seed)
    fits = draw.randint(1, 40)
    return [
        Demand(
            f"s{place}",
            fits=fits if alike else draw.randint(1, 40),
            holds=draw.randint(0, 10),
            wants=draw.choice([0, draw.randint(1, 5), 1000]),
            priority=0 if alike else draw.randint(-1, 1),
            share=draw.choice([0.5, 1, 2, 3, 7.5]),
        )
        for place in range(draw.randint(1, 6))
    ]


def taken(found: list[Demand], entitled: dict[str, int]) -> Fraction:
    return sum((entitled[one.sweep] * one.size for one in found), Fraction(0))


def test_nobody_has_more_than_it_wants_and_all_together_fit() -> None:
    for seed in SEEDS:
        found = demands(seed, alike=False)
        entitled = entitlements(found)
        assert entitled.keys() == {one.sweep for one in found}
        assert all(0 <= entitled[one.sweep] <= one.wants for one in found)
        assert taken(found, entitled) <= 1


def test_no_slot_is_left_that_somebody_wants() -> None:
    for seed in SEEDS:
        found = demands(seed, alike=False)
        entitled = entitlements(found)
        left = 1 - taken(found, entitled)
        assert all(one.size > left for one in found if entitled[one.sweep] < one.wants)


def test_a_lower_priority_takes_nothing_from_a_higher_one() -> None:
    for seed in SEEDS:
        found = demands(seed, alike=False)
        highest = max(one.priority for one in found)
        first = [one for one in found if one.priority == highest]
        entitled = entitlements(found)
        assert entitlements(first) == {one.sweep: entitled[one.sweep] for one in first}


def test_shares_hold_to_within_a_slot() -> None:
    """No slot could be moved to a sweep that would then still have less for its share."""
    for seed in SEEDS:
        found = demands(seed, alike=True)
        entitled = entitlements(found)
        for poor in (one for one in found if entitled[one.sweep] < one.wants):
            with_one_more = (entitled[poor.sweep] + 1) / poor.share
            for rich in (one for one in found if entitled[one.sweep] > 1):
                assert entitled[rich.sweep] / rich.share <= with_one_more


def test_nobody_goes_without_where_there_is_a_slot_for_each() -> None:
    for seed in SEEDS:
        found = demands(seed, alike=True)
        wanting = [one for one in found if one.wants]
        if len(wanting) <= found[0].fits:
            assert all(entitlements(found)[one.sweep] >= 1 for one in wanting)


def test_one_that_wants_less_takes_nothing_from_the_others() -> None:
    for seed in SEEDS:
        found = demands(seed, alike=True)
        before = entitlements(found)
        modest = [replace(found[0], wants=found[0].wants // 2), *found[1:]]
        after = entitlements(modest)
        assert all(after[one.sweep] >= before[one.sweep] for one in found[1:])


def test_what_a_sweep_holds_says_nothing_of_what_it_may_have() -> None:
    """So what a sweep gives back is not given to it again."""
    for seed in SEEDS:
        found = demands(seed, alike=False)
        assert entitlements(found) == entitlements([replace(one, holds=0) for one in found])


@pytest.mark.parametrize(
    ("shares", "slots", "expected"),
    [
        ((1, 1), 8, [4, 4]),
        ((3, 1), 8, [6, 2]),
        ((1, 1), 9, [5, 4]),
        ((9, 1), 4, [3, 1]),
        ((1, 1, 1), 2, [1, 1, 0]),
        ((2, 1, 1), 8, [4, 2, 2]),
    ],
)
def test_examples(shares: tuple[float, ...], slots: int, expected: list[int]) -> None:
    found = [
        Demand(f"s{place}", fits=slots, holds=0, wants=100, share=share)
        for place, share in enumerate(shares)
    ]
    assert list(entitlements(found).values()) == expected


def test_a_trial_that_takes_more_counts_as_more() -> None:
    """Two GPUs of eight for each trial of one sweep, one for each of the other's."""
    large = Demand("large", fits=4, holds=0, wants=100)
    small = Demand("small", fits=8, holds=0, wants=100)
    assert entitlements([large, small]) == {"large": 2, "small": 4}
