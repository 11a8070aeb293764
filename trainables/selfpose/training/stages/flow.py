"""Builds the stage `flow`: the prior of 2D poses, fitted by maximum likelihood and then frozen."""

from __future__ import annotations

from pathlib import Path

from posetune.api import Progress
from selfpose.data.store import open_store
from selfpose.method.flow import FlowTraining, fit_pose_prior, save_pose_prior
from selfpose.method.geometry import head_distance, normalise_pose
from selfpose.networks.initialisation import seeded
from selfpose.training.prior import prior_poses
from selfpose.training.stages.inputs import StageInputs

__all__ = ["READS", "build"]

READS = (
    "mirror_prior",
    "flow.depth",
    "flow.pca_dimensions",
    "flow.hidden",
    "flow.steps",
    "flow.batch_size",
    "flow.learning_rate",
    "flow.weight_decay",
    "flow.noise",
)


def build(inputs: StageInputs, folder: Path, progress: Progress) -> None:
    """Write the prior into a folder; `method.flow.load_pose_prior` reads it."""
    fields, store = inputs.fields, open_store(inputs.store)
    poses_nj2 = prior_poses(store, mirrored=fields["mirror_prior"])
    h = head_distance(poses_nj2, store.layout.root, store.layout.head)
    training = FlowTraining(
        depth=fields["flow.depth"],
        components=fields["flow.pca_dimensions"],
        hidden=fields["flow.hidden"],
        steps=fields["flow.steps"],
        batch_size=fields["flow.batch_size"],
        learning_rate=fields["flow.learning_rate"],
        weight_decay=fields["flow.weight_decay"],
        noise=fields["flow.noise"],
    )
    with seeded(inputs.seed):
        prior, loss = fit_pose_prior(
            normalise_pose(poses_nj2, store.layout.root, h).to(inputs.device),
            training,
            seed=inputs.seed,
            progress=progress,
        )
    save_pose_prior(prior, folder, loss=loss)
