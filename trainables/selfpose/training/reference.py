"""The renderer and the training step as the equations say them: nothing fused.

Everything here is float32 (or what it is given), eager, differentiated by autograd alone. The
fast forms must equal it, and are timed against it. Shared with them, and so not checked here, are
the networks, the geometry, the losses and their order in `training.lifting_losses`.

Frames and shape letters: as in `renderer` and `training`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfpose.method.flow import NormalisingFlow, PosePrior
from selfpose.method.losses import discriminator_loss, keypoint_loss, realness_loss, silhouette_loss
from selfpose.method.renderer import Profile, SkeletonRenderer
from selfpose.training.step import Terms, add_noise, lifting_losses, weighted_sum
from selfpose.training.trial import Trial

__all__ = ["PlainTraining", "draw_plainly"]


def draw_plainly(
    joints_bj2: Tensor,
    limbs: Sequence[tuple[int, int]],
    *,
    image_size: int,
    sigma: float,
    profile: Profile,
    brightness: Sequence[float],
) -> Tensor:
    """Draw as `renderer.draw_skeletons` does, every limb of every pixel with a graph."""
    grid_s = torch.linspace(-1, 1, image_size, dtype=joints_bj2.dtype, device=joints_bj2.device)
    y_ss, x_ss = torch.meshgrid(grid_s, grid_s, indexing="ij")
    m_ss2 = torch.stack((x_ss, y_ss), dim=-1)
    values = []
    for (a, b), bright in zip(limbs, brightness, strict=True):
        start = joints_bj2[:, a, None, None]
        along = joints_bj2[:, b, None, None] - start
        t = ((m_ss2 - start) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-6)
        foot = start + t.clamp(0, 1).unsqueeze(-1) * along
        d = ((m_ss2 - foot).square().sum(-1) + 1e-6).sqrt()
        values.append(bright * torch.exp(-(d if profile == "distance" else d**2) / sigma**2))
    return (2 * torch.stack(values).amax(0) - 1).unsqueeze(1)


class PlainTraining:
    """The complete mode's step beside a trial's: from the same weights, on the same draws."""

    def __init__(self, trial: Trial) -> None:
        """Copy the trial's networks and generators as they are now, before its first step."""
        self.trial, self.config = trial, trial.config
        self.model, self.judge = copy.deepcopy(trial.model), copy.deepcopy(trial.judge)
        self.prior = None if trial.flow is None else _plain_prior(trial.flow)
        for module in (*self.model.modules(), *self.judge.modules()):
            if isinstance(module, nn.Conv2d):  # on CUDA its channels lie together
                module.weight.data = module.weight.data.contiguous()
        rate = self.config.learning_rate
        assert self.model.phi is not None  # complete mode has both
        assert self.model.omega is not None
        self.phi, self.omega = self.model.phi, self.model.omega
        self.networks: list[tuple[nn.Module, float]] = [
            (self.phi, rate),
            (self.omega, rate),
            (self.model.lifter, rate * self.config.lifting.learning_rate_ratio),
        ]
        self.optimiser = _plain_adam(self.networks)
        judge_rate = rate * self.config.discriminator.learning_rate_ratio
        self.judge_optimiser = _plain_adam([(self.judge, judge_rate)])
        self.order = trial.order.clone_state()
        self.noise = trial.noise.clone_state()
        self.steps = 0

    def step(self) -> Terms:
        """Take one step; return the terms before weighing, as `Trial` reports them."""
        config, trial = self.config, self.trial
        assert trial.feed is not None  # complete mode has images
        pick_b = torch.randint(len(trial.feed), (config.batch_size,), generator=self.order)
        images_b3ss, masks_b1ss = trial.feed.fetch(pick_b)
        prior_bj2 = self._prior(config.batch_size)
        also_lifted = [self._prior(config.lift_prior)] if config.lift_prior else []

        real_b1ss = _draw(trial.pens.skeleton, prior_bj2)
        skeletons_b1ss = self.phi(images_b3ss)
        read_bj2, y_bj2 = self.omega(real_b1ss), self.omega(skeletons_b1ss)
        terms: Terms = {}
        if config.loss_weights.adversarial > 0:
            noisy_b1ss, noisy_real_b1ss = self._blur(skeletons_b1ss), self._blur(real_b1ss)
            terms["adversarial"] = realness_loss(self.judge(noisy_b1ss))
        terms["keypoint"] = self._keypoints(read_bj2, prior_bj2, y_bj2, skeletons_b1ss)
        if masks_b1ss is not None:
            terms["silhouette"] = silhouette_loss(_draw(trial.pens.body, y_bj2), masks_b1ss)
        lifted_bj2 = torch.cat((y_bj2.detach() if config.detach_pose else y_bj2, *also_lifted))
        terms |= lifting_losses(
            lifted_bj2, self.model, prior=self.prior, config=config, generator=self.noise
        )
        terms["total"] = weighted_sum(terms, config.loss_weights)
        _step(self.optimiser, terms["total"], self.networks, clip=config.gradient_clip)
        self.steps += 1
        if config.loss_weights.adversarial > 0:
            maps = self.judge(noisy_real_b1ss), self.judge(noisy_b1ss.detach())
            terms["discriminator"] = discriminator_loss(*maps)
            pair = [(self.judge, 0.0)]
            _step(self.judge_optimiser, terms["discriminator"], pair, clip=config.gradient_clip)
        return terms

    def _keypoints(
        self, read_bj2: Tensor, drawn_bj2: Tensor, y_bj2: Tensor, skeletons_b1ss: Tensor
    ) -> Tensor:
        share = self.config.keypoint.redrawing_share
        if not self.config.couple_skeleton and share > 0:
            skeletons_b1ss = skeletons_b1ss.detach()
            y_bj2 = self.omega(skeletons_b1ss)
        redrawn_b1ss = _draw(self.trial.pens.skeleton, y_bj2)
        return keypoint_loss(read_bj2, drawn_bj2, redrawn_b1ss, skeletons_b1ss, share)

    def _blur(self, skeletons_b1ss: Tensor) -> Tensor:
        settings = self.config.discriminator
        left = 1.0 - min(1.0, self.steps / settings.noise_steps)
        if settings.noise * left == 0:
            return skeletons_b1ss
        return add_noise(skeletons_b1ss, self.noise, noise=settings.noise * left)

    def _prior(self, count: int) -> Tensor:
        pick = torch.randint(len(self.trial.prior_nj2), (count,), generator=self.order)
        return self.trial.prior_nj2[pick.to(self.trial.device)]


