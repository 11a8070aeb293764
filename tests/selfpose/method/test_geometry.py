from __future__ import annotations

import math

import pytest
import torch

from selfpose.method.geometry import (
    draw_rotations,
    head_distance,
    lift,
    normalise_pose,
    project,
    rotate,
    rotate_back,
    rotation_x,
    rotation_y,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_poses(count: int = 5) -> torch.Tensor:
    poses = 0.5 * torch.randn(count, 17, 3, dtype=torch.float64, generator=generator())
    return poses - poses[:, :1]


@pytest.mark.parametrize("kind", ["learned", "uniform", "none"])
def test_drawn_rotations_are_proper(kind: str) -> None:
    elevation = torch.randn(8, dtype=torch.float64, generator=generator())
    rotations = draw_rotations(elevation, generator(), kind=kind)  # type: ignore[arg-type]
    identity = torch.eye(3, dtype=torch.float64).expand(8, 3, 3)

    torch.testing.assert_close(rotations @ rotations.transpose(1, 2), identity)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(8, dtype=torch.float64))


def test_a_quarter_turn_about_x_takes_y_to_z_and_about_y_takes_z_to_x() -> None:
    quarter = torch.tensor([math.pi / 2])
    y, z = torch.tensor([[[0.0, 1.0, 0.0]]]), torch.tensor([[[0.0, 0.0, 1.0]]])

    torch.testing.assert_close(rotate(rotation_x(quarter), y), z)
    torch.testing.assert_close(rotate(rotation_y(quarter), z), torch.tensor([[[1.0, 0.0, 0.0]]]))


def test_turning_back_undoes_turning() -> None:
    poses = some_poses()
    rotations = draw_rotations(torch.zeros(5, dtype=torch.float64), generator())

    torch.testing.assert_close(rotate_back(rotations, rotate(rotations, poses)), poses)


def test_lifting_a_projection_with_its_own_depths_gives_the_pose() -> None:
    poses = some_poses()

    torch.testing.assert_close(lift(project(poses), poses[..., 2]), poses)


def test_projecting_what_was_lifted_gives_the_2d_pose() -> None:
    poses = some_poses()
    normalised = project(poses)

    torch.testing.assert_close(project(lift(normalised, poses[..., 2])), normalised)


@pytest.mark.parametrize("scale", [0.01, 3.0])
def test_normalised_poses_do_not_depend_on_scale_or_place(scale: float) -> None:
    poses = torch.randn(6, 17, 2, generator=generator())
    moved = scale * poses + 0.7

    torch.testing.assert_close(
        normalise_pose(moved, 0, head_distance(moved, 0, 10)),
        normalise_pose(poses, 0, head_distance(poses, 0, 10)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_no_joint_comes_nearer_to_the_camera_than_one() -> None:
    lifted = lift(torch.full((1, 2, 2), 0.1), torch.tensor([[0.0, -50.0]]))

    assert lifted[0, 1].tolist() == pytest.approx([0.1, 0.1, -9.0])


def test_the_drawn_cameras_give_the_elevation_a_gradient() -> None:
    elevation = torch.randn(4, generator=generator(), requires_grad=True)
    draw_rotations(elevation, generator())[:, 0, 1].sum().backward()

    assert elevation.grad is not None
    assert elevation.grad.abs().min() > 0


def test_elevation_none_keeps_the_camera_level() -> None:
    rotations = draw_rotations(torch.ones(4), generator(), kind="none")

    torch.testing.assert_close(rotations[:, 1], torch.tensor([0.0, 1.0, 0.0]).expand(4, 3))
