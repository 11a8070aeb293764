import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from selfpose.method.metrics import (
    METRICS,
    auc,
    error_2d_px,
    error_2d_side_swap_px,
    flat_depth,
    group_activities,
    joint_distances,
    mpjpe,
    n_mpjpe,
    p_mpjpe,
    p_mpjpe_side_swap,
    pck,
    pck_joints,
    scale_to_truth,
    share_within,
    validation_metrics,
    validation_subset,
)
from selfpose.method.skeleton import H36M_17

MIRROR = list(H36M_17.mirror)


def standing_person() -> NDArray[np.float64]:
    """A person who stands facing the camera, one arm forward: (17, 3), camera axes, mm."""
    return np.array(
        [
            *[(0, 0, 4000), (-130, 0, 4000), (-130, 450, 4000), (-130, 880, 4050)],
            *[(130, 0, 4000), (130, 440, 3900), (130, 880, 4050)],
            *[(0, -230, 4000), (0, -480, 4010), (0, -590, 3980), (0, -700, 4000)],
            *[(150, -460, 4000), (200, -200, 4020), (260, 0, 3900)],
            *[(-150, -460, 4000), (-180, -300, 3780), (-180, -330, 3540)],
        ],
        dtype=np.float64,
    )


def people(number: int, seed: int = 0) -> NDArray[np.float64]:
    noise = np.random.default_rng(seed).normal(scale=40.0, size=(number, 17, 3))
    return standing_person() + noise


def test_p_mpjpe_forgives_place_turn_and_size_and_nothing_else() -> None:
    truth, predicted = people(50), people(50, seed=1)
    turn = Rotation.from_euler("zyx", [40, -100, 20], degrees=True).as_matrix()

    np.testing.assert_allclose(
        p_mpjpe(0.003 * predicted @ turn + np.array([1.0, -2.0, 5.0]), truth),
        p_mpjpe(predicted, truth),
    )
    assert p_mpjpe(predicted, truth).min() > 10.0


def test_a_depth_flip_scores_nothing_mirrored_and_much_properly() -> None:
    truth = people(20)
    flipped = truth * [1.0, 1.0, -1.0]

    np.testing.assert_allclose(p_mpjpe(flipped, truth, reflection="best"), 0.0, atol=1e-9)
    assert p_mpjpe(flipped, truth).min() > 30.0


def test_a_left_right_swap_scores_nothing_with_the_swap_allowed() -> None:
    truth = people(20)
    swapped = truth[:, MIRROR]

    np.testing.assert_allclose(p_mpjpe_side_swap(swapped, truth, layout=H36M_17), 0.0, atol=1e-9)
    np.testing.assert_allclose(p_mpjpe_side_swap(truth, truth, layout=H36M_17), 0.0, atol=1e-9)
    assert p_mpjpe(swapped, truth).min() > 30.0


def test_a_mirrored_person_is_not_forgiven_by_the_side_swap() -> None:
    truth = people(20)

    assert p_mpjpe_side_swap(truth * [1.0, 1.0, -1.0], truth, layout=H36M_17).min() > 30.0


def test_n_mpjpe_forgives_place_and_size_but_not_turn() -> None:
    truth = people(20)
    turned = (truth - truth[:, :1]) @ Rotation.from_euler("y", 90, degrees=True).as_matrix()

    np.testing.assert_allclose(n_mpjpe(0.002 * truth + 9.0, truth, root=0), 0.0, atol=1e-9)
    assert n_mpjpe(turned, truth, root=0).min() > 50.0


def test_n_mpjpe_takes_the_least_squares_scale() -> None:
    truth, predicted = people(1), people(1, seed=1)
    centred = predicted - predicted[:, :1]
    target = truth - truth[:, :1]

    scales = np.linspace(0.5, 1.5, 100_001)[:, None, None]
    best = scales[np.square(scales * centred - target).sum(axis=(1, 2)).argmin()]

    expected = np.linalg.norm(best * centred - target, axis=-1).mean()
    assert n_mpjpe(predicted, truth, root=0)[0] == pytest.approx(expected, abs=1e-2)


def test_mpjpe_forgives_the_place_only() -> None:
    truth = people(5)

    np.testing.assert_allclose(
        mpjpe(truth + np.array([10.0, 0.0, 500.0]), truth, root=0), 0.0, atol=1e-9
    )
    doubled = truth[:, :1] + 2 * (truth - truth[:, :1])
    expected = np.linalg.norm(truth - truth[:, :1], axis=-1).mean(axis=1)
    np.testing.assert_allclose(mpjpe(doubled, truth, root=0), expected)


def test_pck_counts_joints_strictly_closer_than_the_threshold() -> None:
    assert pck(np.array([[0.0, 149.9, 150.0, 151.0]])) == 0.5


