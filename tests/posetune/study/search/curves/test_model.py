"""The model of curves: what it predicts, held against naive arithmetic and against worlds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from posetune.study.search.curves.model import (
    CurveModel,
    Ends,
    Observations,
    fit,
    log_chance_to_win,
    log_expected_improvement,
    start_shape,
)

LAST = 27


def observed(
    count: int, epochs: tuple[int, ...], seed: int = 0
) -> tuple[Observations, list[float]]:
    """Curves that fall to an end; the end and the speed depend on the first coordinate."""
    generator = np.random.default_rng(0)
    points = generator.random((count, 2))
    ends = (points[:, 0] - 0.6) ** 2 * 4 - 1
    trials, at, values = [], [], []
    for trial in range(count):
        for epoch in epochs:
            left = math.log(LAST / epoch) / math.log(LAST)
            gap = (1 + points[trial, 0]) * left
            trials.append(trial)
            at.append(epoch)
            values.append(ends[trial] + gap + 0.02 * generator.normal())
    seen = Observations(points, np.array(trials), np.array(at), np.array(values), last_epoch=LAST)
    return seen, list(ends)


def none(count: int) -> NDArray[np.int64]:
    return np.arange(-count, 0)


def test_a_trial_that_has_ended_is_expected_where_it_ended() -> None:
    seen, ends = observed(6, (1, 4, LAST))
    found = CurveModel(start_shape(2), seen).ends(seen.points_td, np.arange(6))
    np.testing.assert_allclose(found.mean_c, ends, atol=0.1)
    assert np.all(found.spread_c < 0.1)


def test_a_fit_to_curves_that_have_ended_foretells_those_that_have_not() -> None:
    seen, ends = observed(20, (1, 2, 4, 8, 16, LAST))
    is_early = (seen.trials_n >= 12) & (seen.epochs_n > 4)
    early = Observations(
        seen.points_td,
        seen.trials_n[~is_early],
        seen.epochs_n[~is_early],
        seen.values_n[~is_early],
        LAST,
    )
    found = CurveModel(fit(early), early).ends(seen.points_td, np.arange(20))
    misses = np.abs(found.mean_c - ends)[12:]
    last_seen = [
        seen.values_n[(seen.trials_n == t) & (seen.epochs_n == 4)][0] for t in range(12, 20)
    ]
    assert np.max(misses) < 0.25 * np.mean(np.abs(np.array(last_seen) - ends[12:]))
    assert np.mean(misses < 3 * found.spread_c[12:]) == 1.0


def test_a_fit_is_at_least_as_likely_as_the_start_and_the_same_again() -> None:
    seen, _ = observed(10, (1, 2, 4))
    assert fit(seen) == fit(seen) != start_shape(2)


def test_trials_at_work_make_their_neighbours_certain_and_move_nothing() -> None:
    seen, _ = observed(8, (1, 4))
    model = CurveModel(start_shape(2), seen)
    near = np.array([[0.5, 0.5], [0.51, 0.5], [0.0, 0.0]])
    alone = model.ends(near, none(3))
    beside = model.ends(near, none(3), near[:1], np.array([-100]))
    np.testing.assert_allclose(beside.mean_c, alone.mean_c)
    gain = alone.spread_c - beside.spread_c
    assert gain[1] > 2 * gain[2] > 0.0, gain


def test_an_observed_end_says_what_being_at_work_says_of_the_spread() -> None:
    """Conditioning on a trial at work is observing its end there: the same, computed plainly."""
    seen, _ = observed(8, (1, 4))
    shape = start_shape(2)
    model = CurveModel(shape, seen)
    work, other = np.array([[0.5, 0.5]]), np.array([[0.6, 0.4], [0.2, 0.9]])
    mean = float(model.ends(work, none(1)).mean_c[0])
    more = Observations(
        np.vstack([seen.points_td, work]),
        np.append(seen.trials_n, 8),
        np.append(seen.epochs_n, LAST),
        np.append(seen.values_n, mean),
        LAST,
    )
    plain = CurveModel(shape, more).ends(other, none(2))
    ours = model.ends(other, none(2), work, np.array([-50]))
    np.testing.assert_allclose(ours.spread_c, plain.spread_c, rtol=1e-6)
    np.testing.assert_allclose(ours.mean_c, plain.mean_c, atol=1e-6)


def test_the_settings_of_points_are_their_ends_without_a_trial_of_its_own() -> None:
    seen, _ = observed(8, (1, 4))
    shape = start_shape(2)
    points = np.array([[0.6, 0.4], [0.2, 0.9], [0.21, 0.9]])
    ends = CurveModel(shape, seen).ends(points, none(3))
    found = CurveModel(shape, seen).settings(points)
    np.testing.assert_allclose(found.mean_c, ends.mean_c)
    own = ends.spread_c**2 - np.diag(found.covariance_cc)
    np.testing.assert_allclose(own, shape.end_own**2)
    alike = found.covariance_cc[1, 2] / np.sqrt(np.prod(np.diag(found.covariance_cc)[1:]))
    assert alike > 0.99, "neighbours are drawn together"


def test_expected_improvement_is_that_of_drawn_ends() -> None:
    generator = np.random.default_rng(0)
    for mean, spread, best in [(0.0, 1.0, -0.5), (1.0, 0.3, 1.2), (-2.0, 0.7, -1.0)]:
        drawn = mean + spread * generator.normal(size=400_000)
        expected = np.mean(np.maximum(0.0, best - drawn))
        ends = Ends(np.array([mean]), np.array([spread]))
        assert math.exp(log_expected_improvement(ends, best)[0]) == pytest.approx(
            expected, rel=0.02
        )
        chance = math.exp(log_chance_to_win(ends, best)[0])
        assert chance == pytest.approx(np.mean(drawn < best), rel=0.02)


def test_hopeless_ends_still_have_an_order_and_no_gap_where_the_formula_changes() -> None:
    means = np.array([0.0, 0.99, 1.0, 1.01, 2.0, 5.0, 40.0, 999.0, 1001.0, 1e5, 1e8])
    gains = log_expected_improvement(Ends(means, np.ones(len(means))), 0.0)
    assert np.all(np.isfinite(gains))
    assert np.all(np.diff(gains) < 0)
    around = log_expected_improvement(Ends(np.array([999.999, 1000.001]), np.ones(2)), 0.0)
    assert abs(around[0] - around[1]) < 5.0
