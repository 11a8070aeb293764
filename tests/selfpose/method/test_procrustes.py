import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from posetune.api import BadInputError
from selfpose.method.procrustes import Reflection, procrustes_align, procrustes_mean


def random_poses(number: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(scale=300.0, size=(number, 17, 3))


def similar(poses_nj3: NDArray[np.float64], seed: int = 1) -> NDArray[np.float64]:
    """Each pose scaled, turned and moved in its own way."""
    generator = np.random.default_rng(seed)
    number = len(poses_nj3)
    turn_n33 = Rotation.random(number, rng=generator).as_matrix()
    scale_n11 = np.exp(generator.normal(scale=2.0, size=(number, 1, 1)))
    return scale_n11 * poses_nj3 @ turn_n33 + generator.normal(scale=5000.0, size=(number, 1, 3))


def align_one_by_rotation(
    predicted_j3: NDArray[np.float64], truth_j3: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Independent solution for one pose, proper rotation: scipy's Kabsch."""
    predicted_j3 = predicted_j3 - predicted_j3.mean(axis=0)
    centre_3 = truth_j3.mean(axis=0)
    turned_j3 = Rotation.align_vectors(truth_j3 - centre_3, predicted_j3)[0].apply(predicted_j3)
    scale = (turned_j3 * (truth_j3 - centre_3)).sum() / np.square(turned_j3).sum()
    return scale * turned_j3 + centre_3


def align_one_by_orthogonal(
    predicted_j3: NDArray[np.float64], truth_j3: NDArray[np.float64], *, proper: bool
) -> NDArray[np.float64]:
    """Independent solution for one pose: the orthogonal problem, its determinant corrected."""
    predicted_j3 = predicted_j3 - predicted_j3.mean(axis=0)
    centre_3 = truth_j3.mean(axis=0)
    turn_33, _ = orthogonal_procrustes(predicted_j3, truth_j3 - centre_3)
    if proper and np.linalg.det(turn_33) < 0:
        # Mirror back along the direction in which the turned poses agree least.
        agreement_33 = turn_33.T @ predicted_j3.T @ (truth_j3 - centre_3)
        least_3 = np.linalg.eigh((agreement_33 + agreement_33.T) / 2)[1][:, 0]
        turn_33 = turn_33 @ (np.eye(3) - 2 * np.outer(least_3, least_3))
    turned_j3 = predicted_j3 @ turn_33
    scale = (turned_j3 * (truth_j3 - centre_3)).sum() / np.square(turned_j3).sum()
    return scale * turned_j3 + centre_3


@pytest.mark.parametrize("noise", [0.0, 80.0, 600.0])
def test_alignment_equals_independent_solutions(noise: float) -> None:
    truth = random_poses(100)
    predicted = similar(truth + np.random.default_rng(2).normal(scale=noise, size=truth.shape))
    predicted[::2, :, 2] *= -1  # half of them need the determinant's correction

    proper = procrustes_align(predicted, truth, reflection="never")
    best = procrustes_align(predicted, truth, reflection="best")

    for i in range(len(truth)):
        pair = predicted[i], truth[i]
        np.testing.assert_allclose(proper[i], align_one_by_rotation(*pair), atol=1e-4)
        np.testing.assert_allclose(
            proper[i], align_one_by_orthogonal(*pair, proper=True), atol=1e-4
        )
        np.testing.assert_allclose(best[i], align_one_by_orthogonal(*pair, proper=False), atol=1e-4)


@pytest.mark.parametrize("mirrored", [1.0, -1.0])
@pytest.mark.parametrize("thickness", [1e-1, 1e-2, 1e-4, 1e-8, 0.0])
def test_alignment_equals_scipys_however_thin_the_pose_is(
    thickness: float, mirrored: float
) -> None:
    truth, predicted = random_poses(50), random_poses(50, seed=3)
    truth = truth @ np.diag([1.0, 0.3, 0.2])
    predicted = 0.1 * predicted + truth * [1.0, 1.0, mirrored * thickness]
    predicted[:, :, 2] *= thickness
    predicted[::2, :, 1] *= thickness  # half of them are nearly a line

    aligned = procrustes_align(predicted, truth, reflection="never")

    for i in range(len(truth)):
        other = align_one_by_rotation(predicted[i], truth[i])
        reached, wanted = (np.square(a - truth[i]).sum() for a in (aligned[i], other))
        assert reached <= wanted * (1 + 1e-9)


@pytest.mark.parametrize("reflection", ["never", "best"])
def test_alignment_does_not_depend_on_how_the_prediction_is_placed(reflection: str) -> None:
    truth, predicted = random_poses(200), random_poses(200, seed=3)

    np.testing.assert_allclose(
        procrustes_align(similar(predicted), truth, reflection=reflection),  # type: ignore[arg-type]
        procrustes_align(predicted, truth, reflection=reflection),  # type: ignore[arg-type]
        atol=1e-6,
    )


def test_a_similar_pose_aligns_exactly_at_any_size() -> None:
    truth = random_poses(50)

    for size in (1e-150, 1.0, 1e150):
        aligned = procrustes_align(similar(truth) * size, truth, reflection="never")
        np.testing.assert_allclose(aligned, truth, atol=1e-6)


@pytest.mark.parametrize("kind", ["flat", "on a line", "mirrored"])
def test_no_rotation_fits_better_even_where_the_best_is_not_unique(kind: str) -> None:
    truth, predicted = random_poses(1), random_poses(1, seed=3)
    if kind == "mirrored":
        predicted = truth * [1.0, 1.0, -1.0]
    else:
        predicted[:, :, (2 if kind == "flat" else slice(1, 3))] = 0.0
    aligned = procrustes_align(predicted, truth, reflection="never")[0]
    centred_j3 = predicted[0] - predicted[0].mean(axis=0)
    target_j3 = truth[0] - truth[0].mean(axis=0)

    turned_kj3 = centred_j3 @ Rotation.random(20_000, rng=0).as_matrix()
    scale_k = np.maximum((turned_kj3 * target_j3).sum(axis=(1, 2)) / np.square(centred_j3).sum(), 0)
    tried_k = np.square(scale_k[:, None, None] * turned_kj3 - target_j3).sum(axis=(1, 2))

    reached = np.square(aligned - truth[0]).sum()
    assert reached <= tried_k.min() + 1e-6
    assert reached >= 0.9 * tried_k.min()  # and it is the same minimum, not something else


def test_joints_in_one_point_align_to_the_centre_of_the_truth() -> None:
    truth = random_poses(3)

    aligned = procrustes_align(np.full_like(truth, 7.0), truth, reflection="never")

    np.testing.assert_allclose(
        aligned, np.broadcast_to(truth.mean(axis=1, keepdims=True), truth.shape), atol=1e-9
    )


def test_a_pose_that_is_not_finite_aligns_to_infinity_and_leaves_the_others_alone() -> None:
    truth, predicted = random_poses(4), random_poses(4, seed=3)
    expected = procrustes_align(predicted, truth, reflection="never")
    predicted[1, 4, 0], predicted[2, 0, 2] = np.nan, -np.inf

    aligned = procrustes_align(predicted, truth, reflection="never")

    assert np.isposinf(aligned[1:3]).all()
    np.testing.assert_array_equal(aligned[[0, 3]], expected[[0, 3]])


def test_a_true_pose_that_is_not_finite_is_refused_by_its_row() -> None:
    truth = random_poses(4)
    truth[2, 0, 0] = np.nan

    with pytest.raises(BadInputError, match=r"1 of 4 true poses .* row 2"):
        procrustes_align(random_poses(4), truth, reflection="never")


@pytest.mark.parametrize("shape", [(2, 17, 2), (3, 17, 3), (17, 3)])
def test_shapes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="same shape"):
        procrustes_align(np.zeros(shape), random_poses(2), reflection="never")


def test_no_poses_align_to_no_poses() -> None:
    assert procrustes_align(random_poses(0), random_poses(0), reflection="never").shape == (
        0,
        17,
        3,
    )


def test_poses_are_aligned_alike_wherever_they_stand_in_a_long_array() -> None:
    truth, predicted = random_poses(9000), random_poses(9000, seed=3)

    whole = procrustes_align(predicted, truth, reflection="never")

    for part in (slice(0, 5), slice(8190, 8195), slice(8995, 9000)):
        alone = procrustes_align(predicted[part], truth[part], reflection="never")
        np.testing.assert_allclose(whole[part], alone, atol=1e-9)


@pytest.mark.parametrize("reflection", ["never", "best"])
def test_a_pose_is_aligned_alone_as_among_others(reflection: Reflection) -> None:
    truth, predicted = random_poses(20), random_poses(20, seed=3)
    predicted = truth + 0.3 * predicted
    predicted[::2, :, 2] *= -1  # mirrored

    together = procrustes_align(predicted, truth, reflection=reflection)

    for i in range(len(truth)):
        alone = procrustes_align(predicted[[i]], truth[[i]], reflection=reflection)
        np.testing.assert_allclose(alone[0], together[i], atol=1e-9)


def test_the_mean_of_similar_poses_is_their_shape() -> None:
    pose = random_poses(1)
    poses = similar(np.repeat(pose, 30, axis=0))

    mean = procrustes_mean(poses)

    np.testing.assert_allclose(
        procrustes_align(mean[None], pose, reflection="never"), pose, atol=1e-6
    )
    sizes = np.linalg.norm(poses - poses.mean(axis=1, keepdims=True), axis=(1, 2))
    assert np.linalg.norm(mean) == pytest.approx(sizes.mean())


def test_the_mean_fits_the_poses_better_than_a_shape_nearby() -> None:
    generator = np.random.default_rng(0)
    pose = random_poses(1)
    poses = similar(pose + generator.normal(scale=60.0, size=(200, 17, 3)))
    poses /= np.linalg.norm(poses - poses.mean(axis=1, keepdims=True), axis=(1, 2))[:, None, None]

    def misfit(shape_j3: NDArray[np.float64]) -> float:
        target = np.broadcast_to(shape_j3 / np.linalg.norm(shape_j3), poses.shape)
        return float(np.square(procrustes_align(poses, target, reflection="never") - target).sum())

    mean = procrustes_mean(poses)

    for _ in range(20):
        nudge = generator.normal(scale=0.02 * np.linalg.norm(mean) / np.sqrt(51), size=(17, 3))
        nearby = mean + nudge
        assert misfit(mean) < misfit(nearby - nearby.mean(axis=0))


def test_the_mean_of_no_poses_is_refused() -> None:
    with pytest.raises(ValueError, match="0 poses"):
        procrustes_mean(random_poses(0))
