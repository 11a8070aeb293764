"""One training step.

Read `complete_losses` first: it names every term from image to 3D; `lifting_losses` holds the
four terms that lifting mode has too. `find_gradients` and `apply_gradients` turn terms into new
weights. Nothing in a step waits for the device.

At the paper's size, batch 96, convolutions and matrix products compute 3.82 TFLOP, 5.0 ms at the
761 TFLOP/s at which an H200 multiplies large bf16 matrices. They read and write 5.4 G numbers,
10.7 GB in bf16: 2.2 ms at the 4.8 TB/s that NVIDIA states for it; normalisations come on top
(`kernels.normalisation`). At the quickstart's size 5.0 GFLOP, 58 ms at the 86 GFLOP/s of one core
of an AMD EPYC, and 0.1 GB, 4 ms at the 25 GB/s at which it copies (`testing.speed` counts both).

Supervision is images (with masks, if a silhouette option is on) and the prior's 2D poses.
Frames and units: as in `geometry` and `images`.
Shape letters: B batch, J joints, S image side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from selfpose.config import LossWeights, SelfPoseConfig
from selfpose.cuda.streams import beside, meet
from selfpose.inference import PoseModel
from selfpose.method.flow import PosePrior
from selfpose.method.geometry import (
    draw_rotations,
    lift,
    normalise_pose,
    project,
    rotate,
    rotate_back,
)
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
from selfpose.method.renderer import SIDE_BRIGHTNESS, SkeletonRenderer
from selfpose.method.skeleton import Layout
from selfpose.networks import Omega
from selfpose.training.data_parallel import ALONE, Team

__all__ = [
    "Batch",
    "Judge",
    "Pens",
    "add_noise",
    "apply_gradients",
    "complete_losses",
    "find_gradients",
    "lifting_losses",
    "make_optimiser",
    "make_recordable",
    "make_skeleton_pen",
    "seeded",
    "take_step",
    "weighted_sum",
]

_ADAM_BETAS = (0.5, 0.999)

Terms = dict[str, Tensor]


Judge = Callable[[Tensor], list[Tensor]]
"""D, perhaps behind its noise: from skeletons (B, 1, S, S) to its maps."""


class Batch(NamedTuple):
    """What one step of the complete mode is given: a process' share."""

    images_b3ss: Tensor
    masks_b1ss: Tensor | None
    prior_bj2: Tensor
    """2D poses of the prior, crop coordinates, unpaired with the images."""
    lifted_prior_bj2: Tensor | None
    """More of them, to be lifted as if Omega had read them: of all processes."""


@dataclass(frozen=True)
class Pens:
    """The renderers: of skeletons, and of broad bodies to compare with a mask."""

    skeleton: SkeletonRenderer
    body: SkeletonRenderer

    @classmethod
    def of(cls, config: SelfPoseConfig, layout: Layout) -> Pens:
        """Return the renderers of a configuration."""
        pen = config.renderer
        body = SkeletonRenderer(
            layout,
            config.image_size,
            sigma=pen.silhouette_sigma,
            profile=pen.profile,
            side_brightness=SIDE_BRIGHTNESS if config.silhouette_hue else 1.0,
        )
        return cls(make_skeleton_pen(config, layout), body)


