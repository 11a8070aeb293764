"""Complete mode: Phi, Omega, Lambda and D together, from unlabelled images and unpaired 2D poses.

This is the step of `training.reference`, with the same terms, arranged so that nothing is computed
twice and nothing waits for the device: D judges Phi's skeletons once for both sides, Omega reads
them once for both of its losses, and on a GPU parts of the step run beside each other.

At the paper's size, batch 96, convolutions and matrix products compute 3.82 TFLOP, 5.0 ms at the
761 TFLOP/s at which an H200 multiplies large bf16 matrices. They read and write 5.4 G numbers,
10.7 GB in bf16: 2.2 ms at the 4.8 TB/s that NVIDIA states for it; normalisations come on top
(`kernels.normalisation`). At the quickstart's size 5.0 GFLOP, 58 ms at the 86 GFLOP/s of one core
of an AMD EPYC, and 0.1 GB, 4 ms at the 25 GB/s at which it copies (`support.step_speed` counts).

Supervision is images (with masks, if a term takes them) and the prior's 2D poses.
Frames and units: as in `geometry` and `images`.
Shape letters: B images of this process, A those of all processes, J joints, S image side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfpose.config import SelfPoseConfig
from selfpose.data.pictures.images import ImageFeed
from selfpose.inference import ImagePoseModel
from selfpose.method.losses import discriminator_loss, weighted_sum
from selfpose.networks import D, Omega
from selfpose.training.acceleration import Branches
from selfpose.training.bodies.distortion import Distortion, draw_distortions
from selfpose.training.data_parallel import ALONE, Team
from selfpose.training.modes.lifting import PriorPoses, RoundTrip
from selfpose.training.modes.terms import Losses, Terms, Weights, computed_terms
from selfpose.training.optimiser import apply_gradients, find_gradients, take_step
from selfpose.training.renderers import Renderers

__all__ = ["CompleteBatch", "CompleteMode", "Optimisers", "add_noise", "noise_left"]


class CompleteBatch(NamedTuple):
    """Holds this process' share of a batch of images and prior poses."""

    images_b3ss: Tensor
    masks_b1ss: Tensor | None
    prior_bj2: Tensor
    """2D poses of the prior, crop coordinates, unpaired with the images."""
    lifted_prior_aj2: Tensor | None
    """Further 2D poses of the prior, crop coordinates, lifted too: those of all processes."""
    mask_joints_bj2: Tensor | None = None
    """2D poses that were read in the masks, crop coordinates."""
    matrix_b22: Tensor | None = None
    shift_b2: Tensor | None = None
    """How images, masks and their poses are distorted (`bodies.distortion.Distortion`)."""

    @property
    def distortion(self) -> Distortion | None:
        """How the crops are distorted, if they are."""
        if self.matrix_b22 is None or self.shift_b2 is None:
            return None
        return Distortion(self.matrix_b22, self.shift_b2)


@dataclass(frozen=True)
class Optimisers:
    """Holds the optimiser of Phi, Omega and Lambda, and the optimiser of D."""

    model: torch.optim.Optimizer
    judge: torch.optim.Optimizer


