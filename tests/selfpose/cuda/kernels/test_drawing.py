"""The renderer's kernels beside its plain twin."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selfpose.method.renderer import limb_brightness
from selfpose.method.skeleton import H36M_17
from selfpose.training.reference import draw_plainly

LIMBS = H36M_17.limbs
DIM = limb_brightness(H36M_17, 0.5)


def some_joints(device: str, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (0.5 * torch.randn(count, 17, 2, generator=generator)).to(device)


@pytest.mark.slow
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("brightness", [(1.0,) * 16, DIM])
def test_image_and_gradient_equal_the_plain_twin(
    squared: bool, brightness: tuple[float, ...], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tiles so small that a small image has several, the last one partly outside."""
    from selfpose.cuda.kernels import drawing

    monkeypatch.setattr(drawing, "_TILE", 64)
    assert drawing._Tiles.of(9) == (1, 4, 16, 3)
    equals_the_plain_twin(9, squared, brightness, device)


@pytest.mark.long
@pytest.mark.parametrize(("squared", "brightness"), [(False, (1.0,) * 16), (True, DIM)])
def test_in_tiles_of_the_usual_size_they_equal_the_plain_twin(
    squared: bool, brightness: tuple[float, ...], device: str
) -> None:
    equals_the_plain_twin(40, squared, brightness, device)


def equals_the_plain_twin(
    side: int, squared: bool, brightness: tuple[float, ...], device: str
) -> None:
    from selfpose.cuda.kernels.drawing import DrawingSettings, draw

    joints = some_joints(device, 1).requires_grad_()
    ours = draw(joints, DrawingSettings(LIMBS, side, 0.3, squared, brightness))
    exact = joints.detach().double().requires_grad_()
    twin = draw_plainly(
        exact,
        LIMBS,
        image_size=side,
        sigma=0.3,
        profile="squared" if squared else "distance",
        brightness=brightness,
    )
    weight = torch.randn(twin.shape, generator=torch.Generator().manual_seed(1)).to(device)
    (our_grad,) = torch.autograd.grad(ours, joints, weight)
    (twin_grad,) = torch.autograd.grad(twin, exact, weight.double())

    torch.testing.assert_close(ours.double(), twin, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        our_grad.double(), twin_grad, rtol=0, atol=1e-4 * float(twin_grad.abs().max())
    )


def test_a_limb_without_length_is_a_point(device: str) -> None:
    from selfpose.cuda.kernels.drawing import DrawingSettings, draw

    joints = torch.zeros(1, 2, 2, device=device, requires_grad=True)
    image = draw(joints, DrawingSettings(((0, 1),), 9, 0.5, False, (1.0,)))
    (grad,) = torch.autograd.grad(image[..., 5:].sum(), joints)

    assert image[0, 0, 4, 4] == image.max()
    assert grad.isfinite().all()
    assert grad[0, 0, 0] > 0  # to the right, where the weight is


@pytest.mark.slow
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_joint_that_is_not_finite_shows_in_its_image(odd: float, device: str) -> None:
    from selfpose.cuda.kernels.drawing import DrawingSettings, draw

    for joint in (0, 3, 16):
        joints = some_joints(device)
        joints[1, joint, 0] = odd
        image = draw(joints, DrawingSettings(LIMBS, 9, 0.2, False, DIM))
        assert image.isnan().flatten(1).any(1).tolist() == [False, True]