def make_skeleton_pen(config: SelfPoseConfig, layout: Layout) -> SkeletonRenderer:
    """Return the renderer of skeletons of a configuration."""
    return SkeletonRenderer(
        layout,
        config.image_size,
        sigma=config.renderer.sigma,
        profile=config.renderer.profile,
        side_brightness=SIDE_BRIGHTNESS if config.renderer.side_coding else 1.0,
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw first weights from torch's global generator at `seed`; put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def complete_losses(
    batch: Batch,
    model: PoseModel,
    *,
    judge: Judge,
    prior: PosePrior | None,
    pens: Pens,
    settings: tuple[SelfPoseConfig, torch.Generator, Team],
) -> Terms:
    """Compute every term that Phi, Omega and Lambda minimise, and D's own loss.

    D judges Phi's skeletons once for both sides: the same maps, weights and noise. It judges the
    drawn ones by themselves: in one batch with Phi's, their part would be differentiated for Phi's
    sake too, and be zero.

    Args:
        batch: images, masks and unpaired prior poses.
        model: the networks, in training mode.
        judge: D, behind its noise.
        prior: the frozen flow, or None if its weight is 0.
        pens: the renderers.
        settings: the configuration, what draws the virtual cameras, and who trains.
    """
    config, generator, team = settings
    assert model.phi is not None  # complete mode has both
    assert model.omega is not None
    weights, half = config.loss_weights, config.bf16 and batch.images_b3ss.is_cuda
    drawn_b1ss = pens.skeleton(batch.prior_bj2)
    terms: Terms = {}
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        # Omega's rounded weights are not shared with the other branch, which would not wait.
        with (
            beside("drawn", drawn_b1ss),
            torch.autocast("cuda", torch.bfloat16, enabled=half, cache_enabled=False),
        ):
            read_bj2 = model.omega(drawn_b1ss)
        skeletons_b1ss = model.phi(batch.images_b3ss).float()
        if weights.adversarial > 0:
            with beside("judged", skeletons_b1ss, drawn_b1ss):
                judged = judge(skeletons_b1ss)
                terms["adversarial"] = realness_loss(judged)
                terms["discriminator"] = discriminator_loss(judge(drawn_b1ss), judged)
        y_bj2, redraw_bj2, target_b1ss = _read_skeletons(model.omega, skeletons_b1ss, config=config)
    meet("drawn", read_bj2)
    terms["keypoint"] = keypoint_loss(
        read_bj2,
        batch.prior_bj2,
        redrawn_b1ss=target_b1ss if redraw_bj2 is None else pens.skeleton(redraw_bj2),
        skeletons_b1ss=target_b1ss,
        share=config.keypoint.redrawing_share,
    )
    if weights.silhouette > 0 and batch.masks_b1ss is not None:
        terms["silhouette"] = silhouette_loss(pens.body(y_bj2), batch.masks_b1ss)
    poses_bj2 = team.gather(y_bj2.detach() if config.detach_pose else y_bj2)
    if batch.lifted_prior_bj2 is not None:
        poses_bj2 = torch.cat((poses_bj2, batch.lifted_prior_bj2))
    terms |= lifting_losses(
        poses_bj2, model, prior=prior, config=config, generator=generator, team=team
    )
    meet("judged", *terms.values())
    return terms


