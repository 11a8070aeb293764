from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selfpose.method.renderer import Profile, SkeletonRenderer, draw_skeletons, limb_brightness
from selfpose.method.skeleton import H36M_17, HAND_21, KEYPOINTGAN_17, Layout
from selfpose.training.reference import draw_plainly

LIMBS = H36M_17.limbs
DIM = limb_brightness(H36M_17, 0.5)


def some_joints(count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.5 * torch.randn(count, 17, 2, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("profile", ["distance", "squared"])
@pytest.mark.parametrize("brightness", [(1.0,) * 16, DIM])
def test_the_fast_renderer_equals_its_naive_twin_gradients_included(
    profile: Profile, brightness: tuple[float, ...]
) -> None:
    results = []
    weight = torch.randn(3, 1, 20, 20, dtype=torch.float64, generator=torch.Generator())
    for draw in (draw_skeletons, draw_plainly):
        joints = some_joints().requires_grad_()
        image = draw(
            joints, LIMBS, image_size=20, sigma=0.3, profile=profile, brightness=brightness
        )
        (image * weight).sum().backward()
        assert joints.grad is not None
        results.append((image.detach(), joints.grad))

    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("count", "brightness"), [(1, (1.0,) * 16), (40, (1.0,) * 16), (2, DIM)])
def test_in_float32_image_and_gradient_equal_the_naive_twin_to_rounding(
    count: int, brightness: tuple[float, ...]
) -> None:
    results = []
    for draw in (draw_skeletons, draw_plainly):
        joints = some_joints(count).float().requires_grad_()
        image = draw(
            joints, LIMBS, image_size=64, sigma=0.2, profile="distance", brightness=brightness
        )
        image.square().sum().backward()
        assert joints.grad is not None
        results.append((image.detach(), joints.grad / joints.grad.abs().max()))

    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-4)


def test_a_limb_without_length_is_a_point_with_the_naive_twins_gradient() -> None:
    results = []
    for draw in (draw_skeletons, draw_plainly):
        joints = some_joints(1)[:, :2].clone()
        joints[:, 1] = joints[:, 0]
        joints.requires_grad_()
        image = draw(
            joints, ((0, 1),), image_size=9, sigma=0.5, profile="distance", brightness=(1.0,)
        )
        image.sum().backward()
        results.append((image.detach(), joints.grad))

    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


def test_gradients_agree_with_finite_differences() -> None:
    draw = SkeletonRenderer(H36M_17, 6, sigma=0.5)

    assert torch.autograd.gradcheck(draw, (some_joints(1).requires_grad_(),), eps=1e-7, atol=1e-5)


def test_limbs_without_length_and_joints_on_pixels_have_finite_gradients() -> None:
    joints = torch.zeros(2, 17, 2)
    joints[1, 3:] = -1.0  # the first pixel's centre
    joints.requires_grad_()
    image = SkeletonRenderer(H36M_17, 9)(joints)
    image.sum().backward()

    assert image.isfinite().all()
    assert joints.grad is not None
    assert joints.grad.isfinite().all()


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("brightness", [(1.0,) * 16, DIM])
def test_a_joint_that_is_not_finite_shows_in_its_pose_as_in_the_naive_twin(
    odd: float, brightness: tuple[float, ...]
) -> None:
    joints = some_joints().float()
    whole = SkeletonRenderer(H36M_17, 9)(joints)
    for joint in range(17):
        broken = joints.clone()
        broken[1, joint, 0] = odd
        for draw in (draw_skeletons, draw_plainly):
            image = draw(
                broken, LIMBS, image_size=9, sigma=0.2, profile="distance", brightness=brightness
            )
            assert image.isnan().flatten(1).any(1).tolist() == [False, True, False]
    assert whole.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32])
def test_joints_of_another_dtype_are_refused_by_name(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"float32 or float64 .* {dtype}"):
        SkeletonRenderer(H36M_17, 9)(torch.zeros(1, 17, 2, dtype=dtype))


def test_images_are_bright_on_the_limbs_and_dark_far_from_them() -> None:
    joints = torch.full((1, 17, 2), 0.0)
    image = SkeletonRenderer(H36M_17, 17)(joints)

    assert image[0, 0, 8, 8] > 0.9
    assert image[0, 0, 0, 0] < -0.99


def test_x_is_the_column_and_y_the_row() -> None:
    joints = torch.tensor([1.0, -1.0]).expand(1, 17, 2)
    image = SkeletonRenderer(H36M_17, 8)(joints)

    assert image[0, 0, 0, 7] == image.max()


@pytest.mark.parametrize("layout", [H36M_17, KEYPOINTGAN_17], ids=lambda layout: layout.name)
def test_a_persons_left_joints_are_dim(layout: Layout) -> None:
    left = [i for i, name in enumerate(layout.joints) if name.startswith("left")]

    assert list(layout.dim) == left


def test_a_hands_thumb_and_index_finger_are_dim() -> None:
    dim = {HAND_21.joints[joint].partition("_")[0] for joint in HAND_21.dim}

    assert dim == {"thumb", "index"}
    assert len(HAND_21.dim) == 8


def test_side_coding_dims_the_left_limbs_only() -> None:
    joints = torch.full((1, 17, 2), -0.9)
    joints[0, 12:14] = 0.5  # the left arm below the elbow lies apart from the rest
    plain = SkeletonRenderer(H36M_17, 31)(joints)[0, 0]
    coded = SkeletonRenderer(H36M_17, 31, side_brightness=0.5)(joints)[0, 0]

    assert plain.max() > 0.8
    assert coded[20:].max() < 0.05
    torch.testing.assert_close(coded[:2, :2].max(), plain[:2, :2].max())
