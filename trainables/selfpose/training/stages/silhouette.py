"""Builds the stage `silhouette`: Phi, taught to output foreground masks; ours, not the paper's.

Frames and units: as in `images`.
Shape letters: B batch, S image side in pixels.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from posetune.api import Progress, StageWork
from selfpose.data.pictures.images import ImageFeed, open_feed
from selfpose.data.store import open_store
from selfpose.networks.initialisation import seeded
from selfpose.networks.phi import Phi
from selfpose.training.stages.inputs import StageInputs
from selfpose.training.stages.part import StagePart
from selfpose.training.stages.pretraining import Pretraining, pretrain, save_network

__all__ = ["READS", "WEIGHTS_FILE", "build", "pretrain_phi"]

READS = (
    "pretrain_silhouette",
    "pretrain_learning_rate",
    "batch_size",
    "gradient_clip",
    "image_size",
    "width",
    "narrowest_px",
    "silhouette_hue",
)
WEIGHTS_FILE = "phi.safetensors"


def build(inputs: StageInputs, folder: Path, progress: Progress, work: StageWork) -> None:
    """Write Phi's weights into a folder."""
    fields, device = inputs.fields, inputs.device
    with seeded(inputs.seed):
        phi = Phi(
            fields["width"], image_size=fields["image_size"], narrowest=fields["narrowest_px"]
        ).to(device)
    train = open_store(inputs.store).split("train")
    feed = open_feed(train, fields["image_size"], with_masks=True, device=device)
    pretrain_phi(
        phi,
        feed.with_hue(fields["silhouette_hue"]),
        settings=Pretraining.of(fields, steps=fields["pretrain_silhouette"]),
        generator=torch.Generator().manual_seed(inputs.seed),
        part=StagePart("steps", progress, work),
    )
    save_network(phi, folder / WEIGHTS_FILE)


def pretrain_phi(
    phi: Phi,
    feed: ImageFeed,
    *,
    settings: Pretraining,
    generator: torch.Generator,
    part: StagePart,
) -> None:
    """Teach Phi to output the foreground mask, on the device of the feed.

    Args:
        phi: changed in place.
        feed: images with masks.
        settings: steps, batch, rate and clipping.
        generator: of the CPU; draws the images.
        part: takes the steps.
    """

    def loss() -> Tensor:
        pick = torch.randint(len(feed), (settings.batch_size,), generator=generator)
        images_b3ss, masks_b1ss = feed.fetch(pick)
        return (phi(images_b3ss) - masks_b1ss).square().mean()

    pretrain([phi], loss, settings=settings, generator=generator, part=part)
