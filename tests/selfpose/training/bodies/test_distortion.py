"""Crops and the poses in them are distorted alike, and back."""

from __future__ import annotations

import pytest
import torch

from selfpose.training.bodies.distortion import Distortion, draw_distortions


@pytest.fixture
def poses() -> torch.Tensor:
    return torch.rand((6, 17, 2), generator=torch.Generator().manual_seed(0)) - 0.5


def test_a_distorted_picture_shows_at_each_place_what_was_there_before() -> None:
    grid_s = torch.linspace(-1, 1, 32)
    places = torch.stack(torch.meshgrid(grid_s, grid_s, indexing="xy"))  # what is there: x and y
    pictures = places.expand(6, 2, 32, 32)
    distortion = draw_distortions(6, torch.Generator().manual_seed(1))

    distorted = distortion.images(pictures)

    here = places.flatten(1).T.expand(6, -1, 2)
    before = distortion.undo(here).clamp(-1, 1)  # beyond a picture its border goes on
    torch.testing.assert_close(distorted.flatten(2).mT, before, atol=1e-5, rtol=0)


def test_what_is_undone_is_as_it_was(poses: torch.Tensor) -> None:
    distortion = draw_distortions(6, torch.Generator().manual_seed(2))

    back = distortion.undo(distortion.poses(poses))

    torch.testing.assert_close(back, poses)
    assert (distortion.poses(poses) - poses).abs().mean() > 0.01


@pytest.mark.parametrize("turn", [0.15, 1.0])
def test_no_crop_is_turned_farther_than_asked(turn: float) -> None:
    matrix_b22, _ = draw_distortions(1000, torch.Generator().manual_seed(3), turn=turn)

    angles = torch.atan2(matrix_b22[:, 1, 0], matrix_b22[:, 0, 0])

    assert float(angles.abs().max()) == pytest.approx(turn, rel=0.01)
    assert float(angles.abs().max()) <= turn + 1e-6


def test_a_distortion_turns_by_hand() -> None:
    quarter = Distortion(torch.tensor([[[0.0, -2.0], [2.0, 0.0]]]), torch.tensor([[0.1, 0.2]]))

    moved = quarter.poses(torch.tensor([[[0.3, 0.0]]]))

    assert moved.flatten().tolist() == pytest.approx([0.1, 0.8])
