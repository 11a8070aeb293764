from __future__ import annotations

from typing import Any

import pytest
import torch

from selfpose.method.geometry import draw_rotations, lift, project, rotate, rotate_back
from selfpose.method.losses import (
    LOSS_TERMS,
    TRAINING_METRICS,
    LossTerm,
    bone_loss,
    consistency_3d_loss,
    deformation_loss,
    discriminator_loss,
    keypoint_loss,
    realness_loss,
    reprojection_2d_loss,
    silhouette_loss,
    symmetry_loss,
    weighted_sum,
)
from selfpose.method.skeleton import H36M_17, HAND_21

X, Y, Z = torch.eye(3)
NO_TURN = torch.eye(3).expand(4, 3, 3)
BY_HAND: dict[str, tuple[dict[str, Any], float]] = {
    "adversarial": (  # scales: (3 - 1)^2 = 4, and the mean of 1 and 1
        {"judged": [torch.full((2, 1, 2, 2), 3.0), torch.tensor([0.0, 2.0])[:, None, None, None]]},
        (4 + 1) / 2,
    ),
    "keypoint": (  # read 2 too far, redrawn 3 too bright
        {
            "read_bj2": torch.full((2, 3, 2), 2.0),
            "prior_bj2": torch.zeros(2, 3, 2),
            "redrawn_b1ss": torch.full((2, 1, 4, 4), 3.0),
            "redrawing_target_b1ss": torch.zeros(2, 1, 4, 4),
            "redrawing_share": 0.25,
        },
        0.75 * 4 + 0.25 * 9,
    ),
    "silhouette": (  # one of four pixels is missed
        {
            "body_b1ss": torch.tensor([-1.0, -1.0, -1.0, 1.0]).view(1, 1, 2, 2),
            "masks_b1ss": torch.tensor([-1.0, -1.0, 1.0, 1.0]).view(1, 1, 2, 2),
        },
        (0 + 0 + 4 + 0) / 4,
    ),
    "read": (  # a joint 3 and 4 off, one not at all; every pixel 2 too bright
        {
            "joints_bj2": torch.tensor([[[3.0, 4.0], [1.0, 1.0]]]),
            "mask_joints_bj2": torch.tensor([[[0.0, 0.0], [1.0, 1.0]]]),
            "skeletons_b1ss": torch.full((1, 1, 4, 4), 2.0),
            "mask_skeletons_b1ss": torch.zeros(1, 1, 4, 4),
        },
        ((25 + 1e-4) ** 0.5 + 1e-2) / 2 + 4,
    ),
    "reprojection_2d": (
        {
            "reprojected_bj2": torch.tensor([[[1.0, -2.0], [0.0, 3.0]], [[2.0, 0.0], [0.0, 0.0]]]),
            "normalised_bj2": torch.zeros(2, 2, 2),
        },
        ((1 + 2 + 0 + 3) + 2) / 2,
    ),
    "consistency_3d": (
        {
            "turned_bj3": torch.stack((torch.stack((3 * X, 4 * Y)), torch.stack((Z, 0 * Z)))),
            "lifted_again_bj3": torch.zeros(2, 2, 3),
        },
        (5 + 1) / 2,
    ),
    "deformation": (  # the errors of the poses are 3 X, 0, -4 Y and Z: pairs (0, 2) and (1, 3)
        {
            "poses_aj3": torch.stack((3 * X, 0 * X, 0 * X, Z))[:, None],
            "lifted_again_aj3": torch.stack((0 * X, 0 * X, 4 * Y, 0 * X))[:, None],
            "rotations_a33": NO_TURN,
        },
        (5 + 1) / 2,
    ),
    "flow": ({"surprisal_b": torch.tensor([1.0, 2.0, 6.0])}, 3.0),
    "bone": (  # limbs of 3 and 1, where both usually have the mean length; then as usual
        {
            "poses_bj3": torch.stack(
                (torch.stack((0 * X, 3 * X, Y)), torch.stack((0 * X, 2 * X, 2 * Y)))
            ),
            "limbs": [(1, 0), (2, 0)],
            "bone_ratios": [1.0, 1.0],
        },
        (0.5**2 + 0.5**2 + 0) / 2,
    ),
    "symmetry": (  # a limb of 3 beside one of 1, over their mean; then two of 2
        {
            "poses_bj3": torch.stack(
                (torch.stack((0 * X, 3 * X, Y)), torch.stack((0 * X, 2 * X, 2 * Y)))
            ),
            "limbs": [(1, 0), (2, 0)],
            "limb_pairs": [(0, 1)],
        },
        ((3 - 1) / 2 + 0) / 2,
    ),
}
"""For every term of the table what it takes, and its value worked out on paper."""