def test_auc_is_the_mean_over_31_thresholds() -> None:
    # 0 mm counts at 30 thresholds (5 to 150), 72 mm at the 16 from 75 on, 150 mm at none.
    assert auc(np.array([[0.0, 72.0, 150.0]])) == pytest.approx((30 + 16 + 0) / (3 * 31))


def test_pck_counts_14_joints_of_a_body() -> None:
    names = {H36M_17.joints[j] for j in pck_joints(H36M_17)}

    assert len(names) == 14
    assert not names & {"pelvis", "spine", "neck"}


def test_error_2d_is_measured_between_pixel_centres() -> None:
    truth = people(1)[..., :2] / 2000
    one_pixel_right = truth + np.array([2 / 63, 0.0])

    np.testing.assert_allclose(error_2d_px(one_pixel_right, truth, image_size=64), 1.0)


def test_the_2d_side_swap_forgives_exchanged_sides_frame_by_frame() -> None:
    truth = people(6)[..., :2] / 2000
    swapped = truth.copy()
    swapped[::2] = truth[::2][:, list(H36M_17.mirror)]

    found = error_2d_side_swap_px(swapped, truth, image_size=64, layout=H36M_17)

    np.testing.assert_allclose(found, 0.0, atol=1e-12)
    assert error_2d_px(swapped, truth, image_size=64)[::2].min() > 0.0


def test_flat_depth_keeps_the_2d_pose() -> None:
    joints = people(3)[..., :2]

    np.testing.assert_array_equal(flat_depth(joints)[..., :2], joints)
    assert not flat_depth(joints)[..., 2].any()


