"""Every term that training minimises, in one table; none needs a label.

Read `LOSS_TERMS` first: it names each term, its function, its weight and what it asks for. A term
is one pure function of tensors. Its parameters have names from `Quantities`, by which a training
step knows what to hand it. The configuration's `loss_weights`, the metrics `train/<name>`, the
stages and the steps all read the table: a new term is one function and one entry
(docs/extend/loss-term.md).

Frames and units: as in `geometry`. 2D poses are in crop coordinates or normalised, 3D poses in
the body frame or a virtual camera's, in head-to-root lengths.
Shape letters: B images and poses of this process, A poses of all processes, J joints, E limbs,
S image side in pixels, P side of a map of patches.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posetune.api import Metric
from selfpose.method.geometry import pose_distance, rotate_back
from selfpose.method.quantities import Need, needs_of, quantity_names

__all__ = [
    "LOSS_TERMS",
    "TRAINING_METRICS",
    "LossTerm",
    "bone_loss",
    "consistency_3d_loss",
    "deformation_loss",
    "discriminator_loss",
    "flow_loss",
    "keypoint_loss",
    "read_loss",
    "realness_loss",
    "reprojection_2d_loss",
    "silhouette_loss",
    "symmetry_loss",
    "weighted_sum",
]


def realness_loss(judged: Sequence[Tensor]) -> Tensor:
    """Return how far D's maps are from calling skeletons real (LSGAN).

    Args:
        judged: D's maps, one (B, 1, P, P) a scale, no unit; real near 1 and fake near 0.

    Returns:
        Mean over the scales of each scale's mean squared difference from 1, (), no unit, >= 0.
    """
    return torch.stack([(j.float() - 1.0).square().mean() for j in judged]).mean()


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Return D's own loss: half for real called fake, half for fake called real.

    Args:
        real: D's maps of rendered prior poses, one (B, 1, P, P) a scale, no unit.
        fake: D's maps of Phi's skeletons, one (B, 1, P, P) a scale, no unit.

    Returns:
        The loss, (), no unit, >= 0; .25 where D only guesses.
    """
    called_real = torch.stack([j.float().square().mean() for j in fake]).mean()
    return 0.5 * realness_loss(real) + 0.5 * called_real


def keypoint_loss(
    read_bj2: Tensor,
    prior_bj2: Tensor,
    redrawn_b1ss: Tensor,
    redrawing_target_b1ss: Tensor,
    redrawing_share: float,
) -> Tensor:
    """Return how badly Omega reads rendered poses, and how badly its reading redraws skeletons.

    Args:
        read_bj2: joints that Omega reads in rendered prior poses (B, J, 2), crop coordinates.
        prior_bj2: those prior poses (B, J, 2), crop coordinates.
        redrawn_b1ss: Omega's joints of Phi's skeletons, rendered (B, 1, S, S), in [-1, 1].
        redrawing_target_b1ss: Phi's skeletons (B, 1, S, S), about [-1, 1].
        redrawing_share: weight of the second part, 0 to 1; the first has the rest.

    Returns:
        The weighted mean of two mean squared differences, (), no unit, >= 0.
    """
    reading = (read_bj2 - prior_bj2).square().mean()
    redrawing = (redrawn_b1ss - redrawing_target_b1ss).square().mean()
    return (1.0 - redrawing_share) * reading + redrawing_share * redrawing


def silhouette_loss(body_b1ss: Tensor, masks_b1ss: Tensor) -> Tensor:
    """Return how badly a pose, rendered broadly, covers the foreground; not in the paper.

    Args:
        body_b1ss: the pose rendered broadly (B, 1, S, S), in [-1, 1].
        masks_b1ss: the foreground (B, 1, S, S), 1 on the person and -1 elsewhere.

    Returns:
        Mean squared difference, (), no unit, >= 0.
    """
    return (body_b1ss - masks_b1ss).square().mean()


def read_loss(
    joints_bj2: Tensor,
    mask_joints_bj2: Tensor,
    skeletons_b1ss: Tensor,
    mask_skeletons_b1ss: Tensor,
) -> Tensor:
    """Return how far pose and skeleton are from those read in the masks; not in the paper.

    Args:
        joints_bj2: joints that Omega reads in Phi's skeletons (B, J, 2), crop coordinates.
        mask_joints_bj2: joints that were read in the images' masks (B, J, 2), crop coordinates.
        skeletons_b1ss: Phi's skeletons (B, 1, S, S), about [-1, 1].
        mask_skeletons_b1ss: `mask_joints_bj2`, rendered (B, 1, S, S), in [-1, 1].

    Returns:
        Mean distance of joints and mean squared difference of skeletons, summed, (), no unit.
    """
    redrawn = (skeletons_b1ss - mask_skeletons_b1ss).square().mean()
    return pose_distance(joints_bj2, mask_joints_bj2) + redrawn


