"""Teaches the reader of bodies, and lets it read the masks of images.

Frame: crop coordinates. Shape letters: N poses or images, B batch, J joints.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selfpose.data.pictures.images import ImageFeed
from selfpose.method.geometry import pose_distance, pose_distances
from selfpose.method.skeleton import Layout
from selfpose.networks.body_reader import BodyReader
from selfpose.training.bodies.distortion import draw_distortions
from selfpose.training.bodies.drawing import BodyRenderer
from selfpose.training.bodies.recombination import recombine
from selfpose.training.bodies.shapes import BodyShape
from selfpose.training.checkpoint import TrainingState
from selfpose.training.stages.part import StagePart
from selfpose.training.stages.pretraining import Pretraining, pretrain

__all__ = ["read_masks", "reading_loss", "train_reader"]

_ROWS_AT_ONCE = 256


def train_reader(
    reader: BodyReader,
    poses_nj2: Tensor,
    *,
    layout: Layout,
    shape: BodyShape,
    renderer: BodyRenderer,
    settings: Pretraining,
    generator: torch.Generator,
    part: StagePart,
) -> None:
    """Teach a network to read drawn bodies, on the device of the poses.

    Where the drawings do not tell sides, left and right may be read the wrong way round.

    Args:
        reader: changed in place.
        poses_nj2: the prior's 2D poses (N, J, 2), crop coordinates.
        layout: of their joints.
        shape: says which limbs may come from another pose, and how far bodies are turned.
        renderer: draws the bodies.
        settings: steps, bodies in each, rate and clipping.
        generator: of the CPU; draws poses and distortions.
        part: takes the steps.
    """

    def loss() -> Tensor:
        pick = torch.randint(len(poses_nj2), (settings.batch_size,), generator=generator)
        u_bj2 = poses_nj2[pick.to(poses_nj2.device)]
        u_bj2 = recombine(u_bj2, layout=layout, shape=shape, generator=generator)
        distortion = draw_distortions(len(u_bj2), generator, turn=shape.turn)
        u_bj2 = distortion.to(u_bj2.device).poses(u_bj2)
        return reading_loss(
            reader(renderer(u_bj2)), u_bj2, layout=layout, tells_sides=renderer.tells_sides
        )

    pretrain([reader], loss, settings=settings, generator=generator, part=part)


def reading_loss(
    read_bj2: Tensor, drawn_bj2: Tensor, *, layout: Layout, tells_sides: bool
) -> Tensor:
    """Return the mean distance of read joints from those that were drawn, (), crop coordinates.

    Args:
        read_bj2: poses that were read in drawings (B, J, 2), crop coordinates.
        drawn_bj2: the poses that were drawn (B, J, 2), crop coordinates.
        layout: of their joints.
        tells_sides: whether a drawing shows which side is which. If not, each pose is compared with
            the nearer one of the drawn pose and the same with left and right exchanged.
    """
    if tells_sides:
        return pose_distance(read_bj2, drawn_bj2)
    swapped_bj2 = drawn_bj2[:, list(layout.mirror)]
    distance_b = pose_distances(read_bj2, drawn_bj2)
    return torch.minimum(distance_b, pose_distances(read_bj2, swapped_bj2)).mean()


@torch.no_grad()
def read_masks(reader: BodyReader, feed: ImageFeed, *, part: StagePart) -> Tensor:
    """Return the 2D poses that a reader sees in all masks of a feed.

    Args:
        reader: taught.
        feed: gives the masks of N images.
        part: takes the steps, each of some rows.

    Returns:
        The poses (N, J, 2), crop coordinates, on the reader's device.

    Raises:
        ValueError: the feed gives no masks.
    """
    reader.eval()
    device = next(reader.parameters()).device
    read_nj2 = torch.zeros((len(feed), reader.joints, 2), device=device)

    def step(number: int) -> None:
        first = number * _ROWS_AT_ONCE
        rows_b = torch.arange(first, min(first + _ROWS_AT_ONCE, len(feed)))
        _, masks_b1ss = feed.fetch(rows_b)
        if masks_b1ss is None:
            raise ValueError("the feed gives no masks to be read")
        read_nj2[rows_b.to(device)] = reader(masks_b1ss)

    part.run(
        step,
        steps=-(-len(feed) // _ROWS_AT_ONCE),
        state=TrainingState({}, {}, {}, {"joints_2d": read_nj2}),
        told_every=1,
    )
    return read_nj2
