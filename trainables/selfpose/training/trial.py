"""One trial's training: its networks, data, random numbers and counters.

`Trial.train` runs an epoch of steps, `Trial.validate` scores the present networks. What a step is
depends on the mode, see `training.modes`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posetune.api import BadInputError, Progress, TrialContext
from selfpose.config import SelfPoseConfig
from selfpose.data.pictures.images import images_to_input, open_feed
from selfpose.data.store import Store, open_store
from selfpose.evaluation.figures import SheetRow, draw_sheet
from selfpose.inference import ImagePoseModel, build_model, unit_bones
from selfpose.method.flow import PosePrior, load_pose_prior
from selfpose.method.geometry import head_distance
from selfpose.method.losses import TRAINING_METRICS
from selfpose.method.metrics import error_2d_px, validation_metrics
from selfpose.networks import D
from selfpose.networks.initialisation import seeded
from selfpose.training.acceleration import PLAIN, Acceleration, Branches, accelerate
from selfpose.training.checkpoint import TrainingState, load_state, save_state
from selfpose.training.data_parallel import Team, share_statistics
from selfpose.training.health import check_discriminator, check_finite, check_spread
from selfpose.training.modes.complete import CompleteMode, Optimisers
from selfpose.training.modes.lifting import LiftingMode, PriorPoses, RoundTrip
from selfpose.training.modes.supervised import SupervisedMode, read_labels
from selfpose.training.modes.terms import Terms
from selfpose.training.optimiser import CosineRates, make_optimiser
from selfpose.training.prior import prior_poses
from selfpose.training.renderers import Renderers
from selfpose.training.stages.bodies import load_read_poses
from selfpose.training.stages.needed import load_shared_weights
from selfpose.training.validation import ValidationFrames
from selfpose.whole_files import write_whole

__all__ = ["Mode", "Trial"]

_REPORTED = tuple(TRAINING_METRICS)
"""Names of what training reports: means over an epoch before weighing, 0 for terms left out."""

_REPORTED_BEFORE = (
    "adversarial",
    "keypoint",
    "flow",
    "reprojection_2d",
    "consistency_3d",
    "deformation",
    "bone",
    "silhouette",
    "total",
    "discriminator",
    "elevation_spread",
)
"""Names of the sums in older checkpoints, which hold them without names, in that order."""

_COLLAPSE_AFTER_STEPS = 200
"""Number of steps before which a constant output does not yet mean a collapse."""

_ROWS_AT_ONCE = 256
_DRAWN_FRAMES = 8


class Mode(Protocol):
    """Trains one kind of model: there is one class for each `mode` of a configuration."""

    def draw_batch(self, order: torch.Generator) -> tuple[Tensor | None, ...]:
        """Draw this process' share of a batch, by a generator of the CPU."""

    def prepare(self, steps: int) -> object:
        """Set what changes from step to step, on the device; return which kernels will run."""

    def step(self, batch: tuple[Any, ...], branches: Branches) -> Terms:
        """Take one step, on the device alone; return what it reports."""


