"""The paper's training step as its equations say it: one readable function for each mode.

Read `ReferenceTraining.complete_step` first, then `lifting_terms`. Everything here is float32 (or
what it is given), eager, one operation after the other, differentiated by autograd alone. The fast
steps of `training.modes` must equal it, and are timed against it. Shared with them, and so not
checked here, are the networks, the geometry and the functions of `method.losses`.

Frames and units: as in `geometry`.
Shape letters: B batch, J joints, S image side in pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from selfpose.inference import ImagePoseModel, unit_bones
from selfpose.method.flow import NormalisingFlow, PosePrior
from selfpose.method.geometry import (
    draw_rotations,
    lift,
    normalise_pose,
    project,
    rotate,
    rotate_back,
)
from selfpose.method.losses import discriminator_loss
from selfpose.method.quantities import Quantities
from selfpose.method.renderer import Profile, SkeletonRenderer
from selfpose.training.modes.complete import add_noise, noise_left
from selfpose.training.modes.terms import Terms, bone_share, computed_terms
from selfpose.training.optimiser import ADAM_BETAS
from selfpose.training.renderers import Renderers
from selfpose.training.trial import Trial

__all__ = ["ReferenceTraining", "draw_plainly"]


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


class ReferenceTraining:
    """The same training beside a trial's: from the same weights, on the same draws."""

    def __init__(self, trial: Trial) -> None:
        """Copy the trial's networks and generators as they are now, before its first step."""
        self.trial, self.config = trial, trial.config
        self.model = copy.deepcopy(trial.model)
        self.judge = copy.deepcopy(trial.networks.get("judge"))
        self.prior = None if trial.flow is None else _plain_prior(trial.flow)
        self.renderers = Renderers.of(self.config, self.model.layout, trial.device)
        rate = self.config.learning_rate
        lifter_rate = rate * self.config.lifting.learning_rate_ratio
        self.rates = {
            network: lifter_rate if network is self.model.lifter else rate
            for network in self.model.children()
        }
        self.optimiser = _plain_adam(self.rates)
        if self.judge is not None:
            ratio = self.config.discriminator.learning_rate_ratio
            self.judge_optimiser = _plain_adam({self.judge: rate * ratio})
        for layer in (*self.model.modules(), *(self.judge or nn.Identity()).modules()):
            if isinstance(layer, nn.Conv2d):  # on CUDA its channels lie together
                layer.weight.data = layer.weight.data.contiguous()
        self.order = trial.order.clone_state()
        self.noise = trial.noise.clone_state()
        self.steps = 0

    def step(self) -> Terms:
        """Take one step; return the terms before weighing, as `Trial` reports them."""
        take: Mapping[str, Callable[..., Terms]] = {
            "complete": self.complete_step,
            "lifting": self.lifting_step,
            "supervised": self.supervised_step,
        }
        terms = take[self.config.mode](*self.trial.mode.draw_batch(self.order))
        self.steps += 1
        return terms

    def complete_step(
        self,
        images_b3ss: Tensor,
        masks_b1ss: Tensor | None,
        prior_bj2: Tensor,
        lifted_prior_bj2: Tensor | None,
        mask_joints_bj2: Tensor | None = None,
        matrix_b22: Tensor | None = None,
        shift_b2: Tensor | None = None,
    ) -> Terms:
        """Train Phi, Omega and Lambda against D, then D against them.

        Args:
            images_b3ss: unlabelled images (B, 3, S, S) in [-1, 1].
            masks_b1ss: their foreground masks (B, 1, S, S), -1 or 1, if a term takes them.
            prior_bj2: unpaired 2D poses (B, J, 2), crop coordinates.
            lifted_prior_bj2: more of them, lifted as if Omega had read them, if there are any.
            mask_joints_bj2: poses that were read in the masks (B, J, 2), crop coordinates, if a
                term takes them.
            matrix_b22: how the crops are distorted, if they are: turned and scaled (B, 2, 2).
            shift_b2: and then shifted (B, 2), crop coordinates.
        """
        config, model = self.config, self._image_model()
        # Phi draws a skeleton of each image. Omega reads it, and rendered poses of the prior.
        skeletons_b1ss = model.phi(images_b3ss)
        rendered_b1ss = _draw(self.renderers.skeleton, prior_bj2)
        joints_bj2, read_bj2 = model.omega(skeletons_b1ss), model.omega(rendered_b1ss)
        # What Omega read is rendered again. This half of the keypoint term trains Omega alone.
        target_b1ss, redraw_bj2 = skeletons_b1ss, joints_bj2
        if not config.couple_skeleton and config.keypoint.redrawing_share > 0:
            target_b1ss = skeletons_b1ss.detach()
            redraw_bj2 = model.omega(target_b1ss)
        known: Quantities = {
            "images_b3ss": images_b3ss,
            "prior_bj2": prior_bj2,
            "drawn_b1ss": rendered_b1ss,
            "read_bj2": read_bj2,
            "skeletons_b1ss": skeletons_b1ss,
            "joints_bj2": joints_bj2,
            "redrawn_b1ss": _draw(self.renderers.skeleton, redraw_bj2),
            "redrawing_target_b1ss": target_b1ss,
            "redrawing_share": config.keypoint.redrawing_share,
            "body_b1ss": _draw(self.renderers.body, joints_bj2),
        }
        if masks_b1ss is not None:
            known["masks_b1ss"] = masks_b1ss
        if mask_joints_bj2 is not None:
            known["mask_joints_bj2"] = mask_joints_bj2
            known["mask_skeletons_b1ss"] = _draw(self.renderers.skeleton, mask_joints_bj2)
        judge = self.judge if "discriminator" in config.needs else None
        if judge is not None:
            noisy_b1ss, noisy_real_b1ss = self._blur(skeletons_b1ss), self._blur(rendered_b1ss)
            known["judged"] = judge(noisy_b1ss)
        lifted_bj2 = joints_bj2.detach() if config.detach_pose else joints_bj2
        if matrix_b22 is not None and shift_b2 is not None:  # lifted as it lies in the crop itself
            moved_bj2 = lifted_bj2 - shift_b2[:, None]
            lifted_bj2 = moved_bj2 @ torch.linalg.inv(matrix_b22).transpose(1, 2)
        if lifted_prior_bj2 is not None:
            lifted_bj2 = torch.cat((lifted_bj2, lifted_prior_bj2))
        terms = self._minimise({**known, **self._lift_and_return(lifted_bj2)})
        if judge is not None:
            maps = judge(noisy_real_b1ss), judge(noisy_b1ss.detach())
            terms["discriminator"] = discriminator_loss(*maps)
            _step(self.judge_optimiser, terms["discriminator"], [judge], config.gradient_clip)
        return terms

    def lifting_step(self, poses_bj2: Tensor) -> Terms:
        """Train Lambda alone.

        Args:
            poses_bj2: 2D poses of the prior (B, J, 2), crop coordinates.
        """
        return self._minimise(self._lift_and_return(poses_bj2))

    def supervised_step(
        self, images_b3ss: Tensor, joints_2d_bj2: Tensor, joints_3d_bj3: Tensor
    ) -> Terms:
        """Train Phi, Omega and Lambda with the full truth; no part of the method.

        Args:
            images_b3ss: images (B, 3, S, S) in [-1, 1].
            joints_2d_bj2: their true 2D poses (B, J, 2), crop coordinates.
            joints_3d_bj3: their true 3D poses (B, J, 3), camera axes, mean limb length 1.
        """
        _, found_bj2 = self.model.read(images_b3ss)
        found_bj3 = unit_bones(self.model.lift(found_bj2), self.model.layout)
        error_2d = (found_bj2 - joints_2d_bj2).norm(dim=-1).mean()
        error_3d = (found_bj3 - joints_3d_bj3).norm(dim=-1).mean()
        total = error_2d + error_3d
        _step(self.optimiser, total, self.rates, self.config.gradient_clip)
        return {"total": total}

    def _lift_and_return(self, poses_bj2: Tensor) -> Quantities:
        """Lift 2D poses, turn them, project them, lift them again and turn them back.

        Args:
            poses_bj2: 2D poses (B, J, 2), crop coordinates.
        """
        model, layout = self.model, self.model.layout
        normalised_bj2 = normalise_pose(poses_bj2, layout.root, model.h)
        offsets_bj, elevation_b = model.lifter(normalised_bj2)
        poses_bj3 = lift(normalised_bj2, offsets_bj)
        rotations_b33 = draw_rotations(elevation_b, self.noise, kind=self.config.lifting.elevation)
        turned_bj3 = rotate(rotations_b33, poses_bj3)
        seen_bj2 = project(turned_bj3)
        again_bj3 = lift(seen_bj2, model.lifter(seen_bj2)[0])
        self.elevation_spread = elevation_b.detach().std()
        known: Quantities = {
            "normalised_bj2": normalised_bj2,
            "poses_bj3": poses_bj3,
            "turned_bj3": turned_bj3,
            "seen_bj2": seen_bj2,
            "lifted_again_bj3": again_bj3,
            "reprojected_bj2": project(rotate_back(rotations_b33, again_bj3)),
            "poses_aj3": poses_bj3,
            "lifted_again_aj3": again_bj3,
            "rotations_a33": rotations_b33,
            "limbs": layout.limbs,
            "limb_pairs": layout.limb_pairs,
            "bone_ratios": self.trial.bone_ratios,
        }
        if self.prior is not None:
            outlier_share = self.config.flow.outlier_share
            known["surprisal_b"] = self.prior(seen_bj2, outlier_share=outlier_share)
        return known

    def _minimise(self, known: Quantities) -> Terms:
        """Compute the terms and take a step against their weighted sum (Equation 12)."""
        terms = {term.name: term.compute(known) for term in computed_terms(self.config)}
        weights = self.config.loss_weights.by_name()
        weights["bone"] *= bone_share(self.config, self.steps)
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        _step(self.optimiser, total, self.rates, self.config.gradient_clip)
        return {**terms, "elevation_spread": self.elevation_spread, "total": total}

    def _blur(self, skeletons_b1ss: Tensor) -> Tensor:
        """Return skeletons behind the instance noise that is left at this step."""
        noise = noise_left(self.config, self.steps)
        return add_noise(skeletons_b1ss, self.noise, noise=noise) if noise else skeletons_b1ss

    def _image_model(self) -> ImagePoseModel:
        if not isinstance(self.model, ImagePoseModel):
            raise TypeError("lifting mode has no images")
        return self.model


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


def _draw(renderer: SkeletonRenderer, joints_bj2: Tensor) -> Tensor:
    return draw_plainly(
        joints_bj2,
        renderer.limbs,
        image_size=renderer.image_size,
        sigma=renderer.sigma,
        profile=renderer.profile,
        brightness=renderer.brightness,
    )


def _plain_adam(rates: Mapping[nn.Module, float]) -> torch.optim.Optimizer:
    groups = [{"params": list(network.parameters()), "lr": rate} for network, rate in rates.items()]
    return torch.optim.Adam(groups, betas=ADAM_BETAS, foreach=False, fused=False)


def _step(
    optimiser: torch.optim.Optimizer, loss: Tensor, networks: Iterable[nn.Module], clip: float
) -> None:
    """Take a step against `loss`; each network's gradient is clipped by itself."""
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for network in networks:
        nn.utils.clip_grad_norm_(network.parameters(), clip, foreach=False)
    optimiser.step()