def _read_skeletons(
    omega: Omega, skeletons_b1ss: Tensor, *, config: SelfPoseConfig
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Read Phi's skeletons, once.

    Returns:
        Their joints, and for the redrawing half of the keypoint term the joints to redraw (None if
        it has no share) and the skeletons to compare with: unless `couple_skeleton`, those have no
        gradient for Phi.
    """
    redraw = config.keypoint.redrawing_share > 0
    if config.couple_skeleton or not redraw:
        y_bj2 = omega(skeletons_b1ss)
        return y_bj2, y_bj2 if redraw else None, skeletons_b1ss
    y_bj2, redraw_bj2 = _ReadTwice.apply(  # type: ignore[no-untyped-call]
        skeletons_b1ss, omega, *omega.parameters()
    )
    return y_bj2, redraw_bj2, skeletons_b1ss.detach()


class _ReadTwice(torch.autograd.Function):
    """What Omega reads, twice: for losses that train Phi too, and for those that train it alone.

    As if it read the skeletons and a detached copy. But both read the same, and Omega's gradient is
    linear in theirs: so it is computed once, for their sum.
    """

    @staticmethod
    def forward(
        ctx: Any, skeletons_b1ss: Tensor, omega: Omega, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.skeletons_b1ss = skeletons_b1ss.detach().requires_grad_()
        ctx.parameters = parameters
        with torch.enable_grad():
            ctx.joints_bj2 = omega(ctx.skeletons_b1ss)
        joints_bj2 = ctx.joints_bj2.detach()
        return joints_bj2, joints_bj2.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_both_bj2: Tensor, of_omega_bj2: Tensor) -> tuple[Tensor | None, ...]:
        joints_bj2 = ctx.joints_bj2
        to_omega = torch.autograd.grad(
            joints_bj2,
            ctx.parameters,
            of_both_bj2 + of_omega_bj2,
            retain_graph=True,
            allow_unused=True,  # biases that are normalised away
        )
        (to_phi,) = torch.autograd.grad(joints_bj2, ctx.skeletons_b1ss, of_both_bj2)
        return to_phi, None, *to_omega


def lifting_losses(
    poses_bj2: Tensor,
    model: PoseModel,
    *,
    prior: PosePrior | None,
    config: SelfPoseConfig,
    generator: torch.Generator,
    team: Team = ALONE,
) -> Terms:
    """Lift, turn, project, lift again and turn back; compute the terms on the way.

    Args:
        poses_bj2: 2D poses of all processes, crop coordinates; each lifts its share.
        model: holds Lambda, the layout and h.
        prior: the frozen flow, or None if its weight is 0.
        config: weights and the kind of elevation.
        generator: draws the virtual cameras.
        team: who trains; the cameras and the pairs of poses are those of the whole batch.
    """
    layout = model.layout
    normalised_bj2 = normalise_pose(team.share(poses_bj2), layout.root, model.h)
    offsets_bj, own_elevation_b = model.lifter(normalised_bj2)
    poses_bj3 = lift(normalised_bj2, offsets_bj)
    elevation_b = team.gather(own_elevation_b)
    all_rotations_b33 = draw_rotations(elevation_b, generator, kind=config.lifting.elevation)
    rotations_b33 = team.share(all_rotations_b33)
    turned_bj3 = rotate(rotations_b33, poses_bj3)
    seen_bj2 = project(turned_bj3)
    again_bj3 = lift(seen_bj2, model.lifter.offsets(seen_bj2))
    terms = {
        "reprojection_2d": reprojection_2d_loss(
            project(rotate_back(rotations_b33, again_bj3)), normalised_bj2
        ),
        "consistency_3d": consistency_3d_loss(turned_bj3, again_bj3),
        "deformation": deformation_loss(
            team.gather(poses_bj3), team.gather(again_bj3), all_rotations_b33
        ),
        "elevation_spread": elevation_b.detach().std(),
    }
    if prior is not None:
        terms["flow"] = prior(seen_bj2, outlier_share=config.flow.outlier_share).mean()
    if config.loss_weights.bone > 0:
        terms["bone"] = bone_loss(poses_bj3, layout.limbs, layout.bone_ratios)
    return terms


def weighted_sum(terms: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """Return the sum of the terms that have a weight, each times it (Equation 12)."""
    factors = weights.model_dump()
    parts = [factors[name] * term for name, term in terms.items() if factors.get(name)]
    return torch.stack(parts).sum()


def make_optimiser(groups: list[tuple[nn.Module, float]]) -> torch.optim.Optimizer:
    """Return the paper's Adam over networks, each with its own learning rate."""
    parameters = [{"params": list(network.parameters()), "lr": rate} for network, rate in groups]
    return torch.optim.Adam(parameters, betas=_ADAM_BETAS, fused=True)


def make_recordable(optimiser: torch.optim.Optimizer) -> None:
    """Let the optimiser's steps be part of a CUDA graph: its rates become tensors."""
    for group in optimiser.param_groups:
        group["lr"] = torch.tensor(group["lr"], device=group["params"][0].device)
        group["capturable"] = True


def take_step(
    optimiser: torch.optim.Optimizer, loss: Tensor, *, clip: float, team: Team = ALONE
) -> None:
    """Take the gradient of `loss` in the optimiser's networks and a step against it."""
    find_gradients(optimiser, loss, team=team)
    apply_gradients(optimiser, clip=clip)


def find_gradients(
    optimiser: torch.optim.Optimizer, loss: Tensor, *, team: Team = ALONE, keep_graph: bool = False
) -> None:
    """Give the optimiser's networks, and no other, the gradient of `loss`.

    Args:
        optimiser: has the networks.
        loss: to be minimised, ().
        team: the gradient is the mean of all processes'.
        keep_graph: another loss of the same graph is still to be differentiated.
    """
    optimiser.zero_grad(set_to_none=True)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    torch.autograd.backward(loss, inputs=parameters, retain_graph=keep_graph)
    team.average(p.grad for p in parameters if p.grad is not None)


def apply_gradients(optimiser: torch.optim.Optimizer, *, clip: float) -> None:
    """Clip and step.

    Each network is clipped by itself, so that a large gradient of Lambda's does not shrink Phi's.
    """
    for group in optimiser.param_groups:
        nn.utils.clip_grad_norm_(group["params"], clip)
    optimiser.step()


def add_noise(
    skeletons_b1ss: Tensor, generator: torch.Generator, *, noise: float | Tensor, team: Team = ALONE
) -> Tensor:
    """Add D's instance noise to skeletons (B, 1, S, S) in [-1, 1].

    Args:
        skeletons_b1ss: a process' share of a batch.
        generator: draws for the whole batch, on the skeletons' device.
        noise: standard deviation, in the skeletons' unit, ().
        team: who has the other shares.
    """
    count, *shape = skeletons_b1ss.shape
    shift = torch.randn(
        (team.size * count, *shape), generator=generator, device=skeletons_b1ss.device
    )
    return skeletons_b1ss + noise * team.share(shift)
