"""Builds the stage `bodies`: the pose in each training mask, and Phi and Omega taught by them.

Ours, not the paper's (`selfpose.training.bodies`).

Frame: crop coordinates. Shape letters: N poses, J joints.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from posetune.api import Progress, StageWork
from selfpose.data.pictures.images import ImageFeed, open_feed
from selfpose.data.store import Store, open_store
from selfpose.networks.body_reader import BodyReader
from selfpose.networks.initialisation import seeded
from selfpose.networks.omega import Omega
from selfpose.networks.phi import Phi
from selfpose.training.bodies.drawing import BodyRenderer
from selfpose.training.bodies.pairs import train_pairs
from selfpose.training.bodies.reading import read_masks, train_reader
from selfpose.training.bodies.shapes import BODY_SHAPES
from selfpose.training.prior import prior_poses
from selfpose.training.renderers import skeleton_renderer
from selfpose.training.stages.inputs import StageInputs
from selfpose.training.stages.part import StagePart
from selfpose.training.stages.pretraining import Pretraining, save_network

__all__ = ["OMEGA_FILE", "PHI_FILE", "READS", "build", "load_read_poses"]

READS = (
    "pretrain_bodies",
    "pretrain_pairs",
    "pretrain_batch",
    "pretrain_learning_rate",
    "gradient_clip",
    "image_size",
    "width",
    "narrowest_px",
    "silhouette_hue",
    "keypoint.map_px",
    "mirror_prior",
    "renderer.sigma",
    "renderer.profile",
    "renderer.side_coding",
)
OMEGA_FILE = "omega.safetensors"
PHI_FILE = "phi.safetensors"
_POSES_FILE = "poses.safetensors"
_POSES = "joints_2d"
_BODIES_PER_IMAGE = 4
"""Bodies in a step of the reader, over images in a step of the pairs: a body is cheap."""


def build(inputs: StageInputs, folder: Path, progress: Progress, work: StageWork) -> None:
    """Write the read poses, and Phi's and Omega's weights if they are taught, into a folder."""
    fields, store, device = inputs.fields, open_store(inputs.store), inputs.device
    train = store.split("train")
    feed = open_feed(train, fields["image_size"], with_masks=True, device=device)
    feed = feed.with_hue(fields["silhouette_hue"])
    poses_nj2 = prior_poses(store, mirrored=fields["mirror_prior"]).to(device)
    generator = torch.Generator().manual_seed(inputs.seed)
    bodies, pairs = fields["pretrain_bodies"], fields["pretrain_pairs"]
    parts = _parts(bodies, pairs, progress, work)
    read_nj2 = _read(
        inputs,
        store,
        feed=feed,
        poses_nj2=poses_nj2,
        generator=generator,
        parts=parts,
    )
    save_file({_POSES: read_nj2.cpu().contiguous()}, folder / _POSES_FILE)
    if not pairs:
        return
    phi, omega = _networks(inputs, store)
    train_pairs(
        phi,
        omega,
        feed,
        read_nj2=read_nj2,
        prior_mj2=poses_nj2,
        renderer=skeleton_renderer(
            store.layout,
            fields["image_size"],
            sigma=fields["renderer.sigma"],
            profile=fields["renderer.profile"],
            side_coding=fields["renderer.side_coding"],
            device=device,
        ),
        settings=_settings(fields, pairs, batch=fields["pretrain_batch"]),
        generator=generator,
        part=parts["pairs"],
    )
    save_network(omega, folder / OMEGA_FILE)
    save_network(phi, folder / PHI_FILE)


def load_read_poses(product: Path) -> Tensor:
    """Return the poses (N, J, 2), crop coordinates, that were read in the training masks."""
    return load_file(product / _POSES_FILE)[_POSES]


def _read(
    inputs: StageInputs,
    store: Store,
    *,
    feed: ImageFeed,
    poses_nj2: Tensor,
    generator: torch.Generator,
    parts: Mapping[str, StagePart],
) -> Tensor:
    """Teach a reader, and return what it reads in the masks (N, J, 2), crop coordinates."""
    fields, shape = inputs.fields, BODY_SHAPES[store.layout.name]
    with seeded(inputs.seed):
        reader = BodyReader(poses_nj2.mean(0).cpu()).to(inputs.device)
    renderer = BodyRenderer(
        store.layout,
        shape,
        fields["image_size"],
        tells_sides=fields["silhouette_hue"] != 0,
        generator=generator,
    )
    batch = _BODIES_PER_IMAGE * fields["pretrain_batch"]
    train_reader(
        reader,
        poses_nj2,
        layout=store.layout,
        shape=shape,
        renderer=renderer,
        settings=_settings(fields, fields["pretrain_bodies"], batch=batch),
        generator=generator,
        part=parts["reader"],
    )
    return read_masks(reader, feed, part=parts["masks"])


def _networks(inputs: StageInputs, store: Store) -> tuple[Phi, Omega]:
    fields = inputs.fields
    with seeded(inputs.seed):
        phi = Phi(
            fields["width"], image_size=fields["image_size"], narrowest=fields["narrowest_px"]
        )
        omega = Omega(
            fields["width"],
            image_size=fields["image_size"],
            joints=len(store.layout.joints),
            map_size=fields["keypoint.map_px"],
        )
    return phi.to(inputs.device), omega.to(inputs.device)


def _settings(fields: Mapping[str, Any], steps: int, *, batch: int) -> Pretraining:
    return Pretraining(
        steps=steps,
        batch_size=batch,
        learning_rate=fields["pretrain_learning_rate"],
        gradient_clip=fields["gradient_clip"],
    )


def _parts(bodies: int, pairs: int, progress: Progress, work: StageWork) -> dict[str, StagePart]:
    """Return the parts by name; the progress of each is told as that of the whole."""

    def reader(done: int, total: int, note: str = "") -> None:
        progress(done, bodies + pairs, note)

    def masks(done: int, total: int, note: str = "") -> None:
        progress(bodies, bodies + pairs, f"{done} of {total} parts of the masks are read")

    def of_pairs(done: int, total: int, note: str = "") -> None:
        progress(bodies + done, bodies + pairs, note)

    told = {"reader": reader, "masks": masks, "pairs": of_pairs}
    return {name: StagePart(name, tell, work) for name, tell in told.items()}