class _PlainFlow(NormalisingFlow):
    """A flow that leaves its gradient to autograd, frozen or not."""

    def negative_log_likelihood(self, x_bk: Tensor) -> Tensor:
        z_bk, log_determinant_b = self(x_bk)
        return 0.5 * z_bk.square().sum(dim=1) - log_determinant_b


def _plain_prior(prior: PosePrior) -> PosePrior:
    flow = prior.flow
    plain = _PlainFlow(flow.dimensions, flow.depth, hidden=flow.hidden, generator=torch.Generator())
    plain.blocks = flow.blocks
    return PosePrior(prior.mean_d, prior.whitening_dk, plain)


def _draw(pen: SkeletonRenderer, joints_bj2: Tensor) -> Tensor:
    return draw_plainly(
        joints_bj2,
        pen.limbs,
        image_size=pen.image_size,
        sigma=pen.sigma,
        profile=pen.profile,
        brightness=pen.brightness,
    )


def _plain_adam(networks: list[tuple[nn.Module, float]]) -> torch.optim.Optimizer:
    groups = [{"params": list(network.parameters()), "lr": rate} for network, rate in networks]
    return torch.optim.Adam(groups, betas=(0.5, 0.999), foreach=False, fused=False)


def _step(
    optimiser: torch.optim.Optimizer,
    loss: Tensor,
    networks: Sequence[tuple[nn.Module, float]],
    *,
    clip: float,
) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for network, _ in networks:
        nn.utils.clip_grad_norm_(network.parameters(), clip, foreach=False)
    optimiser.step()
