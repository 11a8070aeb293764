import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from selfpose.figures import SheetRow, draw_sheet, qualitative_sheet
from selfpose.skeleton import H36M_17

RED = np.array([0xD7, 0x30, 0x27])


def poses(number: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(scale=300.0, size=(number, 17, 3))


def images(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 90, (number, 32, 32, 3), dtype=np.uint8)


def red_pixels(file: Path) -> int:
    pixels = np.round(imread(file)[..., :3] * 255)
    return int((np.abs(pixels - RED).max(axis=-1) < 3).sum())


@pytest.mark.parametrize("with_images", [True, False])
def test_six_rows_are_drawn_in_less_than_two_seconds(tmp_path: Path, with_images: bool) -> None:
    truth = poses(6)
    out = tmp_path / "sheet.png"
    started = time.perf_counter()

    qualitative_sheet(
        images(6) if with_images else None,
        truth[..., :2] / 1000,
        truth,
        truth + 30.0,
        layout=H36M_17,
        out=out,
    )

    assert time.perf_counter() - started < 2.0
    height, width, _ = imread(out).shape
    assert (width, height) == (860, 955)
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]


def test_a_prediction_that_is_not_finite_is_left_out_of_its_row(tmp_path: Path) -> None:
    truth = poses(2)
    predicted = truth + np.random.default_rng(2).normal(scale=50.0, size=truth.shape)
    broken = predicted.copy()
    broken[1, 0, 0] = np.nan

    for name, predicted_nj3 in {"whole": predicted, "broken": broken}.items():
        out = tmp_path / f"{name}.png"
        qualitative_sheet(None, truth[..., :2], truth, predicted_nj3, layout=H36M_17, out=out)

    counts = [red_pixels(tmp_path / f"{name}.png") for name in ("whole", "broken")]
    assert 0.3 * counts[0] < counts[1] < 0.8 * counts[0]


def test_the_same_rows_give_the_same_file() -> None:
    pose = poses(1)[0]
    rows = [SheetRow("best", images(1)[0], pose[:, :2] / 1000, pose, pose)]

    assert draw_sheet(rows, layout=H36M_17) == draw_sheet(rows, layout=H36M_17)


def test_a_sheet_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        draw_sheet([], layout=H36M_17)
