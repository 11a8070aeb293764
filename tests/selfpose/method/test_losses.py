from __future__ import annotations

import pytest
import torch

from selfpose.method.geometry import draw_rotations, lift, project, rotate, rotate_back
from selfpose.method.losses import (
    bone_loss,
    consistency_3d_loss,
    deformation_loss,
    discriminator_loss,
    keypoint_loss,
    realness_loss,
    reprojection_2d_loss,
    silhouette_loss,
)
from selfpose.method.skeleton import H36M_17


def double(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_lifting_terms_vanish_when_both_liftings_agree() -> None:
    poses = 0.3 * double(6, 17, 3)
    poses = poses - poses[:, :1]
    rotations = draw_rotations(double(6), torch.Generator().manual_seed(0))
    turned = rotate(rotations, poses)
    again = lift(project(turned), turned[..., 2])
    back = project(rotate_back(rotations, again))

    zero = torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(reprojection_2d_loss(back, project(poses)), zero)
    torch.testing.assert_close(consistency_3d_loss(turned, again), zero)
    torch.testing.assert_close(deformation_loss(poses, again, rotations), zero)


def test_a_common_error_of_all_poses_is_no_deformation() -> None:
    poses, shift = double(6, 17, 3), double(1, 17, 3, seed=1)
    identity = torch.eye(3, dtype=torch.float64).expand(6, 3, 3)

    assert deformation_loss(poses, poses + shift, identity) < 1e-12
    assert consistency_3d_loss(poses, poses + shift) > 1


def test_deformation_leaves_the_odd_pose_of_a_batch_out() -> None:
    poses, again = double(7, 17, 3), double(7, 17, 3, seed=1)
    identity = torch.eye(3, dtype=torch.float64).expand(7, 3, 3)

    assert deformation_loss(poses, again, identity) == deformation_loss(
        poses[:6], again[:6], identity[:6]
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_bone_term_does_not_depend_on_the_length_unit(scale: float) -> None:
    poses = double(4, 17, 3)
    limbs, ratios = H36M_17.limbs, H36M_17.bone_ratios

    torch.testing.assert_close(
        bone_loss(scale * poses, limbs, ratios), bone_loss(poses, limbs, ratios)
    )


def test_the_bone_term_trains_after_a_first_use_in_inference_mode() -> None:
    ratios = [1.25] * len(H36M_17.limbs)  # that no other test uses
    with torch.inference_mode():
        scored = bone_loss(double(4, 17, 3), H36M_17.limbs, ratios)
    poses = double(4, 17, 3).requires_grad_()
    loss = bone_loss(poses, H36M_17.limbs, ratios)
    loss.backward()  # type: ignore[no-untyped-call]

    assert loss.detach() == scored
    assert poses.grad is not None
    assert poses.grad.abs().max() > 0


def test_the_bone_term_vanishes_at_the_usual_ratios() -> None:
    directions = double(1, 17, 3)
    pose = torch.zeros(1, 17, 3, dtype=torch.float64)
    for (child, parent), ratio in zip(H36M_17.limbs, H36M_17.bone_ratios, strict=True):
        step = directions[:, child] / directions[:, child].norm()
        pose[:, child] = pose[:, parent] + ratio * step
    mean = torch.tensor(H36M_17.bone_ratios).mean()

    assert bone_loss(pose, H36M_17.limbs, [r / float(mean) for r in H36M_17.bone_ratios]) < 1e-10
    assert bone_loss(pose * torch.tensor([1.0, 2.0, 1.0]), H36M_17.limbs, H36M_17.bone_ratios) > 0


def test_a_discriminator_that_is_right_has_no_loss_and_its_rival_the_most() -> None:
    ones, zeros = [torch.ones(2, 1, 3, 3), torch.ones(2, 1, 2, 2)], [torch.zeros(2, 1, 3, 3)]

    assert discriminator_loss(ones, zeros) == 0
    assert realness_loss(zeros) == 1
    assert realness_loss(ones) == 0


def test_every_scale_of_the_discriminator_counts_the_same() -> None:
    assert realness_loss([torch.ones(1, 1, 14, 14), torch.zeros(1, 1, 2, 2)]) == 0.5


def test_the_keypoint_and_silhouette_terms_vanish_at_agreement() -> None:
    joints, image = double(2, 17, 2), double(2, 1, 8, 8)

    assert keypoint_loss(joints, joints, image, image, share=0.1) == 0
    assert keypoint_loss(joints, joints, image + 1, image, share=0.1) == pytest.approx(0.1)
    assert silhouette_loss(image, image) == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_gradients_of_the_3d_terms_agree_with_finite_differences(seed: int) -> None:
    again = double(4, 17, 3, seed=seed).requires_grad_()
    poses = double(4, 17, 3)
    rotations = draw_rotations(double(4), torch.Generator().manual_seed(seed))

    assert torch.autograd.gradcheck(lambda a: consistency_3d_loss(poses, a), (again,))
    assert torch.autograd.gradcheck(lambda a: deformation_loss(poses, a, rotations), (again,))
    assert torch.autograd.gradcheck(
        lambda a: bone_loss(a, H36M_17.limbs, H36M_17.bone_ratios), (again,)
    )


def test_poses_that_agree_exactly_have_no_nan_gradient() -> None:
    poses = double(4, 17, 3).requires_grad_()
    consistency_3d_loss(poses, poses.detach().clone()).backward()

    assert poses.grad is not None
    assert poses.grad.isfinite().all()
