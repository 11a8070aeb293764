"""Phi and Omega learn from pairs of images and read poses as a naive twin does."""

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
from selfpose.networks.omega import Omega
from selfpose.networks.phi import Phi
from selfpose.training.bodies.distortion import Distortion, draw_distortions
from selfpose.training.bodies.pairs import train_pairs
from selfpose.training.prior import prior_poses
from selfpose.training.reference import draw_plainly
from selfpose.training.renderers import skeleton_renderer
from selfpose.training.stages.part import StagePart
from selfpose.training.stages.pretraining import Pretraining

SETTINGS = Pretraining(steps=2, batch_size=3, learning_rate=1e-3, gradient_clip=0.5)
LOOK = {"sigma": 0.3, "profile": "distance", "side_coding": True}


def draw(poses: Tensor) -> Tensor:
    renderer = skeleton_renderer(H36M_17, 32, device=torch.device("cpu"), **LOOK)
    return draw_plainly(
        poses,
        H36M_17.limbs,
        image_size=32,
        sigma=0.3,
        profile="distance",
        brightness=renderer.brightness,
    )


def move(poses: Tensor, distortion: Distortion) -> Tensor:
    moved = [
        [matrix @ joint + shift for joint in pose]
        for pose, matrix, shift in zip(poses, *distortion, strict=True)
    ]
    return torch.stack([torch.stack(joints) for joints in moved])


def distance(poses: Tensor, others: Tensor) -> Tensor:
    """Return the mean distance, smooth below .01."""
    pairs = zip(poses.flatten(0, 1), others.flatten(0, 1), strict=True)
    return sum((((a - b) ** 2).sum() + 0.01**2) ** 0.5 for a, b in pairs) / poses[..., 0].numel()


def learn_naively(
    phi: Phi,
    omega: Omega,
    feed: ImageFeed,
    *,
    read: Tensor,
    prior: Tensor,
    generator: torch.Generator,
) -> None:
    adams = [
        torch.optim.Adam(network.parameters(), betas=(0.5, 0.999), foreach=False, fused=False)
        for network in (phi, omega)
    ]
    for step in range(SETTINGS.steps):
        rows = torch.randint(len(feed), (SETTINGS.batch_size,), generator=generator)
        pick = torch.randint(len(prior), (SETTINGS.batch_size,), generator=generator)
        of_images = draw_distortions(SETTINGS.batch_size, generator)
        of_prior = draw_distortions(SETTINGS.batch_size, generator)
        shown = move(read[rows], of_images)
        rendered = move(prior[pick], of_prior)
        skeletons = phi(of_images.images(feed.fetch(rows)[0]))
        seen, of_rendered = omega(torch.cat((skeletons, draw(rendered)))).split(len(rows))
        loss = distance(seen, shown) + distance(of_rendered, rendered)
        loss = loss + ((skeletons - draw(shown)) ** 2).mean()
        for adam in adams:
            adam.zero_grad()
            done = step / SETTINGS.steps
            adam.param_groups[0]["lr"] = SETTINGS.learning_rate * (1 + math.cos(math.pi * done)) / 2
        loss.backward()
        for network, adam in zip((phi, omega), adams, strict=True):
            nn.utils.clip_grad_norm_(network.parameters(), SETTINGS.gradient_clip, foreach=False)
            adam.step()


@pytest.mark.usefixtures("double_precision")
def test_pairs_teach_what_a_naive_twin_learns(tiny_store: Path) -> None:
    store = open_store(tiny_store)
    feed = open_feed(store.split("train"), 32, with_masks=True, device=torch.device("cpu"))
    prior = prior_poses(store, mirrored=False).double()
    torch.manual_seed(0)
    read = prior[torch.randint(len(prior), (len(feed),))]
    phi = Phi(4, image_size=32, narrowest=8)
    omega = Omega(4, image_size=32, joints=len(H36M_17.joints), map_size=8)
    twins = copy.deepcopy((phi, omega))
    generator, of_twin = (torch.Generator().manual_seed(1) for _ in range(2))
    train_pairs(
        phi,
        omega,
        feed,
        read_nj2=read,
        prior_mj2=prior,
        renderer=skeleton_renderer(H36M_17, 32, device=torch.device("cpu"), **LOOK),
        settings=SETTINGS,
        generator=generator,
        part=StagePart("pairs", silent, StageWork()),
    )
    learn_naively(*twins, feed, read=read, prior=prior, generator=of_twin)

    assert torch.equal(generator.get_state(), of_twin.get_state())
    for network, twin in zip((phi, omega), twins, strict=True):
        for (name, ours), theirs in zip(
            network.state_dict().items(), twin.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6, msg=name)
