"""The reader of bodies learns as its equations say, and reads masks one by one."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from posetune.api import StageWork, silent
from selfpose.data.pictures.images import ImageFeed, open_feed
from selfpose.data.store import open_store
from selfpose.method.skeleton import H36M_17
from selfpose.networks.body_reader import BodyReader
from selfpose.training.bodies.distortion import draw_distortions
from selfpose.training.bodies.drawing import BodyRenderer
from selfpose.training.bodies.reading import read_masks, reading_loss, train_reader
from selfpose.training.bodies.recombination import recombine
from selfpose.training.bodies.shapes import BODY_SHAPES
from selfpose.training.prior import prior_poses
from selfpose.training.stages.part import StagePart
from selfpose.training.stages.pretraining import Pretraining

SHAPE = BODY_SHAPES["h36m17"]
SETTINGS = Pretraining(steps=3, batch_size=6, learning_rate=1e-3, gradient_clip=0.5)
PART = StagePart("reader", silent, StageWork())


@pytest.fixture
def poses(tiny_store: Path) -> Tensor:
    return prior_poses(open_store(tiny_store), mirrored=False)


@pytest.fixture
def feed(tiny_store: Path) -> ImageFeed:
    train = open_store(tiny_store).split("train")
    return open_feed(train, 32, with_masks=True, device=torch.device("cpu")).with_hue(1)


@pytest.fixture
def reader(poses: Tensor) -> BodyReader:
    torch.manual_seed(0)
    return BodyReader(poses.mean(0), width=4)


def renderer(generator: torch.Generator, *, tells_sides: bool = True) -> BodyRenderer:
    return BodyRenderer(H36M_17, SHAPE, 32, tells_sides=tells_sides, generator=generator)


def learn_naively(
    reader: nn.Module, poses: Tensor, generator: torch.Generator, *, tells_sides: bool
) -> None:
    draw = renderer(generator, tells_sides=tells_sides)
    adam = torch.optim.Adam(reader.parameters(), betas=(0.5, 0.999), foreach=False, fused=False)
    for step in range(SETTINGS.steps):
        done = step / SETTINGS.steps
        adam.param_groups[0]["lr"] = SETTINGS.learning_rate * (1 + math.cos(math.pi * done)) / 2
        pick = torch.randint(len(poses), (SETTINGS.batch_size,), generator=generator)
        mixed = recombine(poses[pick], layout=H36M_17, shape=SHAPE, generator=generator)
        matrices, shifts = draw_distortions(SETTINGS.batch_size, generator)
        shown = torch.stack(
            [
                torch.stack([matrix @ joint + shift for joint in pose])
                for pose, matrix, shift in zip(mixed, matrices, shifts, strict=True)
            ]
        )
        distances = []
        for read, pose in zip(reader(draw(shown)), shown, strict=True):
            either = [pose] if tells_sides else [pose, pose[list(H36M_17.mirror)]]
            off = [(((read - one) ** 2).sum(-1) + 0.01**2) ** 0.5 for one in either]  # smooth at 0
            distances.append(torch.stack([each.mean() for each in off]).min())
        adam.zero_grad()
        (sum(distances) / len(distances)).backward()
        nn.utils.clip_grad_norm_(reader.parameters(), SETTINGS.gradient_clip, foreach=False)
        adam.step()


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("tells_sides", [True, False])
def test_the_reader_learns_what_a_naive_twin_learns(
    reader: BodyReader, poses: Tensor, tells_sides: bool
) -> None:
    twin, poses = copy.deepcopy(reader), poses.double()
    generator, of_twin = (torch.Generator().manual_seed(1) for _ in range(2))
    train_reader(
        reader,
        poses,
        layout=H36M_17,
        shape=SHAPE,
        renderer=renderer(generator, tells_sides=tells_sides),
        settings=SETTINGS,
        generator=generator,
        part=PART,
    )
    learn_naively(twin, poses, of_twin, tells_sides=tells_sides)

    assert torch.equal(generator.get_state(), of_twin.get_state())
    assert_same(reader, twin)


def test_a_pose_read_the_other_way_round_costs_nothing_only_where_sides_are_not_drawn(
    poses: Tensor,
) -> None:
    swapped = poses[:, list(H36M_17.mirror)]
    as_drawn = torch.where(torch.arange(len(poses))[:, None, None] % 2 == 0, poses, swapped)

    def loss(read: Tensor, *, tells_sides: bool) -> float:
        return reading_loss(read, poses, layout=H36M_17, tells_sides=tells_sides).item()

    nothing = loss(poses, tells_sides=True)
    assert loss(as_drawn, tells_sides=False) == pytest.approx(nothing)
    assert loss(as_drawn, tells_sides=True) > 2 * nothing
    limb = poses.clone()
    limb[:, [14, 15, 16]], limb[:, [11, 12, 13]] = poses[:, [11, 12, 13]], poses[:, [14, 15, 16]]
    assert loss(limb, tells_sides=False) > 1.5 * nothing, "arms and legs go together"


def test_masks_are_read_as_if_each_were_alone(reader: BodyReader, feed: ImageFeed) -> None:
    read = read_masks(reader, feed, part=PART)

    for row in range(len(feed)):
        _, mask = feed.fetch(torch.tensor([row]))
        torch.testing.assert_close(read[row], reader(mask)[0].detach(), atol=1e-5, rtol=0)


def assert_same(network: nn.Module, twin: nn.Module) -> None:
    for (name, ours), theirs in zip(
        network.state_dict().items(), twin.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6, msg=name)
