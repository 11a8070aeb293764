"""The trained model without its training: from images, or from 2D poses, to 3D poses.

An exported model is a folder with `model.safetensors` and `model.json`.

Frames and units: as in `geometry`; what leaves here is in camera axes (x right, y down, z away),
root at zero, mean limb length 1.
Shape letters: N poses, B batch, J joints, S image side in pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from posetune.api import BadInputError
from selfpose.config import SelfPoseConfig
from selfpose.data.pictures.images import images_to_input, reduce_images
from selfpose.method.geometry import lift, mirror_poses, normalise_pose
from selfpose.method.skeleton import LAYOUTS, Layout
from selfpose.networks import Lambda, Omega, Phi
from selfpose.whole_files import writing_whole

__all__ = [
    "ImagePoseModel",
    "PoseModel",
    "PosePredictor",
    "build_model",
    "export_model",
    "load_model",
    "unit_bones",
]

_WEIGHTS = "model.safetensors"
_FACTS = "model.json"
_AT_ONCE = 256


class PoseModel(nn.Module):
    """Lambda: 2D poses become 3D poses. All that lifting mode trains."""

    def __init__(self, lifter: Lambda, *, layout: Layout, h: float) -> None:
        """Keep the network.

        Args:
            lifter: Lambda.
            layout: of the joints.
            h: the prior's mean distance from root to head, crop coordinates.
        """
        super().__init__()
        self.lifter = lifter
        self.layout, self.h = layout, h
        self.mirror_average = False
        """Whether `lift` takes the mean with what Lambda makes of the pose's mirror image."""

    def read(self, images_b3ss: Tensor) -> tuple[Tensor, Tensor]:
        """Return skeletons (B, 1, S, S) and 2D poses (B, J, 2), crop coordinates, of images.

        Raises:
            BadInputError: the model was trained in lifting mode.
        """
        raise BadInputError(
            "this model was trained in lifting mode and takes no images; train with mode: "
            "complete, or give 2D poses to its `lift` in Python"
        )

    def lift(self, joints_bj2: Tensor) -> Tensor:
        """Return 3D poses (B, J, 3), body frame, of 2D poses in crop coordinates."""
        normalised_bj2 = normalise_pose(joints_bj2, self.layout.root, self.h)
        offsets_bj = self.lifter(normalised_bj2)[0]
        if self.mirror_average:
            mirrored_bj2 = mirror_poses(normalised_bj2, self.layout.mirror)
            mirrored_bj = self.lifter(mirrored_bj2)[0]
            back_bj = torch.stack([mirrored_bj[:, joint] for joint in self.layout.mirror], dim=1)
            offsets_bj = (offsets_bj + back_bj) / 2
        return lift(normalised_bj2, offsets_bj)


class ImagePoseModel(PoseModel):
    """Phi, Omega and Lambda in a row: images become skeletons, 2D poses and 3D poses."""

    def __init__(self, lifter: Lambda, *, phi: Phi, omega: Omega, layout: Layout, h: float) -> None:
        """Join the networks.

        Args:
            lifter: Lambda.
            phi: image to skeleton.
            omega: skeleton to 2D pose.
            layout: of the joints.
            h: the prior's mean distance from root to head, crop coordinates.
        """
        super().__init__(lifter, layout=layout, h=h)
        self.phi, self.omega = phi, omega

    def read(self, images_b3ss: Tensor) -> tuple[Tensor, Tensor]:
        """Return skeletons (B, 1, S, S) and 2D poses (B, J, 2), crop coordinates, of images.

        Args:
            images_b3ss: images (B, 3, S, S) in [-1, 1].
        """
        skeletons_b1ss = self.phi(images_b3ss).float()
        return skeletons_b1ss, self.omega(skeletons_b1ss)


