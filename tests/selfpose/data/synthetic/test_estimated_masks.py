"""Masks of drawn people can be estimated as those of photographs are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from selfpose.data.store import Store
from selfpose.data.synthetic.cameras import Crop
from selfpose.data.synthetic.estimated_masks import estimate_mask, reduce_mask, sample_people
from selfpose.data.synthetic.rendering import Scene, draw_frame
from selfpose.method.skeleton import H36M_17

MakeStore = Callable[..., Store]


def test_people_on_one_colour_are_found_where_they_are(
    tmp_path: Path, make_store: MakeStore
) -> None:
    true, estimated = (
        make_store(tmp_path / masks, level="clothes", limit=5, masks=masks).split("train")
        for masks in ("true", "estimated")
    )
    rows = np.arange(len(true))
    a, b = (split.masks(rows) > 127 for split in (true, estimated))

    np.testing.assert_array_equal(true.images(rows), estimated.images(rows))
    assert np.median((a & b).sum((1, 2)) / (a | b).sum((1, 2))) > 0.75
    assert (a != b).any()


@pytest.mark.parametrize("masks", ["true", "estimated"])
def test_a_background_that_is_removed_is_black_wherever_the_mask_leaves_it_out(
    tmp_path: Path, make_store: MakeStore, masks: str
) -> None:
    options = {"level": "clothes", "limit": 4, "masks": masks}
    kept, removed = (
        make_store(tmp_path / background, background=background, **options)
        for background in ("keep", "remove")
    )
    rows = np.arange(4)
    mask = removed.split("train").masks(rows) > 127

    expected = kept.split("train").images(rows) * mask[..., None]
    np.testing.assert_array_equal(removed.split("train").images(rows), expected)
    assert removed.metadata.facts["masks"] == masks
    assert removed.metadata.facts["background"] == "remove"


def test_nobody_is_found_in_a_picture_of_the_background_and_all_of_another_differs() -> None:
    nowhere = np.full((17, 3), 1e5, np.float32)
    people = sample_people([nowhere[None]])
    scene = Scene(level="clothes", seed=0, group="train", subject="s", motion="m", camera=0)
    crop = Crop((500.0, 500.0), 400.0)
    wall, _ = draw_frame(
        nowhere, H36M_17, scene=scene, crop=crop, size=128, rng=np.random.default_rng(0)
    )

    def find(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return estimate_mask(picture, crop, scene=scene, layout=H36M_17, people=people)

    assert not find(wall).any()
    assert (find(np.zeros_like(wall)) == 255).all()


def test_a_mask_that_is_reduced_says_how_much_of_a_pixel_is_covered() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 255
    mask[4:6, :2] = 255

    np.testing.assert_array_equal(
        reduce_mask(mask, 4), [[255] * 4, [255] * 4, [255, 0, 0, 0], [0] * 4]
    )
    assert reduce_mask(mask, 2)[1].tolist() == [64, 0]