class CompleteMode:
    """Trains Phi, Omega, Lambda and D."""

    def __init__(
        self,
        config: SelfPoseConfig,
        model: ImagePoseModel,
        judge: D,
        *,
        renderers: Renderers,
        round_trip: RoundTrip,
        feed: ImageFeed,
        poses: PriorPoses,
        optimisers: Optimisers,
        mask_joints_nj2: Tensor | None = None,
    ) -> None:
        """Keep what a step needs.

        Args:
            config: weights, batch, clipping and precision.
            model: the networks that are trained together.
            judge: D, their opponent.
            renderers: of skeletons, and of bodies to compare with masks.
            round_trip: what is done with the poses that Omega reads; has the generator, which
                draws D's noise too, and the team.
            feed: the training images, with masks if a term takes them.
            poses: of the prior.
            optimisers: of the networks and of D.
            mask_joints_nj2: 2D poses that were read in the masks of all training images
                (N, J, 2), crop coordinates, on the feed's device, if a term takes them.
        """
        self.config, self.model, self.judge = config, model, judge
        self.renderers, self.round_trip = renderers, round_trip
        self.feed, self.poses, self.optimisers = feed, poses, optimisers
        self.mask_joints_nj2 = mask_joints_nj2
        self.team, self.generator = round_trip.team, round_trip.generator
        self.terms = computed_terms(config)
        self.weights = Weights(config, poses.poses_nj2.device)
        self._noisy = False
        self._noise = torch.zeros((), device=poses.poses_nj2.device)
        """Standard deviation of the noise on what D sees, at this step."""

    def draw_batch(self, order: torch.Generator) -> CompleteBatch:
        """Draw the images and the prior poses of a step."""
        config, team = self.config, self.team
        rows_a = torch.randint(len(self.feed), (config.batch_size,), generator=order)
        images_b3ss, masks_b1ss = self.feed.fetch(team.share(rows_a))
        mask_joints_bj2 = None
        if self.mask_joints_nj2 is not None:
            mask_joints_bj2 = self.mask_joints_nj2[team.share(rows_a).to(images_b3ss.device)]
        batch = CompleteBatch(
            images_b3ss,
            masks_b1ss,
            team.share(self.poses.draw(config.batch_size, order)),
            self.poses.draw(config.lift_prior, order) if config.lift_prior else None,
            mask_joints_bj2,
        )
        if not config.distort_images:
            return batch
        matrix_a22, shift_a2 = draw_distortions(config.batch_size, order)
        distortion = Distortion(team.share(matrix_a22), team.share(shift_a2))
        return _distort(batch, distortion.to(images_b3ss.device))

    def prepare(self, steps: int) -> object:
        """Set weights and D's noise after so many steps; return whether there is any noise."""
        self.weights.set(steps)
        noise = noise_left(self.config, steps)
        self._noise.fill_(noise)
        self._noisy = noise > 0
        return self._noisy

    def step(self, batch: tuple[Any, ...], branches: Branches) -> Terms:
        """Take one step, on the device alone; return what it reports."""
        clip, team, losses = self.config.gradient_clip, self.team, Losses(self.terms)
        poses_aj2, judged, d_loss = self._read(CompleteBatch(*batch), losses, branches)
        spread = self.round_trip.tell(losses, poses_aj2)
        if judged is None or d_loss is None:
            terms = losses.finish()
            total = weighted_sum(terms, self.weights.by_name)
            take_step(self.optimisers.model, total, clip=clip, team=team)
            return {**terms, "elevation_spread": spread, "total": total}
        branches.join("judged", d_loss, *judged, *losses.values.values())
        losses.know(judged=judged)
        with branches.branch("judged"):
            find_gradients(self.optimisers.judge, d_loss, team=team, keep_graph=True)
        d_loss = d_loss.detach()  # frees its part of the graph
        terms = losses.finish()
        total = weighted_sum(terms, self.weights.by_name)
        find_gradients(self.optimisers.model, total, team=team)
        with branches.branch("judged"):
            apply_gradients(self.optimisers.judge, clip=clip)
        apply_gradients(self.optimisers.model, clip=clip)
        branches.join("judged")
        return {**terms, "elevation_spread": spread, "discriminator": d_loss, "total": total}

    def _read(
        self, batch: CompleteBatch, losses: Losses, branches: Branches
    ) -> tuple[Tensor, list[Tensor] | None, Tensor | None]:
        """Draw, read and judge skeletons; tell the losses.

        D judges Phi's skeletons once for both sides: the same maps, weights and noise. It judges
        the rendered ones by themselves: in one batch with Phi's, their part would be differentiated
        for Phi's sake too, and be zero.

        Returns:
            The 2D poses to be lifted (A, J, 2), crop coordinates; D's maps of Phi's skeletons and
            D's own loss, which still have to be joined, or None if no term takes them.
        """
        config, model, renderers = self.config, self.model, self.renderers
        half = config.bf16 and batch.images_b3ss.is_cuda
        judged = d_loss = None
        drawn_b1ss = renderers.skeleton(batch.prior_bj2)
        losses.know(images_b3ss=batch.images_b3ss, prior_bj2=batch.prior_bj2, drawn_b1ss=drawn_b1ss)
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            # Omega's rounded weights are not shared with the other branch, which would not wait.
            with (
                branches.branch("drawn", drawn_b1ss),
                torch.autocast("cuda", torch.bfloat16, enabled=half, cache_enabled=False),
            ):
                read_bj2 = model.omega(drawn_b1ss)
            skeletons_b1ss = model.phi(batch.images_b3ss).float()
            if losses.wants("judged"):
                with branches.branch("judged", skeletons_b1ss, drawn_b1ss):
                    judged = self._judge(skeletons_b1ss, branches)
                    losses.know_here(judged=judged)
                    d_loss = discriminator_loss(self._judge(drawn_b1ss, branches), judged)
            joints_bj2, redraw_bj2, target_b1ss = _read_skeletons(
                model.omega, skeletons_b1ss, config=config
            )
        branches.join("drawn", read_bj2)
        losses.know(
            skeletons_b1ss=skeletons_b1ss,
            read_bj2=read_bj2,
            joints_bj2=joints_bj2,
            redrawn_b1ss=target_b1ss if redraw_bj2 is None else renderers.skeleton(redraw_bj2),
            redrawing_target_b1ss=target_b1ss,
            redrawing_share=config.keypoint.redrawing_share,
        )
        if batch.masks_b1ss is not None:
            losses.know(masks_b1ss=batch.masks_b1ss)
        if batch.mask_joints_bj2 is not None:
            losses.know(
                mask_joints_bj2=batch.mask_joints_bj2,
                mask_skeletons_b1ss=renderers.skeleton(batch.mask_joints_bj2),
            )
        if losses.wants("body_b1ss"):
            losses.know(body_b1ss=renderers.body(joints_bj2))
        if batch.distortion is not None:
            joints_bj2 = batch.distortion.undo(joints_bj2)
        poses_aj2 = self.team.gather(joints_bj2.detach() if config.detach_pose else joints_bj2)
        if batch.lifted_prior_aj2 is not None:
            poses_aj2 = torch.cat((poses_aj2, batch.lifted_prior_aj2))
        return poses_aj2, judged, d_loss

    def _judge(self, skeletons_b1ss: Tensor, branches: Branches) -> list[Tensor]:
        """Return D's maps, behind as much noise as is left at this step; each scale a branch."""
        if self._noisy:
            skeletons_b1ss = add_noise(
                skeletons_b1ss, self.generator, noise=self._noise, team=self.team
            )
        maps = []
        for scale in self.judge.scales:
            with branches.branch(f"D, 1/{scale}", skeletons_b1ss):
                maps.append(self.judge.at_scale(skeletons_b1ss, scale))
        for scale, judgement in zip(self.judge.scales, maps, strict=True):
            branches.join(f"D, 1/{scale}", judgement)
        return maps


