"""One trial's training: its networks, data, random numbers and counters.

`Trial.train` runs an epoch of steps, `Trial.validate` scores the present networks.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posetune.api import BadInputError, Progress, TrialContext
from selfpose.config import SelfPoseConfig
from selfpose.cuda.graph import RecordedStep
from selfpose.cuda.streams import beside, meet
from selfpose.data.images import ImageFeed, images_to_input, open_feed
from selfpose.data.store import open_store
from selfpose.evaluation.figures import SheetRow, draw_sheet
from selfpose.inference import build_model, unit_bones
from selfpose.method.flow import PosePrior, load_pose_prior
from selfpose.method.geometry import head_distance
from selfpose.method.metrics import error_2d_px, validation_metrics
from selfpose.networks import D
from selfpose.networks.layers import as_written
from selfpose.training.checkpoint import TrainingState, load_state, save_state
from selfpose.training.compiling import check_compiler, compile_networks, finds_compiler
from selfpose.training.data_parallel import Team, share_statistics
from selfpose.training.health import check_discriminator, check_finite, check_spread
from selfpose.training.stages import load_shared_weights, prior_poses
from selfpose.training.step import (
    Batch,
    Pens,
    Terms,
    add_noise,
    apply_gradients,
    complete_losses,
    find_gradients,
    lifting_losses,
    make_optimiser,
    make_recordable,
    seeded,
    take_step,
    weighted_sum,
)
from selfpose.training.supervised import Labels, read_labels, supervised_loss
from selfpose.training.validation import ValidationFrames

__all__ = ["TERMS", "Trial"]

TERMS = (
    *("adversarial", "keypoint", "flow", "reprojection_2d", "consistency_3d", "deformation"),
    *("bone", "silhouette", "total", "discriminator", "elevation_spread"),
)
"""What training reports, the epoch's means before weighing; 0 where a term is left out."""

_COLLAPSE_AFTER_STEPS = 200
"""Before, a constant output only means that training has not begun to show."""

_ROWS_AT_ONCE = 256
_DRAWN_FRAMES = 8


