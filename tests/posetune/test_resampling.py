import numpy as np
import pytest
from numpy.typing import NDArray

from posetune.resampling import MotionBootstrap, interval


def frames(motions: int, seed: int, *, size: int = 5) -> tuple[NDArray, NDArray, NDArray]:
    """Values that differ between motions more than within; motions of different lengths."""
    generator = np.random.default_rng(seed)
    motion = np.repeat(np.arange(motions), generator.integers(1, 2 * size, motions))
    value = generator.normal(100, 20, motions)[motion] + generator.normal(0, 2, len(motion))
    return value, motion, motion % 3


def test_draws_equal_those_made_by_copying_the_frames_of_drawn_motions() -> None:
    value, motion, group = frames(12, 0)
    drawn = MotionBootstrap(motion, draws=30, seed=4)
    times = np.random.default_rng(4).multinomial(12, np.full(12, 1 / 12), size=30)

    for k in range(30):
        rows = np.concatenate(
            [np.repeat(np.flatnonzero(motion == m), times[k, m]) for m in range(12)]
        )
        groups = [value[rows][group[rows] == g].mean() for g in np.unique(group[rows])]
        assert drawn.means(value)[k, 0] == pytest.approx(value[rows].mean())
        assert drawn.macro(value, group)[k] == pytest.approx(np.mean(groups))


def test_neither_the_order_of_frames_nor_the_names_of_motions_matter() -> None:
    value, motion, group = frames(20, 1)
    order = np.random.default_rng(0).permutation(len(value))

    first = MotionBootstrap(motion).macro(value, group)
    second = MotionBootstrap(7 * motion[order] - 3).macro(value[order], group[order])

    np.testing.assert_allclose(first, second)


def test_copies_of_frames_do_not_narrow_the_interval() -> None:
    value, motion, _ = frames(20, 2)
    once = interval(MotionBootstrap(motion).means(value)[:, 0], 20)
    tenfold = interval(MotionBootstrap(np.tile(motion, 10)).means(np.tile(value, 10))[:, 0], 20)

    assert tenfold == pytest.approx(once)


@pytest.mark.slow
def test_about_95_of_100_intervals_hold_the_true_mean() -> None:
    held = 0
    for seed in range(400):
        value, motion, _ = frames(60, seed)
        low, high = interval(MotionBootstrap(motion, draws=400).means(value)[:, 0], 60)
        held += low <= 100 <= high

    assert 0.91 <= held / 400 <= 0.98


def test_the_ends_hardly_depend_on_the_seed() -> None:
    value, motion, _ = frames(40, 3)
    ends = np.array(
        [interval(MotionBootstrap(motion, seed=s).means(value)[:, 0], 40) for s in range(40)]
    )
    assert ends.std(axis=0).max() < 0.05 * (ends[:, 1] - ends[:, 0]).mean()


def test_one_motion_or_a_value_that_is_not_finite_tells_nothing() -> None:
    one = MotionBootstrap(np.zeros(5))
    assert np.isnan(interval(one.means(np.arange(5.0))[:, 0], one.motions)).all()
    broken = MotionBootstrap(np.arange(5)).means(np.array([1, 2, np.inf, 3, 4]))[:, 0]
    assert np.isnan(interval(broken, 5)).all()


def test_a_draw_without_any_motion_of_a_group_leaves_that_group_out() -> None:
    drawn = MotionBootstrap(np.arange(4), draws=200).means(np.arange(4.0), np.array([0, 1, 1, 1]))
    absent = np.isnan(drawn[:, 0])

    assert 0 < absent.sum() < 200
    assert (drawn[~absent, 0] == 0.0).all()