def reprojection_2d_loss(reprojected_bj2: Tensor, normalised_bj2: Tensor) -> Tensor:
    """Return the round trip's error in the image plane.

    Args:
        reprojected_bj2: the pose lifted, turned, projected, lifted, turned back and projected
            (B, J, 2), normalised.
        normalised_bj2: the pose it began as (B, J, 2), normalised.

    Returns:
        Mean over poses of the L1 norm over joints and axes, (), normalised, >= 0.
    """
    return (reprojected_bj2 - normalised_bj2).abs().sum(dim=(1, 2)).mean()


def consistency_3d_loss(turned_bj3: Tensor, lifted_again_bj3: Tensor) -> Tensor:
    """Return how far a turned pose is from what is lifted from its projection.

    Args:
        turned_bj3: lifted and turned poses (B, J, 3), virtual camera's frame, head-to-root lengths.
        lifted_again_bj3: lifted from their projections (B, J, 3), the same frame and unit.

    Returns:
        Mean over poses of the L2 norm over joints and axes, (), head-to-root lengths, >= 0.
    """
    return _norm(turned_bj3 - lifted_again_bj3).mean()


def deformation_loss(poses_aj3: Tensor, lifted_again_aj3: Tensor, rotations_a33: Tensor) -> Tensor:
    """Return how much the difference of two poses changes on the round trip.

    The pairs are the first and the second half of the batch; an odd pose is left out.

    Args:
        poses_aj3: lifted poses (A, J, 3), body frame, head-to-root lengths.
        lifted_again_aj3: lifted from the turned poses' projections (A, J, 3), virtual camera's
            frame, head-to-root lengths.
        rotations_a33: rotations (A, 3, 3) from the body frame to the virtual camera's frame.

    Returns:
        Mean over pairs of the L2 norm over joints and axes, (), head-to-root lengths, >= 0.
    """
    half = len(poses_aj3) // 2
    error_aj3 = poses_aj3 - rotate_back(rotations_a33, lifted_again_aj3)
    return _norm(error_aj3[:half] - error_aj3[half : 2 * half]).mean()


def flow_loss(surprisal_b: Tensor) -> Tensor:
    """Return how unlikely re-projected poses are under the prior.

    Args:
        surprisal_b: negative log-likelihood under the frozen flow (B,), nats.

    Returns:
        Its mean, (), nats.
    """
    return surprisal_b.mean()


def bone_loss(
    poses_bj3: Tensor, limbs: Sequence[tuple[int, int]], bone_ratios: Sequence[float]
) -> Tensor:
    """Penalise limbs whose length, over the mean limb's, is unusual.

    Free of scale: multiplying `poses_bj3` by a constant leaves the loss as it is.

    Args:
        poses_bj3: poses (B, J, 3), body frame, any length unit.
        limbs: the two joints of each of the E limbs.
        bone_ratios: usual length of each limb over the mean limb's (E,), no unit.

    Returns:
        Mean over poses of the summed squared differences of the ratios, (), no unit, >= 0.
    """
    usual_e = _constant(tuple(bone_ratios), torch.float64, poses_bj3.device).to(poses_bj3.dtype)
    return (usual_e - _relative_lengths(poses_bj3, limbs)).square().sum(dim=1).mean()


def symmetry_loss(
    poses_bj3: Tensor, limbs: Sequence[tuple[int, int]], limb_pairs: Sequence[tuple[int, int]]
) -> Tensor:
    """Penalise limbs that are longer on one side of the body than on the other; not in the paper.

    Free of scale: multiplying `poses_bj3` by a constant leaves the loss as it is.

    Args:
        poses_bj3: poses (B, J, 3), body frame, any length unit.
        limbs: the two joints of each of the E limbs.
        limb_pairs: indices in `limbs` of each limb and of the same one on the other side; without
            any the loss is 0.

    Returns:
        Mean over poses of the mean difference in length of a pair, over the mean limb's length,
        (), no unit, >= 0.
    """
    if not limb_pairs:
        return 0.0 * poses_bj3.sum()
    relative_be = _relative_lengths(poses_bj3, limbs)
    pairs_p2 = _constant(tuple(limb_pairs), torch.int64, poses_bj3.device)
    return (relative_be[:, pairs_p2[:, 0]] - relative_be[:, pairs_p2[:, 1]]).abs().mean()


def _relative_lengths(poses_bj3: Tensor, limbs: Sequence[tuple[int, int]]) -> Tensor:
    """Return the length of each limb over the mean limb's (B, E), no unit."""
    ends_e2 = _constant(tuple(limbs), torch.int64, poses_bj3.device)
    length_be = (poses_bj3[:, ends_e2[:, 0]] - poses_bj3[:, ends_e2[:, 1]]).norm(dim=-1)
    return length_be / length_be.mean(dim=1, keepdim=True).clamp(min=1e-8)


