from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from posetune.api import BadInputError
from selfpose.data.pictures.images import (
    ImageFeed,
    _most_kept,
    images_to_input,
    masks_to_input,
    open_feed,
    principal_hue,
    reduce_images,
    shade_masks,
)
from selfpose.data.store import open_store
from selfpose.method.renderer import SIDE_BRIGHTNESS

CPU = torch.device("cpu")


def test_reducing_averages_blocks_of_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    expected = images.reshape(2, 4, 2, 4, 2, 3).mean(axis=(2, 4))

    assert np.abs(reduce_images(images, 4) - expected).max() <= 0.5
    assert reduce_images(images, 8) is images


def test_black_and_white_become_minus_one_and_one() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).expand(1, 1, 3, 2).permute(0, 3, 1, 2)

    assert images_to_input(images.permute(0, 2, 1, 3)[..., :3]).unique().tolist() == [-1.0, 1.0]


def test_images_stay_on_a_gpu_by_the_trials_share_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(total_memory=80e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)

    assert _most_kept(torch.device("cuda"), 1.0) == 20e9
    assert _most_kept(torch.device("cuda"), 0.25) == 5e9
    assert _most_kept(torch.device("cuda"), None) == _most_kept(CPU, 1.0) == 2**32


def test_bytes_that_are_looked_up_give_the_same_bits_as_arithmetic(tiny_store: Path) -> None:
    train = open_store(tiny_store).split("train")
    images, masks = ImageFeed(train, 64, True, None, None, CPU).fetch(torch.arange(20))
    bytes_of_masks = train.masks(range(20))
    assert masks is not None
    assert bytes_of_masks is not None
    twin = images_to_input(torch.from_numpy(train.images(range(20))))

    assert torch.equal(images, twin)
    assert images.stride() == twin.stride(), "channels together, or sums would be rounded otherwise"
    assert torch.equal(masks, masks_to_input(torch.from_numpy(bytes_of_masks)))


def test_a_feed_in_memory_and_one_that_reads_the_file_give_the_same(tiny_store: Path) -> None:
    train = open_store(tiny_store).split("train")
    kept = open_feed(train, 32, with_masks=True, device=CPU)
    reading = ImageFeed(train, 32, True, None, None, CPU)
    pick = torch.tensor([5, 0, 5])

    for a, b in zip(kept.fetch(pick), reading.fetch(pick), strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)
        assert a.shape[0] == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_images_reach_a_gpu_as_they_are(tiny_store: Path) -> None:
    train = open_store(tiny_store).split("train")
    pick = torch.arange(8)
    here, there = (
        ImageFeed(train, 32, True, None, None, device).fetch(pick)
        for device in (CPU, torch.device("cuda"))
    )

    for a, b in zip(here, there, strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b.cpu())


@pytest.mark.slow
def test_a_store_of_jpeg_files_feeds_training_as_a_raw_one_does(
    tiny_store: Path, tmp_path: Path
) -> None:
    from posetune.api import silent
    from selfpose.data.synthetic.bodies.procedural import IMPORTER

    made_from = dict(open_store(tiny_store).metadata.made_from)
    options = {name: made_from[name] for name in IMPORTER.options.model_fields if name in made_from}
    given = IMPORTER.options.model_validate({**options, "encoding": "jpeg", "workers": 1})
    IMPORTER.run(None, tmp_path / "jpeg", given, silent)
    pick = torch.arange(8)
    feeds = [
        open_feed(open_store(store).split("train"), 32, with_masks=True, device=CPU).fetch(pick)
        for store in (tiny_store, tmp_path / "jpeg")
    ]

    assert 0 < (feeds[0][0] - feeds[1][0]).abs().mean() < 0.05
    assert feeds[0][1] is not None
    assert feeds[1][1] is not None
    assert torch.equal(feeds[0][1], feeds[1][1])


def _red_and_blue() -> tuple[torch.Tensor, torch.Tensor]:
    """A picture (1, 3, 6, 6) in [-1, 1]: two red columns, two blue ones, background; its mask."""
    colours = torch.zeros(1, 3, 6, 6)
    colours[:, 0, :, :2], colours[:, 2, :, 2:4] = 1.0, 1.0
    mask = torch.full((1, 1, 6, 6), -1.0)
    mask[..., :4] = 1.0
    return 2 * colours - 1, mask


@pytest.mark.parametrize(
    ("sign", "left", "right"), [(1, SIDE_BRIGHTNESS, 1.0), (-1, 1.0, SIDE_BRIGHTNESS)]
)
@pytest.mark.slow
def test_masks_shaded_by_hue_tell_two_colours_apart(sign: int, left: float, right: float) -> None:
    image, mask = _red_and_blue()
    mean, direction = principal_hue(image, mask)
    shaded = (shade_masks(mask, image, torch.stack((mean, 3 * sign * direction))) + 1) / 2

    torch.testing.assert_close(shaded[..., :2], torch.full((1, 1, 6, 2), left))
    torch.testing.assert_close(shaded[..., 2:4], torch.full((1, 1, 6, 2), right))
    assert shaded[..., 4:].eq(0).all()


def test_a_shadow_changes_no_hue() -> None:
    image, mask = _red_and_blue()
    hue = principal_hue(image, mask)
    darker = (image + 1) * torch.linspace(0.3, 1.0, 6)[:, None] - 1

    torch.testing.assert_close(shade_masks(mask, darker, hue), shade_masks(mask, image, hue))


def test_plainly_drawn_right_limbs_are_brighter_in_masks_shaded_by_hue(tiny_store: Path) -> None:
    store = open_store(tiny_store)
    train = store.split("train")
    feed = open_feed(train, 64, with_masks=True, device=CPU)
    masks = feed.with_hue(1).fetch(torch.arange(len(train)))[1]
    assert masks is not None
    joints = torch.tensor(train.joints_2d)
    value = {}
    for side in ("left", "right"):
        knee, ankle = (store.layout.joints.index(f"{side}_{name}") for name in ("knee", "ankle"))
        place = (joints[:, knee] + joints[:, ankle])[:, None, None] / 2
        value[side] = torch.nn.functional.grid_sample(masks, place, align_corners=True).mean()

    assert value["right"] > value["left"] + 0.2
    plain = feed.with_hue(0).fetch(torch.arange(2))[1]
    assert plain is not None
    assert torch.equal(plain, feed.fetch(torch.arange(2))[1])


def test_a_size_that_the_store_cannot_give_is_refused(tiny_store: Path) -> None:
    with pytest.raises(BadInputError, match="give 64, 32 or 16"):
        open_feed(open_store(tiny_store).split("train"), 128, with_masks=False, device=CPU)
