"""What trials share: trained once per distinct key, then loaded by every trial as a copy.

baselines    what a result is worth without learning, on the validation frames
flow         the prior of 2D poses (components and flow)
keypoints    Omega on drawn prior poses (from images, pretrain_keypoints > 0)
silhouette   Phi on foreground masks (from images, pretrain_silhouette > 0)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from posetune.api import BadInputError, Progress, Stage
from selfpose.config import FlowConfig, SelfPoseConfig
from selfpose.data.images import check_images, open_feed
from selfpose.data.store import Store, open_store
from selfpose.evaluation.baselines import build_baselines
from selfpose.inference import PoseModel, build_omega, build_phi
from selfpose.method.flow import fit_pose_prior, save_pose_prior
from selfpose.method.geometry import head_distance, mirror_poses, normalise_pose
from selfpose.training.pretraining import pretrain_omega, pretrain_phi
from selfpose.training.step import make_skeleton_pen, seeded

__all__ = ["build_stages", "load_shared_weights", "prior_poses"]

_OMEGA, _PHI = "omega.safetensors", "phi.safetensors"


def build_stages(config: SelfPoseConfig, store_path: Path) -> Sequence[Stage]:
    """Return the stages that a trial with this configuration needs.

    Raises:
        BadInputError: the store does not fit the configuration.
    """
    _check_fit(config, open_store(store_path))
    kinds = [_BASELINES]
    if config.mode != "supervised" and config.loss_weights.flow > 0:
        kinds.append(_FLOW)
    if config.takes_images and config.pretrain_keypoints > 0:
        kinds.append(_KEYPOINTS)
    if config.takes_images and config.pretrain_silhouette > 0:
        kinds.append(_SILHOUETTE)
    values = config.model_dump(mode="json")
    return [
        Stage(
            name=kind.name,
            reads={name: _field(values, name) for name in kind.reads},
            sources=kind.sources,
            seed=config.stage_seed,
            build=partial(kind.build, config, store_path),
        )
        for kind in kinds
    ]


def _check_fit(config: SelfPoseConfig, store: Store) -> None:
    """Raise unless the store has the joints, images and truth that a configuration needs."""
    layout = store.layout
    largest = 2 * (len(layout.joints) - 1)
    if config.flow.pca_dimensions > largest:
        raise BadInputError(
            f"flow.pca_dimensions: {config.flow.pca_dimensions}, but the {len(layout.joints)} "
            f"joints of {layout.name} have at most {largest}; give {largest} or fewer"
        )
    mirrors = config.mirror_prior or config.lifting.mirror_average
    if mirrors and layout.mirror == tuple(range(len(layout.joints))):
        raise BadInputError(
            f"mirror_prior, lifting.mirror_average: the mirror image of a {layout.name} is none; "
            "set both to false"
        )
    if config.mode != "complete" and not store.split("val").has_3d:
        raise BadInputError(
            f"mode: {config.mode} is taught or scored in 3D, and {store.root} holds no true 3D "
            "poses; give mode: complete"
        )
    if config.takes_images:
        check_images(store.split("train"), config.image_size, with_masks=config.needs_masks)


def load_shared_weights(model: PoseModel, products: dict[str, Path]) -> None:
    """Copy the pre-trained weights among the products into a model's networks."""
    for name, file, network in (
        ("keypoints", _OMEGA, model.omega),
        ("silhouette", _PHI, model.phi),
    ):
        if name in products and network is not None:
            network.load_state_dict(load_file(products[name] / file))


def prior_poses(store: Store, *, mirrored: bool) -> Tensor:
    """Return the prior's 2D poses (N, J, 2), crop coordinates; then their mirror images if asked.

    Raises:
        BadInputError: there are too few to learn from.
    """
    poses = store.split("prior").joints_2d
    if len(poses) < 2:
        raise BadInputError(f"{store.root}: split prior has {len(poses)} poses; import more data")
    poses_nj2 = torch.tensor(poses)
    if not mirrored:
        return poses_nj2
    return torch.cat((poses_nj2, mirror_poses(poses_nj2, store.layout.mirror)))