def activities(*rows: tuple[int, int, int]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(activity, frames, motions) of each, as the columns activity and motion."""
    activity = np.concatenate([np.full(frames, a, np.int32) for a, frames, _ in rows])
    motion = np.concatenate([1000 * a + np.arange(f, dtype=np.int32) % m for a, f, m in rows])
    return activity, motion


def test_activities_with_few_frames_or_motions_are_pooled_as_one() -> None:
    activity, motion = activities((2, 100, 3), (5, 99, 3), (7, 500, 2), (9, 150, 40))
    groups = group_activities(activity, motion)
    error = np.select([activity == 2, activity == 9, activity == 5], [10.0, 40.0, 70.0], 100.0)

    assert groups.own == (2, 9)
    assert groups.pooled == (5, 7)
    pooled = (99 * 70.0 + 500 * 100.0) / 599
    assert groups.macro_average(error) == pytest.approx((10.0 + 40.0 + pooled) / 3)


def test_without_any_large_activity_the_macro_average_is_the_frame_mean() -> None:
    activity, motion = activities((0, 50, 3), (1, 300, 1))
    error = np.random.default_rng(0).uniform(size=350)
    groups = group_activities(activity, motion)

    assert groups.own == ()
    assert groups.macro_average(error) == pytest.approx(error.mean())


def test_without_any_small_activity_nothing_is_pooled() -> None:
    groups = group_activities(*activities((4, 100, 3), (1, 200, 5)))

    assert groups.own == (1, 4)
    assert groups.pooled == ()
    assert groups.macro_average(np.where(groups.group_n == 0, 1.0, 3.0)) == pytest.approx(2.0)


def test_the_order_of_frames_does_not_change_the_macro_average() -> None:
    activity, motion = activities((2, 120, 3), (5, 20, 3), (7, 130, 4))
    error = np.random.default_rng(0).uniform(size=len(activity))
    order = np.random.default_rng(1).permutation(len(activity))

    assert group_activities(activity[order], motion[order]).macro_average(
        error[order]
    ) == pytest.approx(group_activities(activity, motion).macro_average(error))


def test_an_average_over_no_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="0 frames"):
        group_activities(np.zeros(0, np.int32), np.zeros(0, np.int32))


def validation_inputs(number: int = 240) -> dict[str, Any]:
    truth = people(number)
    joints_2d = truth[..., :2] / 2000
    return {
        "predicted_3d_nj3": people(number, seed=1) / 400,
        "truth_3d_nj3": truth,
        "predicted_2d_nj2": joints_2d + np.array([0.1, 0.0]),
        "truth_2d_nj2": joints_2d,
        "lifted_true_nj3": truth / 300,
        "activity_n": np.arange(number) % 2,
        "motion_n": np.arange(number) % 10,
        "layout": H36M_17,
        "image_size": 64,
    }


def test_validation_reports_exactly_the_declared_metrics() -> None:
    values = validation_metrics(**validation_inputs())

    assert set(values) == set(METRICS)
    assert all(type(value) is float and np.isfinite(value) for value in values.values())
    assert values["val/lifted_true_mm"] == pytest.approx(0.0, abs=1e-9)
    assert values["val/error_2d_px"] == pytest.approx(0.1 * 63 / 2)
    assert values["val/p_mpjpe_mirrored_mm"] <= values["val/p_mpjpe_frame_mm"]
    assert values["val/p_mpjpe_side_swap_mm"] <= values["val/p_mpjpe_frame_mm"]
    assert values["val/error_2d_side_swap_px"] <= values["val/error_2d_px"]
    assert values["val/p_mpjpe_frame_mm"] < values["val/n_mpjpe_mm"]


def test_validation_of_the_truth_is_perfect() -> None:
    given = validation_inputs()
    given["predicted_3d_nj3"] = given["truth_3d_nj3"] / 250
    given["predicted_2d_nj2"] = given["truth_2d_nj2"]

    values = validation_metrics(**given)

    for name, metric in METRICS.items():
        if name in ("val/flat_predicted_mm", "val/auc"):
            continue
        assert values[name] == pytest.approx(1.0 if metric.mode == "max" else 0.0, abs=1e-9), name
    assert values["val/auc"] == pytest.approx(30 / 31)  # nothing is closer than 0 mm
    assert values["val/flat_predicted_mm"] > 30.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_prediction_that_is_not_finite_makes_the_objective_infinite(bad: float) -> None:
    given = validation_inputs()
    given["predicted_3d_nj3"][3, 5, 1] = bad
    given["predicted_2d_nj2"][3, 5, 1] = bad

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = validation_metrics(**given)

    assert not any(np.isnan(value) for value in values.values())
    if not np.isfinite(bad):
        assert values["val/p_mpjpe_mm"] == np.inf
        assert values["val/n_mpjpe_mm"] == np.inf
        assert values["val/error_2d_px"] == np.inf
        assert values["val/pck_150"] < 1.0


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e300])
def test_no_scale_turns_a_prediction_inside_out(scale: float) -> None:
    truth = people(30)
    centred = truth - truth[:, :1]
    scaled, _ = scale_to_truth(-scale * centred, truth, root=0)

    assert (scaled == 0).all()
    assert n_mpjpe(-centred, truth, root=0).min() > 300.0
    assert pck(joint_distances(scaled, centred)[:, pck_joints(H36M_17)]) < 0.5


def test_a_mirrored_prediction_still_gets_its_least_squares_scale() -> None:
    truth = people(30)
    mirrored = (truth - truth[:, :1]) * [1.0, 1.0, -1.0] / 300

    scaled, _ = scale_to_truth(mirrored, truth, root=0)

    ratio = np.linalg.norm(scaled, axis=(1, 2)) / np.linalg.norm(mirrored, axis=(1, 2))
    assert (ratio > 200).all()


@pytest.mark.parametrize("place", [0.0, 4000.0])
@pytest.mark.parametrize("prediction", ["truth", "other"])
def test_a_truth_in_one_place_has_no_error_at_all(place: float, prediction: str) -> None:
    truth = people(4)
    truth[2] = place
    predicted = truth.copy() if prediction == "truth" else people(4, seed=1)

    errors = {
        "P": p_mpjpe(predicted, truth),
        "P mirrored": p_mpjpe(predicted, truth, reflection="best"),
        "P swap": p_mpjpe_side_swap(predicted, truth, layout=H36M_17),
        "N": n_mpjpe(predicted, truth, root=0),
        "plain": mpjpe(predicted, truth, root=0),
        "2D": error_2d_px(predicted[..., :2], truth[..., :2], image_size=64),
        "PCK": share_within(joint_distances(predicted, truth), 150.0),
    }

    for name, error in errors.items():
        assert np.isnan(error).tolist() == [False, False, True, False], name
    assert np.isnan(pck(joint_distances(predicted, truth)))
    assert np.isnan(auc(joint_distances(predicted, truth)))


def test_validation_on_a_degenerate_truth_is_nan_in_every_metric() -> None:
    given = validation_inputs()
    given["truth_3d_nj3"][5], given["truth_2d_nj2"][5] = 0.0, 0.0

    assert all(np.isnan(value) for value in validation_metrics(**given).values())


@pytest.mark.parametrize(("length", "frames"), [(10, 3), (1000, 999), (4501, 512), (7, 1)])
def test_the_validation_subset_takes_one_row_of_each_piece(length: int, frames: int) -> None:
    rows = validation_subset(length, frames, 5)

    assert len(np.unique(rows)) == frames
    assert (np.diff(rows) > 0).all()
    edges = np.arange(frames + 1) * length // frames
    assert ((edges[:-1] <= rows) & (rows < edges[1:])).all()


def test_the_validation_subset_depends_on_the_seed_alone() -> None:
    np.testing.assert_array_equal(validation_subset(900, 90, 1), validation_subset(900, 90, 1))
    assert (validation_subset(900, 90, 1) != validation_subset(900, 90, 2)).any()


def test_the_validation_subset_of_a_small_split_is_all_of_it() -> None:
    np.testing.assert_array_equal(validation_subset(5, 512, 0), np.arange(5))