class Trial:
    """A training under way."""

    def __init__(self, config: SelfPoseConfig, context: TrialContext) -> None:
        """Build everything; nothing is trained yet.

        Raises:
            BadInputError: the store does not fit the configuration, or nothing compiles for it.
        """
        self.config, self.context = config, context
        self.team = _make_team(config, context)
        self.device = torch.device(context.device)
        if config.compile:
            check_compiler(self.device)
        store = open_store(context.store)
        prior_nj2 = prior_poses(store, mirrored=config.mirror_prior)
        layout = store.layout
        with seeded(context.seed):
            h = head_distance(prior_nj2, layout.root, layout.head)
            self.model = build_model(config, layout, h=h)
            self.judge = D(config.discriminator.width, image_size=config.image_size)
        load_shared_weights(self.model, dict(context.products))
        if self.model.phi is not None:
            share_statistics(self.model.phi, self.team)
        self.model.to(self.device)
        self.judge.to(self.device)
        if self.device.type == "cuda":  # bf16 convolutions want channels together
            for network in (self.model.phi, self.model.omega, self.judge):
                if network is not None:
                    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.prior_nj2 = prior_nj2.to(self.device)
        self.flow = _load_flow(config, context)
        self.feed: ImageFeed | None = None
        if config.takes_images:
            self.pens = Pens.of(config, layout)
            self.feed = open_feed(
                store.split("train"),
                config.image_size,
                with_masks=config.mode == "complete" and config.loss_weights.silhouette > 0,
                device=self.device,
                gpu_share=context.gpu_share,
            ).with_hue(config.silhouette_hue)
        if config.mode == "supervised":
            self.labels = read_labels(store.split("train"), layout, self.device)
        self.validation = ValidationFrames(store, config)
        self.optimiser, self.judge_optimiser = self._optimisers()
        self.full_rates = [group["lr"] for group in self._groups()]
        self.order = torch.Generator().manual_seed(context.seed)
        self.noise = torch.Generator(self.device).manual_seed(context.seed + 1)
        self.steps = self.epochs = 0
        self.position = 0
        """Steps done of the epoch under way."""
        self.sums = torch.zeros(len(TERMS), device=self.device)
        """Of each of `TERMS` over these steps."""
        self.noise_left = torch.zeros((), device=self.device)
        """Standard deviation of the noise on what D sees, at this step."""
        self.replay = self._make_replay()
        if config.compile:
            self.compile()

    def compile(self) -> bool:
        """Let torch compile the networks for CUDA, where it finds a compiler; say if it did."""
        if not finds_compiler(self.device):
            return False
        networks = (self.model.phi, self.model.omega, self.model.lifter, self.judge)
        compile_networks(n for n in networks if n is not None)
        self.replay = None  # recorded, they ended in NaN
        return True

    def train(self, progress: Progress) -> dict[str, float]:
        """Run what is left of `steps_per_epoch` steps and return the mean of each of `TERMS`.

        What `progress` raises passes; the epoch can be saved and continued then.

        Raises:
            TrialFailedError: a term is not finite any more, or D has nothing left to learn.
        """
        self.model.train()
        total = self.config.steps_per_epoch
        while self.position < total:
            if self.position % max(1, total // 50) == 0:
                progress(self.position, total)
            self._set_rates()
            noise = self._noise()
            self.noise_left.fill_(noise)
            batch = self._draw_batch()
            if self.replay is not None:
                self.sums += self.replay.take(self._step, batch, phase=noise > 0)
            else:
                with as_written():  # Python launches torch's own operations faster
                    self.sums += self._step(batch)
            self.steps += 1
            self.position += 1
        progress(total, total)
        means = dict(zip(TERMS, (self.sums / total).tolist(), strict=True))
        self.epochs += 1
        self.position = 0
        self.sums.zero_()
        check_finite(means, self.epochs)
        if self.config.mode == "complete" and self.config.loss_weights.adversarial > 0:
            check_discriminator(means["discriminator"], self.epochs)
        return means

    def validate(self) -> dict[str, float]:
        """Return the metrics of `selfpose.method.metrics` on the fixed validation frames.

        Raises:
            TrialFailedError: the networks give the same pose for every frame, or no number.
        """
        joints_nj2, poses_nj3, lifted_nj3 = self.predict_validation()
        if self.steps >= _COLLAPSE_AFTER_STEPS:
            usual = float(self.prior_nj2.std(dim=0).mean())
            check_spread(joints_nj2, poses_nj3, usual_2d=usual, epoch=self.epochs)
        given = self.validation
        metrics = validation_metrics(
            poses_nj3,
            given.joints_3d_nj3,
            predicted_2d_nj2=joints_nj2,
            truth_2d_nj2=given.joints_2d_nj2,
            lifted_true_nj3=lifted_nj3,
            activity_n=given.activity_n,
            motion_n=given.motion_n,
            layout=self.model.layout,
            image_size=self.config.image_size,
        )
        check_finite(metrics, self.epochs)
        return metrics

    @torch.no_grad()
    def predict_validation(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return on the validation frames the 2D poses (N, J, 2), the 3D poses (N, J, 3), and
        what Lambda makes of the true 2D poses (N, J, 3); 3D with mean limb length 1.
        """  # noqa: D205
        self.model.eval()
        true_nj2 = torch.from_numpy(self.validation.joints_2d_nj2).to(self.device)
        joints_nj2 = true_nj2
        if self.validation.images_nss3 is not None:
            chunks = torch.split(torch.from_numpy(self.validation.images_nss3), _ROWS_AT_ONCE)
            joints_nj2 = torch.cat(
                [self.model.read(images_to_input(c.to(self.device)))[1] for c in chunks]
            )
        poses_nj3, lifted_nj3 = (
            unit_bones(self.model.lift(j), self.model.layout).cpu().numpy()
            for j in (joints_nj2, true_nj2)
        )
        return joints_nj2.cpu().numpy(), poses_nj3, lifted_nj3

    def draw(self, out: Path) -> None:
        """Write a sheet of a few validation frames, true and predicted, as the PNG file `out`."""
        joints_nj2, poses_nj3, _ = self.predict_validation()
        given = self.validation
        images_nss3, size = given.images_nss3, self.config.image_size
        error_n = error_2d_px(joints_nj2, given.joints_2d_nj2, image_size=size)
        known = given.joints_3d_nj3 is not None
        rows = [
            SheetRow(
                label=f"validation\nframe {row}",
                image_ss3=None if images_nss3 is None else images_nss3[row],
                joints_2d_j2=joints_nj2[row],
                truth_2d_j2=given.joints_2d_nj2[row],
                truth_3d_j3=None if given.joints_3d_nj3 is None else given.joints_3d_nj3[row],
                predicted_3d_j3=poses_nj3[row],
                score=None if known else f"{error_n[row]:.1f} px",
            )
            for row in np.linspace(0, len(poses_nj3) - 1, _DRAWN_FRAMES).astype(int)
        ]
        title = f"Validation, epoch {self.epochs}: evenly spaced frames"
        partial = out.with_name(f".{out.name}.partial")
        partial.write_bytes(draw_sheet(rows, layout=self.model.layout, title=title))
        partial.replace(out)

    def save(self, folder: Path) -> None:
        """Write everything that an exact continuation needs."""
        counters = {"steps": self.steps, "epochs": self.epochs, "position": self.position}
        save_state(self._state(), {**counters, "sums": self.sums.tolist()}, folder)

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote.

        Raises:
            BadInputError: it was written by another configuration.
        """
        counters = load_state(self._state(), folder)
        if self.replay is not None:
            self.replay.forget()
        self.steps, self.epochs = counters["steps"], counters["epochs"]
        self.position = counters["position"]
        self.sums.copy_(torch.tensor(counters["sums"]))

    def _state(self) -> TrainingState:
        networks = {"model": self.model, "judge": self.judge}
        optimisers = {"model": self.optimiser, "judge": self.judge_optimiser}
        return TrainingState(networks, optimisers, {"order": self.order, "noise": self.noise})

    def _optimisers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        rate = self.config.learning_rate
        networks = [n for n in (self.model.phi, self.model.omega) if n is not None]
        lifter = (self.model.lifter, rate * self.config.lifting.learning_rate_ratio)
        judge = (self.judge, rate * self.config.discriminator.learning_rate_ratio)
        return make_optimiser([*((n, rate) for n in networks), lifter]), make_optimiser([judge])

    def _groups(self) -> list[dict[str, Any]]:
        return [*self.optimiser.param_groups, *self.judge_optimiser.param_groups]

    def _make_replay(self) -> RecordedStep | None:
        if self.device.type != "cuda" or not self.config.replay or self.team.size > 1:
            return None
        for optimiser in (self.optimiser, self.judge_optimiser):
            make_recordable(optimiser)
        return RecordedStep(device=self.device, generators=[self.noise])

    def _set_rates(self) -> None:
        """Let every learning rate follow half a cosine; the step alone decides, not the past."""
        if self.config.decay_steps:
            done = min(1.0, self.steps / self.config.decay_steps)
            for group, full in zip(self._groups(), self.full_rates, strict=True):
                rate = full * (1.0 + math.cos(math.pi * done)) / 2.0
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    def _noise(self) -> float:
        """Return what is left of D's noise, which falls to zero, at this step."""
        settings = self.config.discriminator
        return settings.noise * (1.0 - min(1.0, self.steps / settings.noise_steps))

    def _draw_batch(self) -> tuple[Tensor | None, ...]:
        """Draw what a step is given: `Batch`, images and their `Labels`, or poses of the prior."""
        config = self.config
        if config.mode == "lifting":
            return (self._draw_prior(config.batch_size),)
        assert self.feed is not None  # the other modes have images
        rows_b = torch.randint(len(self.feed), (config.batch_size,), generator=self.order)
        own_b = self.team.share(rows_b)
        images_b3ss, masks_b1ss = self.feed.fetch(own_b)
        if config.mode == "supervised":
            return images_b3ss, *self.labels.pick(own_b)
        return Batch(
            images_b3ss,
            masks_b1ss,
            self.team.share(self._draw_prior(config.batch_size)),
            self._draw_prior(config.lift_prior) if config.lift_prior else None,
        )

    def _draw_prior(self, count: int) -> Tensor:
        pick = torch.randint(len(self.prior_nj2), (count,), generator=self.order)
        return self.prior_nj2[pick.to(self.device, non_blocking=True)]

    def _step(self, batch: tuple[Any, ...]) -> Tensor:
        """Take one step, on the device alone; return its `TERMS`."""
        step = {"complete": self._complete_step, "supervised": self._supervised_step}
        terms = step.get(self.config.mode, self._lifting_step)(*batch)
        zero = self.sums.new_zeros(())
        reported = torch.stack([terms.get(name, zero).detach() for name in TERMS])
        self.team.average([reported])
        return reported

    def _lifting_step(self, poses_bj2: Tensor) -> Terms:
        terms = lifting_losses(
            poses_bj2,
            self.model,
            prior=self.flow,
            config=self.config,
            generator=self.noise,
            team=self.team,
        )
        return self._finish_step(terms, weighted_sum(terms, self.config.loss_weights))

    def _supervised_step(self, images_b3ss: Tensor, *truth: Tensor) -> Terms:
        loss = supervised_loss(images_b3ss, Labels(*truth), self.model, bf16=self.config.bf16)
        return self._finish_step({}, loss)

    def _complete_step(self, *batch: Any) -> Terms:
        config = self.config
        terms = complete_losses(
            Batch(*batch),
            self.model,
            judge=self._judge,
            prior=self.flow,
            pens=self.pens,
            settings=(config, self.noise, self.team),
        )
        if config.loss_weights.adversarial == 0:
            return self._finish_step(terms, weighted_sum(terms, config.loss_weights))
        with beside("judged"):
            find_gradients(
                self.judge_optimiser, terms["discriminator"], team=self.team, keep_graph=True
            )
        terms["discriminator"] = terms["discriminator"].detach()  # frees its part of the graph
        total = weighted_sum(terms, config.loss_weights)
        find_gradients(self.optimiser, total, team=self.team)
        with beside("judged"):
            apply_gradients(self.judge_optimiser, clip=config.gradient_clip)
        apply_gradients(self.optimiser, clip=config.gradient_clip)
        meet("judged")
        return {**terms, "total": total}

    def _judge(self, skeletons_b1ss: Tensor) -> list[Tensor]:
        """Return D's maps, behind as much noise as is left at this step."""
        if self._noise() > 0:
            skeletons_b1ss = add_noise(
                skeletons_b1ss, self.noise, noise=self.noise_left, team=self.team
            )
        maps: list[Tensor] = self.judge(skeletons_b1ss)
        return maps

    def _finish_step(self, terms: Terms, total: Tensor) -> Terms:
        take_step(self.optimiser, total, clip=self.config.gradient_clip, team=self.team)
        return {**terms, "total": total}


def _make_team(config: SelfPoseConfig, context: TrialContext) -> Team:
    size = context.processes
    for name, count in (("batch_size", config.batch_size), ("lift_prior", config.lift_prior)):
        if count % size:
            raise BadInputError(
                f"{name}: {count} cannot be shared evenly by {size} processes; give a multiple of "
                f"{size}, or another number of GPUs"
            )
    return Team(context.rank, size)


def _load_flow(config: SelfPoseConfig, context: TrialContext) -> PosePrior | None:
    if config.mode == "supervised" or config.loss_weights.flow == 0:
        return None
    if "flow" not in context.products:
        raise BadInputError("the trial needs the product of the stage `flow`, which was not given")
    return load_pose_prior(context.products["flow"]).to(context.device)