def _build_baselines(
    config: SelfPoseConfig, store_path: Path, folder: Path, progress: Progress
) -> None:
    build_baselines(
        open_store(store_path),
        val_frames=config.val_frames,
        image_size=config.image_size,
        seed=config.stage_seed,
        folder=folder,
    )
    progress(1, 1)


def _build_flow(config: SelfPoseConfig, store_path: Path, folder: Path, progress: Progress) -> None:
    store = open_store(store_path)
    poses_nj2 = prior_poses(store, mirrored=config.mirror_prior)
    layout = store.layout
    h = head_distance(poses_nj2, layout.root, layout.head)
    normalised_nj2 = normalise_pose(poses_nj2, layout.root, h).to(_device())
    with seeded(config.stage_seed):
        prior, loss = fit_pose_prior(
            normalised_nj2, config.flow.training(), seed=config.stage_seed, progress=progress
        )
    save_pose_prior(prior, folder, loss=loss)


def _build_keypoints(
    config: SelfPoseConfig, store_path: Path, folder: Path, progress: Progress
) -> None:
    store = open_store(store_path)
    with seeded(config.stage_seed):
        omega = build_omega(config, store.layout).to(_device())
    pretrain_omega(
        omega,
        prior_poses(store, mirrored=config.mirror_prior).to(_device()),
        pen=make_skeleton_pen(config, store.layout),
        config=config,
        generator=torch.Generator().manual_seed(config.stage_seed),
        progress=progress,
    )
    _save_network(omega, folder / _OMEGA)


def _build_silhouette(
    config: SelfPoseConfig, store_path: Path, folder: Path, progress: Progress
) -> None:
    train = open_store(store_path).split("train")
    with seeded(config.stage_seed):
        phi = build_phi(config).to(_device())
    pretrain_phi(
        phi,
        open_feed(train, config.image_size, with_masks=True, device=_device()).with_hue(
            config.silhouette_hue
        ),
        config=config,
        generator=torch.Generator().manual_seed(config.stage_seed),
        progress=progress,
    )
    _save_network(phi, folder / _PHI)


def _save_network(network: nn.Module, file: Path) -> None:
    save_file({name: t.cpu().contiguous() for name, t in network.state_dict().items()}, file)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _field(values: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        values = values[name]
    return values


@dataclass(frozen=True)
class _Kind:
    name: str
    reads: tuple[str, ...]
    sources: tuple[str, ...]
    build: Callable[[SelfPoseConfig, Path, Path, Progress], None]


_STEP_SOURCES = (
    *(
        "selfpose.training.stages",
        "selfpose.training.pretraining",
        "selfpose.training.step",
        "selfpose.inference",
    ),
    *("selfpose.networks.initialisation", "selfpose.networks.layers"),
)

_BASELINES = _Kind(
    "baselines",
    ("val_frames", "image_size"),
    ("selfpose.evaluation.baselines", "selfpose.method.metrics", "selfpose.method.procrustes"),
    _build_baselines,
)
_FLOW = _Kind(
    "flow",
    (
        "mirror_prior",
        *(f"flow.{name}" for name in FlowConfig.model_fields if name != "outlier_share"),
    ),
    ("selfpose.method.flow", "selfpose.method.geometry", "selfpose.training.stages"),
    _build_flow,
)
_KEYPOINTS = _Kind(
    "keypoints",
    (
        *("pretrain_keypoints", "pretrain_learning_rate", "batch_size", "gradient_clip"),
        *("image_size", "width", "keypoint.map_px", "keypoint.jitter"),
        *("renderer.sigma", "renderer.profile", "renderer.side_coding", "mirror_prior"),
    ),
    (
        *(*_STEP_SOURCES, "selfpose.networks.omega", "selfpose.method.renderer"),
        *("selfpose.cuda.kernels.drawing", "selfpose.cuda.kernels.programs.drawing"),
    ),
    _build_keypoints,
)
_SILHOUETTE = _Kind(
    "silhouette",
    (
        *("pretrain_silhouette", "pretrain_learning_rate", "batch_size", "gradient_clip"),
        *("image_size", "width", "narrowest_px", "silhouette_hue"),
    ),
    (*_STEP_SOURCES, "selfpose.networks.phi", "selfpose.data.images"),
    _build_silhouette,
)
