import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from selfpose.evaluation.distribution import draw_distribution
from selfpose.evaluation.figures import SheetRow, draw_sheet
from selfpose.method.skeleton import H36M_17

RED = (0xD7, 0x30, 0x27)
GREEN = (0x1A, 0x98, 0x50)


def rows(number: int, *, image: bool = True, noise: float = 50.0) -> list[SheetRow]:
    generator = np.random.default_rng(0)
    poses = generator.normal(scale=300.0, size=(number, 17, 3))
    return [
        SheetRow(
            label=f"row {i}",
            image_ss3=generator.integers(0, 90, (32, 32, 3), dtype=np.uint8) if image else None,
            joints_2d_j2=pose[:, :2] / 1000,
            truth_2d_j2=pose[:, :2] / 1000 + 0.05,
            truth_3d_j3=pose,
            predicted_3d_j3=pose + generator.normal(scale=noise, size=pose.shape),
        )
        for i, pose in enumerate(poses)
    ]


def pixels(png: bytes) -> NDArray[np.float64]:
    return np.asarray(imread(io.BytesIO(png))[..., :3] * 255)


def count(png: bytes, colour: tuple[int, int, int]) -> int:
    return int((np.abs(pixels(png) - colour).max(axis=-1) < 3).sum())


@pytest.mark.slow
@pytest.mark.parametrize("image", [True, False])
def test_six_rows_make_one_sheet(image: bool) -> None:
    png = draw_sheet(rows(6, image=image), layout=H36M_17, title="six")

    assert pixels(png).shape == (1042, 1085, 3)


def test_a_prediction_that_is_not_finite_is_left_out_of_its_row() -> None:
    whole = rows(2, image=False)
    pose = whole[1].predicted_3d_j3.copy()
    pose[0, 0] = np.nan
    broken = [whole[0], replace(whole[1], predicted_3d_j3=pose)]

    counts = [count(draw_sheet(r, layout=H36M_17), RED) for r in (whole, broken)]
    assert 0.3 * counts[0] < counts[1] < 0.8 * counts[0]


def test_a_prediction_is_aligned_before_it_is_drawn() -> None:
    (row,) = rows(1, noise=0.0)
    turned = replace(row, predicted_3d_j3=0.01 * row.predicted_3d_j3 @ np.eye(3)[[1, 2, 0]] + 7)

    assert draw_sheet([turned], layout=H36M_17) == draw_sheet([row], layout=H36M_17)


@pytest.mark.slow
def test_without_a_true_3d_pose_the_prediction_stands_alone_in_3d() -> None:
    known = rows(2)
    unknown = [replace(row, truth_3d_j3=None, score="3.0 px") for row in known]
    nowhere = [replace(row, truth_2d_j2=None) for row in unknown]

    sheets = [draw_sheet(r, layout=H36M_17) for r in (known, unknown, nowhere)]
    green = [count(sheet, GREEN) for sheet in sheets]
    assert green[0] > 2 * green[1] > 4 * green[2]
    assert all(count(sheet, RED) > 1000 for sheet in sheets)


def test_left_limbs_are_told_from_right_ones() -> None:
    (row,) = rows(1, image=False)
    swapped = replace(row, predicted_3d_j3=row.predicted_3d_j3[list(H36M_17.mirror)])

    assert draw_sheet([row], layout=H36M_17) != draw_sheet([swapped], layout=H36M_17)


def test_the_same_rows_give_the_same_file() -> None:
    assert draw_sheet(rows(1), layout=H36M_17) == draw_sheet(rows(1), layout=H36M_17)


def test_a_sheet_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        draw_sheet([], layout=H36M_17)


def test_the_distribution_takes_few_many_equal_and_infinite_errors() -> None:
    generator = np.random.default_rng(0)
    error = np.concatenate([generator.gamma(9, 12, 400), [80.0] * 20, [50, 60, np.inf]])
    activity = np.repeat([0, 1, 2], [400, 20, 3])
    names = ("Walking", "Sitting", "Juggling")

    png = draw_distribution(error, activity, np.arange(423) // 10, names=names, unit="mm")

    assert pixels(png).shape[0] == 420
    assert draw_distribution(
        np.full(5, np.inf), np.zeros(5, int), np.arange(5), names=names, unit="px"
    )
