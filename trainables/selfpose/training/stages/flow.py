"""Builds the stage `flow`: the prior of 2D poses, fitted by maximum likelihood and then frozen."""

from __future__ import annotations

from pathlib import Path

from posetune.api import Progress, StageWork
from selfpose.data.store import open_store
from selfpose.method.flow import FlowTraining, PriorFit, save_pose_prior
from selfpose.method.geometry import head_distance, normalise_pose
from selfpose.networks.initialisation import seeded
from selfpose.training.checkpoint import TrainingState
from selfpose.training.prior import prior_poses
from selfpose.training.stages.inputs import StageInputs
from selfpose.training.stages.part import StagePart

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


def build(inputs: StageInputs, folder: Path, progress: Progress, work: StageWork) -> None:
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
    normalised_nj2 = normalise_pose(poses_nj2, store.layout.root, h).to(inputs.device)
    with seeded(inputs.seed):
        fit = PriorFit(normalised_nj2, training, seed=inputs.seed)
    StagePart("steps", progress, work).run(
        fit.step,
        steps=training.steps,
        state=TrainingState(
            {"flow": fit.flow},
            {"adam": fit.optimiser},
            {"draws": fit.generator},
            {"last": fit.last_t},
        ),
        note="surprise {:.2f} nats",
    )
    prior, loss = fit.finish()
    save_pose_prior(prior, folder, loss=loss)