def _distort(batch: CompleteBatch, distortion: Distortion) -> CompleteBatch:
    """Return a batch whose images, masks and read poses are distorted; not the prior's poses."""
    masks_b1ss, mask_joints_bj2 = batch.masks_b1ss, batch.mask_joints_bj2
    return batch._replace(
        images_b3ss=distortion.images(batch.images_b3ss),
        masks_b1ss=None if masks_b1ss is None else distortion.images(masks_b1ss),
        mask_joints_bj2=None if mask_joints_bj2 is None else distortion.poses(mask_joints_bj2),
        matrix_b22=distortion.matrix_b22,
        shift_b2=distortion.shift_b2,
    )


def noise_left(config: SelfPoseConfig, steps: int) -> float:
    """Return what is left of D's noise after so many steps: its standard deviation."""
    settings = config.discriminator
    return settings.noise * (1.0 - min(1.0, steps / settings.noise_steps))


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
        joints_bj2 = omega(skeletons_b1ss)
        return joints_bj2, joints_bj2 if redraw else None, skeletons_b1ss
    joints_bj2, redraw_bj2 = _ReadTwice.apply(  # type: ignore[no-untyped-call]
        skeletons_b1ss, omega, *omega.parameters()
    )
    return joints_bj2, redraw_bj2, skeletons_b1ss.detach()


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
