from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from selfpose.networks import D, Lambda, Omega, Phi
from selfpose.networks.discriminator import _reduce, patch_sizes
from selfpose.networks.omega import expected_points


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_networks_have_the_papers_size_without_arguments() -> None:
    assert count(Phi()) == 2_995_777
    assert count(Omega()) == 1_177_329
    assert count(Lambda()) == 10_550_290
    assert count(D()) == 8_288_067


@pytest.mark.parametrize(("side", "patches"), [(128, [14, 6, 2]), (64, [6, 2]), (32, [2])])
def test_scales_of_the_discriminator_with_too_small_patch_maps_are_dropped(
    side: int, patches: list[int]
) -> None:
    maps = D(4, image_size=side)(torch.zeros(1, 1, side, side))

    assert [tuple(m.shape) for m in maps] == [(1, 1, p, p) for p in patches]
    assert list(patch_sizes(side).values()) == patches


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_images_are_reduced_as_by_bilinear_samples(scale: int) -> None:
    x = torch.randn(2, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    twin = functional.interpolate(x, scale_factor=1 / scale, mode="bilinear", align_corners=False)

    torch.testing.assert_close(_reduce(x, scale), twin)


def test_the_discriminator_refuses_images_it_has_no_scale_for() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        D(image_size=16)


@pytest.mark.parametrize(("side", "narrowest"), [(128, 16), (64, 8), (64, 16), (32, 4), (32, 16)])
def test_smaller_sizes_run_from_image_to_depths(side: int, narrowest: int) -> None:
    phi = Phi(4, image_size=side, narrowest=narrowest)
    skeletons = phi(torch.randn(2, 3, side, side))
    joints = Omega(4, image_size=side, joints=21)(skeletons)
    offsets, elevation = Lambda(8, joints=21, root=3)(joints)

    assert skeletons.shape == (2, 1, side, side)
    assert joints.shape == (2, 21, 2)
    assert joints.abs().max() <= 1
    assert offsets.shape == (2, 21)
    assert elevation.shape == (2,)
    assert (offsets[:, 3] == 0).all()


def test_the_narrowest_map_changes_no_parameter() -> None:
    assert count(Phi(4, image_size=64, narrowest=16)) == count(Phi(4))


def test_a_narrowest_map_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 3 times"):
        Phi(4, image_size=128, narrowest=8)


def test_a_peak_in_a_map_is_where_the_joint_is_expected() -> None:
    maps = torch.zeros(1, 1, 5, 5)
    maps[0, 0, 1, 4] = 1000.0  # row 1 of 5 is y = -.5, column 4 is x = 1

    torch.testing.assert_close(expected_points(maps), torch.tensor([[[1.0, -0.5]]]))


def test_a_leaky_head_nearly_forbids_negative_depths() -> None:
    pose = torch.randn(64, 17, 2)
    offsets, _ = Lambda(16, head_activation="leaky_relu")(pose)

    assert offsets.max() > 10 * -offsets.min()


def test_autocast_does_not_round_the_joints_that_maps_expect() -> None:
    maps = torch.randn(2, 17, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = expected_points(maps)
    with torch.autocast("cpu", torch.bfloat16):
        joints = expected_points(maps)

    torch.testing.assert_close(joints, expected)