@pytest.mark.parametrize("term", LOSS_TERMS, ids=lambda term: term.name)
def test_a_term_has_the_value_that_is_worked_out_by_hand(term: LossTerm) -> None:
    quantities, expected = BY_HAND[term.name]

    assert term.compute(quantities).item() == pytest.approx(expected, rel=1e-6)


def test_the_discriminator_weighs_real_and_fake_by_a_half() -> None:
    real, fake = [torch.full((2, 1, 2, 2), 3.0)], [torch.full((2, 1, 2, 2), 4.0)]

    assert discriminator_loss(real, fake) == 0.5 * (3 - 1) ** 2 + 0.5 * 4**2
    assert discriminator_loss(real, [*fake, torch.zeros(1, 1, 1, 1)]) == 0.5 * 4 + 0.5 * 16 / 2


def test_the_weights_are_the_papers_and_what_is_ours_has_none() -> None:
    assert {term.name: term.weight for term in LOSS_TERMS} == {
        "adversarial": 1.0,
        "keypoint": 1.0,
        "silhouette": 0.0,
        "read": 0.0,
        "reprojection_2d": 1.0,
        "consistency_3d": 1.0,
        "deformation": 1.0,
        "flow": 1.0,
        "bone": 0.0,
        "symmetry": 0.0,
    }


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


def test_the_symmetry_term_vanishes_for_bodies_alike_on_both_sides_and_for_those_without() -> None:
    limbs, pairs = H36M_17.limbs, H36M_17.limb_pairs
    pose = double(4, 17, 3)
    pose[:, list(H36M_17.mirror)] = pose + pose[:, list(H36M_17.mirror)] * torch.tensor([-1, 1, 1])

    assert symmetry_loss(pose, limbs, pairs) < 1e-12
    assert symmetry_loss(double(4, 17, 3), limbs, pairs) > 0.1
    assert HAND_21.limb_pairs == ()
    assert symmetry_loss(double(4, 21, 3), HAND_21.limbs, HAND_21.limb_pairs) == 0


def test_every_limb_with_a_counterpart_is_in_one_pair_with_it() -> None:
    limbs = H36M_17.limbs
    ends = [
        {H36M_17.joints[limbs[i][0]].partition("_")[2] for i in pair} for pair in H36M_17.limb_pairs
    ]

    assert ends == [{"hip"}, {"knee"}, {"ankle"}, {"shoulder"}, {"elbow"}, {"wrist"}]


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

    assert keypoint_loss(joints, joints, image, image, redrawing_share=0.1) == 0
    assert keypoint_loss(joints, joints, image + 1, image, redrawing_share=0.1) == pytest.approx(
        0.1
    )
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


def test_a_term_that_takes_a_quantity_that_is_spelt_wrong_cannot_be_defined() -> None:
    def misspelt_loss(poses_bj4: torch.Tensor) -> torch.Tensor:
        return poses_bj4.mean()

    with pytest.raises(ValueError, match="loss term new: misspelt_loss takes poses_bj4, but"):
        LossTerm("new", misspelt_loss, "nothing")


def test_every_term_has_a_name_and_a_metric_of_its_own() -> None:
    names = [term.name for term in LOSS_TERMS]

    assert len(set(names)) == len(names)
    assert not set(names) & {"total", "discriminator", "elevation_spread"}
    assert set(names) < set(TRAINING_METRICS)


def test_what_a_term_needs_follows_from_what_it_takes() -> None:
    assert {term.name: set(term.needs) for term in LOSS_TERMS} == {
        "adversarial": {"images", "discriminator"},
        "keypoint": {"images"},
        "silhouette": {"images", "masks"},
        "read": {"images", "bodies"},
        "reprojection_2d": set(),
        "consistency_3d": set(),
        "deformation": set(),
        "flow": {"flow"},
        "bone": set(),
        "symmetry": set(),
    }


def test_terms_that_are_always_computed_need_nothing_that_costs() -> None:
    assert [t.name for t in LOSS_TERMS if t.always and t.needs - {"images"}] == []


def test_the_sum_weighs_the_terms_and_leaves_out_what_is_no_term() -> None:
    terms = {"flow": torch.tensor(2.0), "keypoint": torch.tensor(3.0), "total": torch.tensor(9.0)}
    weights = {term.name: 0.0 for term in LOSS_TERMS} | {"flow": 10.0, "bone": 1.0}

    assert weighted_sum(terms, weights) == 20.0
