from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from selfpose.data.pictures.decoding import BadPictureError, read_crop
from selfpose.data.pictures.foreground import (
    MaskPlace,
    box_of,
    estimate_backdrop,
    find_foreground,
    is_silhouette,
    match_light,
    read_mask,
)
from selfpose.data.synthetic.cameras import Crop

SIDE = 1000


def _pictures(folder: Path, *, count: int) -> tuple[list[str], list[np.ndarray]]:
    """A disc that moves over a textured wall, with noise and changing light; and where it is."""
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.integers(40, 200, (20, 20, 3), np.uint8), (SIDE, SIDE)).astype(float)
    files, masks = [], []
    for i in range(count):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        cv2.circle(mask, (200 + 600 * i // count, 500), 130, 255, -1)
        picture = np.where(mask[..., None] > 0, (30, 30, 220), wall + rng.normal(0, 4))
        picture = np.clip(picture + rng.normal(0, 5, picture.shape), 0, 255).astype(np.uint8)
        files.append(str(folder / f"{i}.jpg"))
        cv2.imwrite(files[-1], picture)
        masks.append(mask)
    return files, masks


@pytest.mark.slow
def test_what_moves_before_a_still_wall_is_the_foreground(tmp_path: Path) -> None:
    files, masks = _pictures(tmp_path, count=9)
    backdrop = estimate_backdrop(tuple(files))
    crop = Crop((450.0, 480.0), 800.0)
    for file, mask in zip(files, masks, strict=True):
        image = read_crop(Path(file), crop, 64, frame_size=(SIDE, SIDE))
        found = find_foreground(image, backdrop, crop, frame_width=SIDE) > 0
        wanted = cv2.resize(mask[80:880, 50:850], (64, 64), interpolation=cv2.INTER_AREA) > 127

        union = (found | wanted).sum()
        assert (found & wanted).sum() > 0.8 * union


def test_pictures_that_cannot_be_read_do_not_spoil_the_backdrop(tmp_path: Path) -> None:
    files, _ = _pictures(tmp_path, count=5)
    Path(files[0]).write_bytes(b"")
    Path(files[1]).unlink()
    cv2.imwrite(files[2], np.zeros((10, 10, 3), np.uint8))

    assert estimate_backdrop(tuple(files)).shape == (SIDE // 2, SIDE // 2, 3)
    with pytest.raises(BadPictureError, match="no picture of its camera"):
        estimate_backdrop(tuple(files[:2]))


def test_a_box_is_told_from_a_silhouette() -> None:
    box = np.zeros((50, 40), np.uint8)
    box[10:30, 5:20] = 255
    disc = np.zeros((50, 40), np.uint8)
    cv2.circle(disc, (20, 20), 10, 255, -1)

    assert box_of(box).tolist() == [[5, 10], [19, 29]]
    assert not is_silhouette(box)
    assert is_silhouette(disc)
    with pytest.raises(BadPictureError, match="mask is empty"):
        box_of(np.zeros((3, 3), np.uint8))


def _matlab(file: Path, masks: list[np.ndarray]) -> Path:
    with h5py.File(file, "w") as h5:
        references = np.empty((1, len(masks)), dtype=h5py.ref_dtype)
        for i, mask in enumerate(masks):
            references[0, i] = h5.create_dataset(f"#refs#/{i}", data=mask.T).ref
        h5.create_dataset("Masks", data=references, dtype=h5py.ref_dtype)
    return file


def test_masks_in_matlab_files_are_stored_transposed(tmp_path: Path) -> None:
    mask = np.zeros((30, 20), np.uint8)
    mask[3, 15] = 1
    file = str(_matlab(tmp_path / "a.mat", [mask * 0, mask]))

    assert np.argwhere(read_mask(MaskPlace(file, 1))).tolist() == [[3, 15]]
    with pytest.raises(BadPictureError, match="no such mask"):
        read_mask(MaskPlace(file, 2))


def test_a_file_of_masks_that_is_cut_off_spoils_only_its_own_pictures(tmp_path: Path) -> None:
    file = _matlab(tmp_path / "a.mat", [np.ones((30, 20), np.uint8)] * 9)
    (tmp_path / "b.mat").write_bytes(file.read_bytes()[:-500])

    with pytest.raises(BadPictureError, match="not a readable file of masks, or cut off"):
        read_mask(MaskPlace(str(tmp_path / "b.mat"), 0))


@pytest.mark.parametrize(("gain", "gamma"), [(1.0, 1.0), (1.2, 0.85), (0.8, 1.2)])
def test_the_light_of_a_picture_is_matched_whoever_stands_in_it(gain: float, gamma: float) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.uniform(40, 200, (8, 8, 3)).astype(np.float32)
    empty = cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    lit = np.clip(gain * 255 * (empty / 255.0) ** gamma, 0, 255)
    person = np.zeros((64, 64), dtype=bool)
    person[10:60, 20:40] = True
    lit[person] = (10, 200, 30)

    matched = match_light(lit.astype(np.uint8), empty).astype(float)
    assert np.abs(matched - empty)[~person].mean() < 3
    assert np.abs(matched - empty)[person].mean() > 50