class PosePredictor:
    """An exported model, ready to use (`posetune.api.Predictor`)."""

    def __init__(
        self, model: PoseModel, config: SelfPoseConfig, trained_on: Mapping[str, str] | None = None
    ) -> None:
        """Keep a model in evaluation mode, with facts about its training data."""
        self.trained_on: Mapping[str, str] = trained_on or {}
        self.model = model.eval().requires_grad_(False)
        self.config = config
        self.layout = model.layout
        self.image_size = config.image_size
        self.joint_names: Sequence[str] = model.layout.joints
        self.limbs: Sequence[tuple[int, int]] = model.layout.limbs

    @property
    def input_notes(self) -> tuple[str, ...]:
        """What pictures must be like beyond their shape, a sentence each."""
        if self.trained_on.get("background") != "remove":
            return ()
        return (
            "The background of its training pictures was removed: paint everything but the person "
            "black.",
        )

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return poses (N, J, 3) of images (N, S, S, 3); see `posetune.api.Predictor`.

        Images of twice or four times the side are reduced first.

        Raises:
            BadInputError: not such images, or the model was trained in lifting mode.
        """
        return self.lift(self.joints_2d(images))

    def joints_2d(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return 2D poses (N, J, 2), crop coordinates, of images (N, S, S, 3)."""
        small = reduce_images(self._checked(images), self.image_size)
        read = [
            self.model.read(images_to_input(self._tensor(small[i : i + _AT_ONCE])))[1].cpu().numpy()
            for i in range(0, len(small), _AT_ONCE)
        ]
        return np.concatenate(read) if read else np.empty((0, len(self.joint_names), 2), np.float32)

    def lift(self, joints_2d: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return 3D poses (N, J, 3) of 2D poses (N, J, 2), crop coordinates.

        Raises:
            BadInputError: not such poses.
        """
        expected = (len(self.joint_names), 2)
        if joints_2d.ndim != 3 or joints_2d.shape[1:] != expected:
            raise BadInputError(
                f"2D poses have shape {joints_2d.shape}, but this model takes (N, {expected[0]}, 2)"
            )
        poses_nj3 = self.model.lift(self._tensor(joints_2d.astype(np.float32)))
        return unit_bones(poses_nj3, self.layout).cpu().numpy()

    def _checked(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        side = self.image_size
        sides = (side, 2 * side, 4 * side)
        square = images.ndim == 4 and images.shape[1] == images.shape[2] and images.shape[3] == 3
        if not square or images.shape[1] not in sides or images.dtype != np.uint8:
            raise BadInputError(
                f"images are {images.dtype} of shape {images.shape}, but this model takes uint8 of "
                f"shape (N, {side}, {side}, 3), or of twice or four times that side"
            )
        return images

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        device = next(self.model.parameters()).device
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def unit_bones(poses_nj3: Tensor, layout: Layout) -> Tensor:
    """Return poses (N, J, 3) moved to root zero and scaled to mean limb length 1."""
    centred_nj3 = poses_nj3 - poses_nj3[:, layout.root : layout.root + 1]
    limbs_nl3 = torch.stack(
        [centred_nj3[:, child] - centred_nj3[:, parent] for child, parent in layout.limbs], dim=1
    )
    length_n = limbs_nl3.norm(dim=-1).mean(dim=1)
    return centred_nj3 / length_n.clamp(min=1e-8)[:, None, None]


def build_model(config: SelfPoseConfig, layout: Layout, *, h: float) -> PoseModel:
    """Build the untrained networks of a configuration; draws from torch's global generator."""
    joints = len(layout.joints)
    lifter = Lambda(
        config.lifting.width,
        joints=joints,
        root=layout.root,
        head_activation=config.lifting.head_activation,
        input_scale=config.lifting.input_scale,
    )
    if config.takes_images:
        phi = Phi(config.width, image_size=config.image_size, narrowest=config.narrowest_px)
        omega = Omega(
            config.width,
            image_size=config.image_size,
            joints=joints,
            map_size=config.keypoint.map_px,
        )
        model: PoseModel = ImagePoseModel(lifter, phi=phi, omega=omega, layout=layout, h=h)
    else:
        model = PoseModel(lifter, layout=layout, h=h)
    model.mirror_average = config.lifting.mirror_average
    return model


def export_model(
    model: PoseModel,
    config: SelfPoseConfig,
    folder: Path,
    trained_on: Mapping[str, str] | None = None,
) -> None:
    """Write a model into `folder`; `load_model` reads it.

    Args:
        model: the networks.
        config: the configuration that they were trained with.
        folder: an existing folder.
        trained_on: facts about the training data, by name, which `evaluate` compares.
    """
    weights = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    facts = {
        "layout": model.layout.name,
        "h": model.h,
        "config": config.model_dump(mode="json"),
        "trained_on": dict(trained_on or {}),
    }
    with (
        writing_whole(folder / _WEIGHTS) as weights_file,
        writing_whole(folder / _FACTS) as facts_file,
    ):
        save_file(weights, weights_file)
        facts_file.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise a ValueError for weights with a number that is not finite."""
    for name, weight in weights.items():
        wrong = int((~torch.isfinite(weight)).sum())
        if wrong:
            raise ValueError(f"{wrong} numbers of {name} are not finite")


def load_model(exported: Path) -> PosePredictor:
    """Load what `export_model` wrote.

    Raises:
        BadInputError: the folder holds no such model, or its weights are not finite.
    """
    try:
        facts = json.loads((exported / _FACTS).read_text(encoding="utf-8"))
        config = SelfPoseConfig.model_validate(facts["config"])
        model = build_model(config, LAYOUTS[facts["layout"]], h=float(facts["h"]))
        weights = load_file(exported / _WEIGHTS)
        _check_finite({**weights, "h": torch.tensor(model.h)})
        model.load_state_dict(weights)
        trained_on = {str(k): str(v) for k, v in facts.get("trained_on", {}).items()}
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError),
        SafetensorError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise BadInputError(
            f"{exported}: not an exported selfpose model ({type(error).__name__}: {reason}); "
            "export the trial again"
        ) from None
    return PosePredictor(model, config, trained_on)
