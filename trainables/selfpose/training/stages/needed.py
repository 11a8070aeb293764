"""Lists the stages that a trial needs, and gives a trial's networks what they made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import load_file

from posetune.api import BadInputError, Stage
from selfpose.config import SelfPoseConfig
from selfpose.data.pictures.images import check_images
from selfpose.data.store import Store, open_store
from selfpose.inference import ImagePoseModel, PoseModel
from selfpose.training.bodies.shapes import BODY_SHAPES
from selfpose.training.stages import baselines, bodies, flow, keypoints, silhouette
from selfpose.training.stages.inputs import StageInputs

__all__ = ["load_shared_weights", "needed_stages"]


def needed_stages(config: SelfPoseConfig, store_path: Path) -> Sequence[Stage]:
    """Return the stages that a trial with this configuration needs.

    Raises:
        BadInputError: the store does not fit the configuration.
    """
    _check_fit(config, open_store(store_path))
    modules = [baselines]
    if "flow" in config.needs:
        modules.append(flow)
    if config.takes_images and config.pretrain_keypoints > 0:
        modules.append(keypoints)
    if config.takes_images and config.pretrain_silhouette > 0:
        modules.append(silhouette)
    if config.takes_images and config.pretrain_bodies > 0:
        modules.append(bodies)
    return [_stage(module, config, store_path) for module in modules]


def load_shared_weights(model: PoseModel, products: Mapping[str, Path]) -> None:
    """Copy the pre-trained weights among the products into a model's networks."""
    if not isinstance(model, ImagePoseModel):
        return
    if "keypoints" in products:
        model.omega.load_state_dict(load_file(products["keypoints"] / keypoints.WEIGHTS_FILE))
    if "silhouette" in products:
        model.phi.load_state_dict(load_file(products["silhouette"] / silhouette.WEIGHTS_FILE))
    if "bodies" in products and (products["bodies"] / bodies.PHI_FILE).exists():
        model.phi.load_state_dict(load_file(products["bodies"] / bodies.PHI_FILE))
        model.omega.load_state_dict(load_file(products["bodies"] / bodies.OMEGA_FILE))


def _stage(module: ModuleType, config: SelfPoseConfig, store_path: Path) -> Stage:
    values = config.model_dump(mode="json")
    fields = {name: _field(values, name) for name in module.READS}
    inputs = StageInputs(fields, seed=config.stage_seed, store=store_path)
    return Stage(
        name=module.__name__.rpartition(".")[2],
        reads=fields,
        sources=(module.__name__,),
        seed=config.stage_seed,
        build=partial(module.build, inputs),
    )


def _field(values: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        values = values[name]
    return values


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
            f"mirror_prior, lifting.mirror_average: layout {layout.name} has no left and right "
            "joints, so its poses cannot be mirrored; set both to false"
        )
    symmetry = config.loss_weights.by_name()["symmetry"]
    if symmetry > 0 and not layout.limb_pairs:
        raise BadInputError(
            f"loss_weights.symmetry: {symmetry:g}, but layout {layout.name} has no left and right "
            "limbs to be equally long; give 0"
        )
    if config.takes_images and config.pretrain_bodies > 0 and layout.name not in BODY_SHAPES:
        raise BadInputError(
            f"pretrain_bodies: {config.pretrain_bodies}, but selfpose.training.bodies.shapes has "
            f"no widths of body parts for layout {layout.name}; give 0, or add the layout there"
        )
    if config.mode != "complete" and not store.split("val").has_3d:
        raise BadInputError(
            f"mode: {config.mode} needs true 3D poses, which {store.root} does not hold; give "
            "mode: complete, or another store"
        )
    if config.takes_images:
        check_images(store.split("train"), config.image_size, with_masks=config.needs_masks)