@functools.cache
def _constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers as a tensor; a step would wait for its device if it copied them every time."""
    with torch.inference_mode(False):  # else a first use under it would spoil later training
        return torch.tensor(values, dtype=dtype, device=device)


def _norm(difference_bj3: Tensor) -> Tensor:
    """Return the norm over joints and axes (B,); its gradient at zero is zero."""
    return difference_bj3.flatten(1).norm(dim=1)


@dataclass(frozen=True)
class LossTerm:
    """One term of the sum that Phi, Omega and Lambda minimise."""

    name: str
    """Names the weight's field `loss_weights.<name>` and the metric `train/<name>`."""
    function: Callable[..., Tensor]
    """The term before weighing; its parameters have names from `Quantities`."""
    asks: str
    """What the term asks for, as it continues "the term asks that"."""
    weight: float = 1.0
    """The weight unless a configuration gives another one."""
    largest_weight: float = 100.0
    unit: str = "1"
    always: bool = False
    """Whether it is computed and reported even without a weight; it costs next to nothing."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.takes if name not in quantity_names()]
        if unknown:
            raise ValueError(
                f"loss term {self.name}: {self.function.__name__} takes {', '.join(unknown)}, but "
                f"a training step knows only {', '.join(quantity_names())}; use one of these "
                "names, or let the steps compute a new quantity (selfpose.method.quantities)"
            )

    @functools.cached_property
    def takes(self) -> tuple[str, ...]:
        """The quantities that the function takes."""
        return tuple(inspect.signature(self.function).parameters)

    @functools.cached_property
    def needs(self) -> frozenset[Need]:
        """What a configuration must provide before the term can be computed."""
        return frozenset().union(*(needs_of(name) for name in self.takes))

    @property
    def metric(self) -> Metric:
        """What is reported of the term."""
        text = f"The {self.name} term before weighing, which asks that {self.asks}."
        return Metric(self.unit, "min", text)

    def compute(self, quantities: Mapping[str, Any]) -> Tensor:
        """Return the term before weighing, (), in `unit`.

        Args:
            quantities: at least those that it takes, by name.
        """
        return self.function(*(quantities[name] for name in self.takes))


LOSS_TERMS: tuple[LossTerm, ...] = (
    LossTerm(
        "adversarial",
        realness_loss,
        "the discriminator takes Phi's skeletons for rendered poses of the prior (LSGAN)",
    ),
    LossTerm(
        "keypoint",
        keypoint_loss,
        "Omega reads the joints that were rendered, and Phi's skeletons are redrawn from the "
        "joints that Omega reads in them",
        always=True,
    ),
    LossTerm(
        "silhouette",
        silhouette_loss,
        "the 2D pose, rendered broadly, covers the foreground mask (ours, not the paper's)",
        weight=0.0,
    ),
    LossTerm(
        "read",
        read_loss,
        "the 2D pose and Phi's skeleton are those that a reader of drawn bodies saw in the "
        "foreground mask (ours, not the paper's)",
        weight=0.0,
    ),
    LossTerm(
        "reprojection_2d",
        reprojection_2d_loss,
        "a pose that is lifted, turned, projected, lifted again and turned back projects to the "
        "2D pose it began as",
        always=True,
    ),
    LossTerm(
        "consistency_3d",
        consistency_3d_loss,
        "a turned pose equals what is lifted from its projection",
        unit="head lengths",
        always=True,
    ),
    LossTerm(
        "deformation",
        deformation_loss,
        "the difference between two poses of a batch stays the same after rotation and a second "
        "lifting",
        unit="head lengths",
        always=True,
    ),
    LossTerm(
        "flow",
        flow_loss,
        "re-projected poses are likely under the prior of 2D poses",
        unit="nats",
    ),
    LossTerm(
        "bone",
        bone_loss,
        "the relative lengths of a pose's limbs are the usual ones (ElePose weighs this with 50)",
        weight=0.0,
        largest_weight=1000.0,
    ),
    LossTerm(
        "symmetry",
        symmetry_loss,
        "limbs are as long on the left as on the right (ours, not the paper's)",
        weight=0.0,
    ),
)
"""All loss terms, in the order in which a step adds them up; another rounds differently."""

TRAINING_METRICS: Mapping[str, Metric] = {
    **{term.name: term.metric for term in LOSS_TERMS},
    "total": Metric("1", "min", "The weighted sum of the loss terms, which training minimises."),
    "discriminator": Metric(
        "1", "max", "The discriminator's own loss; near 0 it has nothing left to teach."
    ),
    "elevation_spread": Metric(
        "rad", "max", "The standard deviation of the predicted camera elevations of a batch."
    ),
}
"""What a step reports, by name; 0 where a term is left out. The metrics are `train/<name>`."""


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]) -> Tensor:
    """Return the sum of the terms that have a weight, each times it (Equation 12).

    Args:
        terms: the terms of a step before weighing, each (), by name.
        weights: the weight of every term of the table, no unit, by name; 0 leaves a term out. A
            weight that changes from step to step is a tensor (), which leaves no term out.

    Returns:
        The sum, (), no unit.
    """
    names = [
        term.name
        for term in LOSS_TERMS
        if term.name in terms and (isinstance(w := weights[term.name], Tensor) or w > 0)
    ]
    return torch.stack([weights[name] * terms[name] for name in names]).sum()
