"""Lifting mode: Lambda alone, on the prior's true 2D poses; and the round trip of all modes.

Frames and units: as in `geometry`.
Shape letters: B poses that this process lifts, A those of all processes, J joints, E limbs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfpose.config import SelfPoseConfig
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
from selfpose.method.losses import weighted_sum
from selfpose.training.acceleration import Branches
from selfpose.training.data_parallel import Team
from selfpose.training.modes.terms import Losses, Terms, Weights, computed_terms
from selfpose.training.optimiser import take_step

__all__ = ["LiftingMode", "PriorPoses", "RoundTrip"]


class PriorPoses(NamedTuple):
    """The 2D poses of the prior (N, J, 2), crop coordinates, on the trial's device."""

    poses_nj2: Tensor

    def draw(self, count: int, order: torch.Generator) -> Tensor:
        """Return `count` of them (count, J, 2), drawn by a generator of the CPU."""
        pick = torch.randint(len(self.poses_nj2), (count,), generator=order)
        return self.poses_nj2[pick.to(self.poses_nj2.device, non_blocking=True)]


class RoundTrip:
    """Lifts 2D poses, turns them, projects them, lifts them again and turns them back."""

    def __init__(
        self,
        config: SelfPoseConfig,
        model: PoseModel,
        *,
        bone_ratios: Sequence[float],
        prior: PosePrior | None,
        generator: torch.Generator,
        team: Team,
    ) -> None:
        """Keep what the trip needs.

        Args:
            config: the kind of elevation and the prior's share of outliers.
            model: has Lambda, the layout and h.
            bone_ratios: usual length of each limb over the mean limb's (E,), no unit.
            prior: the frozen flow, or None if no term takes it.
            generator: of the poses' device; draws the virtual cameras.
            team: who trains; the cameras and the pairs of poses are those of the whole batch.
        """
        self.config, self.model, self.prior = config, model, prior
        self.bone_ratios = bone_ratios
        self.generator, self.team = generator, team

    def tell(self, losses: Losses, poses_aj2: Tensor) -> Tensor:
        """Tell the losses everything on the way; return the spread of the elevations, (), radians.

        Args:
            losses: compute their terms meanwhile.
            poses_aj2: 2D poses of all processes (A, J, 2), crop coordinates; each lifts its share.
        """
        model, team = self.model, self.team
        normalised_bj2 = normalise_pose(team.share(poses_aj2), model.layout.root, model.h)
        offsets_bj, own_elevation_b = model.lifter(normalised_bj2)
        poses_bj3 = lift(normalised_bj2, offsets_bj)
        elevation_a = team.gather(own_elevation_b)
        rotations_a33 = draw_rotations(
            elevation_a, self.generator, kind=self.config.lifting.elevation
        )
        rotations_b33 = team.share(rotations_a33)
        turned_bj3 = rotate(rotations_b33, poses_bj3)
        seen_bj2 = project(turned_bj3)
        again_bj3 = lift(seen_bj2, model.lifter.offsets(seen_bj2))
        losses.know(
            normalised_bj2=normalised_bj2,
            poses_bj3=poses_bj3,
            turned_bj3=turned_bj3,
            seen_bj2=seen_bj2,
            lifted_again_bj3=again_bj3,
            reprojected_bj2=project(rotate_back(rotations_b33, again_bj3)),
            poses_aj3=team.gather(poses_bj3),
            lifted_again_aj3=team.gather(again_bj3),
            rotations_a33=rotations_a33,
        )
        if self.prior is not None:
            outlier_share = self.config.flow.outlier_share
            losses.know(surprisal_b=self.prior(seen_bj2, outlier_share=outlier_share))
        layout = model.layout
        losses.know(limbs=layout.limbs, limb_pairs=layout.limb_pairs, bone_ratios=self.bone_ratios)
        return elevation_a.detach().std()


class LiftingMode:
    """Trains Lambda on true 2D poses of the prior."""

    def __init__(
        self,
        config: SelfPoseConfig,
        *,
        round_trip: RoundTrip,
        poses: PriorPoses,
        optimiser: torch.optim.Optimizer,
    ) -> None:
        """Keep what a step needs; the optimiser has Lambda."""
        self.config, self.round_trip, self.poses = config, round_trip, poses
        self.optimiser = optimiser
        self.terms = computed_terms(config)
        self.weights = Weights(config, poses.poses_nj2.device)

    def draw_batch(self, order: torch.Generator) -> tuple[Tensor]:
        """Draw the poses of a step (A, J, 2), crop coordinates."""
        return (self.poses.draw(self.config.batch_size, order),)

    def prepare(self, steps: int) -> object:
        """Set the weights after so many steps; every step runs the same kernels."""
        self.weights.set(steps)
        return None

    def step(self, batch: tuple[Any, ...], branches: Branches) -> Terms:
        """Take one step, on the device alone; return what it reports."""
        (poses_aj2,) = batch
        losses = Losses(self.terms)
        spread = self.round_trip.tell(losses, poses_aj2)
        terms = losses.finish()
        total = weighted_sum(terms, self.weights.by_name)
        take_step(self.optimiser, total, clip=self.config.gradient_clip, team=self.round_trip.team)
        return {**terms, "elevation_spread": spread, "total": total}