class Trial:
    """Trains and validates the networks of one trial."""

    def __init__(self, config: SelfPoseConfig, context: TrialContext) -> None:
        """Build everything; nothing is trained yet.

        Raises:
            BadInputError: the store does not fit the configuration.
        """
        self.config, self.context = config, context
        self.team = _make_team(config, context)
        self.device = torch.device(context.device)
        store = open_store(context.store)
        prior_nj2 = prior_poses(store, mirrored=config.mirror_prior)
        layout, self.bone_ratios = store.layout, store.bone_ratios
        judge: D | None = None
        with seeded(context.seed):
            h = head_distance(prior_nj2, layout.root, layout.head)
            self.model = build_model(config, layout, h=h)
            if config.mode == "complete":
                judge = D(config.discriminator.width, image_size=config.image_size)
        self.networks: dict[str, nn.Module] = {"model": self.model}
        if judge is not None:
            self.networks["judge"] = judge
        load_shared_weights(self.model, context.products)
        self._place_networks()
        self.prior_nj2 = prior_nj2.to(self.device)
        self.flow = _load_flow(config, context)
        self.validation = ValidationFrames(store, config)
        self.order = torch.Generator().manual_seed(context.seed)
        self.noise = torch.Generator(self.device).manual_seed(context.seed + 1)
        self.optimisers = self._make_optimisers()
        self.rates = CosineRates(self.optimisers.values(), decay_steps=config.decay_steps)
        self.acceleration = self._accelerate()
        self.mode = self._make_mode(judge, store)
        self.steps = self.epochs = 0
        self.position = 0
        """Number of steps done of the epoch under way."""
        self.sums = torch.zeros(len(_REPORTED), device=self.device)
        """Sums of all reported quantities over these steps."""

    def train(self, progress: Progress) -> dict[str, float]:
        """Run what is left of `steps_per_epoch` steps and return the mean of all they report.

        What `progress` raises passes; the epoch can be saved and continued then.

        Raises:
            TrialFailedError: a term is not finite any more, or D has nothing left to learn.
        """
        self.model.train()
        total = self.config.steps_per_epoch
        while self.position < total:
            if self.position % max(1, total // 50) == 0:
                progress(self.position, total)
            self.rates.set(self.steps)
            phase = self.mode.prepare(self.steps)
            batch = self.mode.draw_batch(self.order)
            self.sums += self.acceleration.take(self._step, batch, phase=phase)
            self.steps += 1
            self.position += 1
        progress(total, total)
        means = dict(zip(_REPORTED, (self.sums / total).tolist(), strict=True))
        self.epochs += 1
        self.position = 0
        self.sums.zero_()
        check_finite(means, self.epochs)
        if "discriminator" in self.config.needs:
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
        """Predict the validation frames.

        Returns:
            The 2D poses (N, J, 2), crop coordinates; the 3D poses (N, J, 3); and the 3D poses
            (N, J, 3) that Lambda lifts from the true 2D poses; 3D with mean limb length 1.
        """
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
        write_whole(out, draw_sheet(rows, layout=self.model.layout, title=title))

    def save(self, folder: Path) -> None:
        """Write everything that an exact continuation needs."""
        sums = dict(zip(_REPORTED, self.sums.tolist(), strict=True))
        counters = {"steps": self.steps, "epochs": self.epochs, "position": self.position}
        save_state(self._state(), {**counters, "sums": sums}, folder)

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote.

        Raises:
            BadInputError: it was written by another configuration.
        """
        counters = load_state(self._state(), folder)
        self.acceleration.forget()
        self.steps, self.epochs = counters["steps"], counters["epochs"]
        self.position = counters["position"]
        sums = counters["sums"]
        if isinstance(sums, list):
            sums = dict(zip(_REPORTED_BEFORE, sums, strict=True))
        self.sums.copy_(torch.tensor([sums.get(name, 0.0) for name in _REPORTED]))

    def _state(self) -> TrainingState:
        generators = {"order": self.order, "noise": self.noise}
        return TrainingState(self.networks, self.optimisers, generators)

    def _step(self, batch: tuple[Any, ...]) -> Tensor:
        """Take one step, on the device alone; return all that is reported, in order."""
        terms = self.mode.step(batch, self.acceleration.branches)
        zero = self.sums.new_zeros(())
        reported = torch.stack([terms.get(name, zero).detach() for name in _REPORTED])
        self.team.average([reported])
        return reported

    def _convolutional(self) -> list[nn.Module]:
        """Return Phi, Omega and D, or those of them that are trained."""
        found: list[nn.Module] = []
        if isinstance(self.model, ImagePoseModel):
            found += [self.model.phi, self.model.omega]
        if "judge" in self.networks:
            found.append(self.networks["judge"])
        return found

    def _place_networks(self) -> None:
        if isinstance(self.model, ImagePoseModel):
            share_statistics(self.model.phi, self.team)
        for network in self.networks.values():
            network.to(self.device)
        if self.device.type == "cuda":  # bf16 convolutions want channels together
            for network in self._convolutional():
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _make_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        rate = self.config.learning_rate
        groups: list[tuple[nn.Module, float]] = []
        if isinstance(self.model, ImagePoseModel):
            groups += [(self.model.phi, rate), (self.model.omega, rate)]
        groups.append((self.model.lifter, rate * self.config.lifting.learning_rate_ratio))
        optimisers = {"model": make_optimiser(groups)}
        if "judge" in self.networks:
            judge_rate = rate * self.config.discriminator.learning_rate_ratio
            optimisers["judge"] = make_optimiser([(self.networks["judge"], judge_rate)])
        return optimisers

    def _accelerate(self) -> Acceleration:
        if self.device.type != "cuda" or not self.config.replay or self.team.size > 1:
            return PLAIN
        return accelerate(
            self._convolutional(),
            self.optimisers.values(),
            device=self.device,
            generators=[self.noise],
        )

    def _make_mode(self, judge: D | None, store: Store) -> Mode:
        config, model, poses = self.config, self.model, PriorPoses(self.prior_nj2)
        round_trip = RoundTrip(
            config,
            model,
            bone_ratios=self.bone_ratios,
            prior=self.flow,
            generator=self.noise,
            team=self.team,
        )
        if not isinstance(model, ImagePoseModel):
            return LiftingMode(
                config, round_trip=round_trip, poses=poses, optimiser=self.optimisers["model"]
            )
        feed = open_feed(
            store.split("train"),
            config.image_size,
            with_masks="masks" in config.needs,
            device=self.device,
            gpu_share=self.context.gpu_share,
        ).with_hue(config.silhouette_hue)
        if judge is None:
            return SupervisedMode(
                config,
                model,
                feed=feed,
                labels=read_labels(store.split("train"), store.layout, self.device),
                optimiser=self.optimisers["model"],
                team=self.team,
            )
        return CompleteMode(
            config,
            model,
            judge,
            renderers=Renderers.of(config, store.layout, self.device),
            round_trip=round_trip,
            feed=feed,
            poses=poses,
            optimisers=Optimisers(**self.optimisers),
            mask_joints_nj2=self._load_read_poses(),
        )

    def _load_read_poses(self) -> Tensor | None:
        """Return the poses (N, J, 2) that were read in the training masks, if a term takes them."""
        if "bodies" not in self.config.needs:
            return None
        if "bodies" not in self.context.products:
            raise BadInputError(
                "the trial's context holds no product of the stage `bodies`; build the stages that "
                "SelfPose.stages lists first"
            )
        return load_read_poses(self.context.products["bodies"]).to(self.device)


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
    if "flow" not in config.needs:
        return None
    if "flow" not in context.products:
        raise BadInputError(
            "the trial's context holds no product of the stage `flow`; build the stages that "
            "SelfPose.stages lists first"
        )
    return load_pose_prior(context.products["flow"]).to(context.device)
