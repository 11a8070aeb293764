from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from selfpose.data.pictures.decoding import BadPictureError, cut_crop, read_crop
from selfpose.data.synthetic.cameras import Crop


def _smooth(width: int, height: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def _write(file: Path, picture: np.ndarray) -> Path:
    cv2.imwrite(str(file), picture, [cv2.IMWRITE_JPEG_QUALITY, 97])
    return file


def _naive_crop(picture: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Every pixel of the crop, looked up one by one in the whole picture."""
    step = crop.side_px / (size - 1)
    mean = cv2.blur(picture, (max(1, round(step)), max(1, round(step)))).astype(float)
    cut = np.zeros((size, size, 3))
    for row in range(size):
        for column in range(size):
            u = crop.centre_px[0] + crop.side_px / 2 * (-1 + 2 * column / (size - 1))
            v = crop.centre_px[1] + crop.side_px / 2 * (-1 + 2 * row / (size - 1))
            at = round(v), round(u)
            if 0 <= at[0] < picture.shape[0] and 0 <= at[1] < picture.shape[1]:
                cut[row, column] = mean[at]
    return cut[..., ::-1]


@pytest.mark.parametrize("side", [50.0, 130.0, 300.0, 560.0, 1200.0])
def test_a_reduced_picture_gives_the_crop_of_the_whole_one(tmp_path: Path, side: float) -> None:
    picture = _smooth(1000, 1002)
    crop = Crop((480.3, 520.7), side)
    file = _write(tmp_path / "a.jpg", picture)

    found = read_crop(file, crop, 32, frame_size=(1000, 1002))

    wanted = _naive_crop(picture, crop, 32)
    inside = wanted.max(axis=-1) > 0
    assert np.abs(found.astype(float) - wanted)[inside].mean() < 4


@pytest.mark.parametrize("side", [40.0, 200.0, 700.0])
def test_a_point_of_the_frame_lands_where_the_crop_puts_it(tmp_path: Path, side: float) -> None:
    crop = Crop((500.0, 500.0), side)
    point = np.asarray([500 + 0.3 * side, 500 - 0.2 * side], np.float32)
    picture = np.zeros((1000, 1000, 3), np.uint8)
    cv2.circle(picture, np.rint(point).astype(int).tolist(), round(side / 12), (255,) * 3, -1)
    file = _write(tmp_path / "a.jpg", picture)

    bright = read_crop(file, crop, 64, frame_size=(1000, 1000))[..., 0].astype(float)

    found = [(bright.sum(axis=axis) * np.arange(64)).sum() / bright.sum() for axis in (0, 1)]
    np.testing.assert_allclose(found, (crop.from_frame(point) + 1) * 63 / 2, atol=0.6)


def test_a_smaller_copy_of_the_frame_gives_the_same_crop(tmp_path: Path) -> None:
    picture, crop = _smooth(2048, 2048), Crop((900.0, 1100.0), 1000.0)
    small = np.asarray(cv2.resize(picture, (768, 768), interpolation=cv2.INTER_AREA))
    crops = [
        read_crop(_write(tmp_path / "a.jpg", some), crop, 64, frame_size=(2048, 2048)).astype(float)
        for some in (picture, small)
    ]

    assert np.abs(crops[0] - crops[1]).mean() < 3


def test_an_orientation_tag_does_not_turn_the_picture(tmp_path: Path) -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:20] = 255
    file = _write(tmp_path / "a.jpg", picture)
    content = file.read_bytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    tag = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    file.write_bytes(content[:2] + tag + content[2:])
    assert cv2.imread(str(file))[2, 2].max() != cv2.imread(str(file))[2, 37].max()

    found = read_crop(file, Crop((19.5, 19.5), 39.0), 40, frame_size=(40, 40))

    assert found[:18].min() > 200
    assert found[22:].max() < 50


def test_pictures_that_are_no_jpeg_are_read_too(tmp_path: Path) -> None:
    picture = _smooth(400, 400)
    cv2.imwrite(str(tmp_path / "a.png"), picture)

    found = read_crop(tmp_path / "a.png", Crop((399.5, 399.5), 799.0), 800, frame_size=(800, 800))

    wanted = cv2.resize(picture, (800, 800), interpolation=cv2.INTER_LINEAR)[..., ::-1]
    assert np.abs(found.astype(float) - wanted)[2:-2, 2:-2].max() <= 2


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_jpeg_without_its_end_is_refused_however_little_is_missing(
    tmp_path: Path, share: float
) -> None:
    file = _write(tmp_path / "a.jpg", _smooth(200, 200))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(BadPictureError, match="JPEG cut short"):
        read_crop(file, Crop((100.0, 100.0), 100.0), 32, frame_size=None)


def test_zeros_after_the_end_do_no_harm(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.jpg", _smooth(200, 200))
    file.write_bytes(file.read_bytes() + bytes(512))

    assert read_crop(file, Crop((100.0, 100.0), 100.0), 32, frame_size=None).std() > 10


def test_what_lies_outside_the_picture_is_black() -> None:
    white = np.full((100, 100, 3), 255, np.uint8)
    cut = cut_crop(white, Crop((0.0, 50.0), 60.0), 31, scale=1.0)

    assert cut[:, :14].max() == 0
    assert cut[:, 16:].min() == 255
