"""Everything that can be set about a trial; dotted names are what sweeps search.

One idea, every field with its bounds and help, so it is long. The defaults are the paper's. What
its body does not say, and what we added, is a field, never a constant in the code.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from selfpose.method.geometry import Elevation
from selfpose.method.losses import LOSS_TERMS, LossTerm
from selfpose.method.quantities import Need
from selfpose.method.renderer import Profile
from selfpose.networks.lifter import HeadActivation

__all__ = [
    "DiscriminatorConfig",
    "FlowConfig",
    "KeypointConfig",
    "LiftingConfig",
    "LossWeights",
    "RendererConfig",
    "SelfPoseConfig",
]

_SMALLEST_MAP_PX = 4

_GONE = {"compile": "compiled networks were never faster, and the field is gone"}
"""Fields of earlier versions, which old sweep files and exported models still have."""


@functools.cache
def _say_once(line: str) -> None:
    """Log a warning, however many configurations this process reads."""
    logging.getLogger(__name__).warning(line)


class _ConfigPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Weights(_ConfigPart):
    """Factor of each term in the sum that Phi, Omega and Lambda minimise; 0 leaves a term out."""

    def by_name(self) -> dict[str, float]:
        """Return the weight of every loss term, no unit."""
        return self.model_dump()


def _weight_field(term: LossTerm) -> tuple[type[float], Any]:
    description = (
        f"Weight of the {term.name} term, which asks that {term.asks}; 0 leaves the term out. "
        "No unit."
    )
    return float, Field(term.weight, ge=0, le=term.largest_weight, description=description)


if TYPE_CHECKING:
    LossWeights = _Weights
else:
    LossWeights = create_model(
        "LossWeights",
        __base__=_Weights,
        __module__=__name__,
        __doc__=_Weights.__doc__,
        **{term.name: _weight_field(term) for term in LOSS_TERMS},
    )


class FlowConfig(_ConfigPart):
    """The prior of 2D poses: principal components, and a normalising flow of coupling blocks."""

    depth: int = Field(8, ge=1, le=32, description="Number of affine coupling blocks of the flow.")
    pca_dimensions: int = Field(
        26, ge=2, le=126, description="Number of principal components that the flow models."
    )
    hidden: int = Field(
        1024, ge=8, le=4096, description="Number of neurons inside each coupling block."
    )
    steps: int = Field(
        20_000,
        ge=1,
        le=1_000_000,
        description="Number of steps for which the flow is trained before the trial starts.",
    )
    batch_size: int = Field(
        256, ge=2, le=16_384, description="Number of 2D poses in each step of the flow's training."
    )
    learning_rate: float = Field(
        1e-4,
        gt=0,
        le=0.1,
        description="Learning rate of Adam at the first step of the flow's training; it falls to 0 "
        "along a cosine.",
    )
    weight_decay: float = Field(
        1e-5, ge=0, le=1, description="Weight decay of Adam in each step of the flow's training."
    )
    noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Standard deviation of the noise that is added to the whitened components "
        "while the flow is trained. No unit.",
    )
    outlier_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of poses that the prior expects to come from a broad Gaussian and not "
        "from the flow. Not part of the paper.",
    )


class KeypointConfig(_ConfigPart):
    """Omega, which reads joints in skeleton images, and its loss of two parts."""

    redrawing_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share that redrawing Phi's skeletons has in the keypoint term; reading "
        "rendered poses has the rest.",
    )
    map_px: int | None = Field(
        None,
        ge=_SMALLEST_MAP_PX,
        le=64,
        description="Side of Omega's maps, in pixels. Default: an eighth of image_size.",
    )
    jitter: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Largest shift of a pose in Omega's pre-training along each axis, in crop "
        "coordinates.",
    )


class DiscriminatorConfig(_ConfigPart):
    """D, which judges skeleton images, and how strong it is."""

    width: int = Field(64, ge=4, le=256, description="Number of channels of D's first layer.")
    learning_rate_ratio: float = Field(
        1.0, gt=0, le=10, description="Learning rate of D over that of Phi and Omega."
    )
    noise: float = Field(
        0.0,
        ge=0,
        le=2,
        description="Standard deviation of the noise that is added to all skeleton images that D "
        "sees, at the first step; images range from -1 to 1.",
    )
    noise_steps: int = Field(
        10_000,
        ge=1,
        le=10_000_000,
        description="Number of steps over which the noise on what D sees falls to 0.",
    )


class LiftingConfig(_ConfigPart):
    """Lambda, which lifts 2D poses, and the virtual cameras of its losses."""

    width: int = Field(
        1024, ge=8, le=4096, description="Number of neurons in each of Lambda's layers."
    )
    elevation: Elevation = Field(
        "learned",
        description="Elevation of the virtual cameras: predicted by Lambda (`learned`), drawn "
        "within 20 degrees (`uniform`), or left at zero (`none`).",
    )
    head_activation: HeadActivation = Field(
        "linear", description="Activation behind the last layers of both of Lambda's branches."
    )
    input_scale: float = Field(
        10.0,
        gt=0,
        le=100,
        description="Factor by which the normalised pose is multiplied before it enters Lambda.",
    )
    learning_rate_ratio: float = Field(
        1.0, gt=0, le=100, description="Learning rate of Lambda over that of Phi and Omega."
    )
    mirror_average: bool = Field(
        False,
        description="Whether the finished model lifts a pose and its mirror image and takes the "
        "mean of both. The loss terms lift the pose alone. Not part of the paper.",
    )
    bone_warmup_steps: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="Number of steps until the term `bone` has its whole weight: it has none for "
        "the first half of them, and then it rises evenly. From the first step on, the term may "
        "fix the signs of depths before the flow has turned them. Not part of the paper.",
    )


class RendererConfig(_ConfigPart):
    """How skeletons are rendered."""

    sigma: float = Field(
        0.2,
        gt=0.01,
        le=2,
        description="Width of a limb: its brightness falls to 1/e at a distance of sigma squared, "
        "in crop coordinates (at sigma itself where profile is `squared`).",
    )
    profile: Profile = Field(
        "distance",
        description="Shape of a limb's edge: the brightness falls with the distance to the limb "
        "(`distance`) or with its square (`squared`).",
    )
    side_coding: bool = Field(
        False,
        description="Whether left limbs, or a hand's thumb and index finger, are rendered dimmer "
        "than the others. Not part of the paper.",
    )
    silhouette_sigma: float = Field(
        0.35,
        gt=0.01,
        le=2,
        description="Width of a limb, like sigma and in crop coordinates too, in the broad "
        "rendering that the silhouette term compares with the foreground mask.",
    )


class SelfPoseConfig(_ConfigPart):
    """Everything that can be set about one trial."""

    mode: Literal["complete", "lifting", "supervised"] = Field(
        "complete",
        description="What is trained: all networks, from unlabelled images to 3D poses "
        "(`complete`); Lambda alone, on the prior's 2D poses (`lifting`); or Phi, Omega and Lambda "
        "with the full truth, as an upper reference (`supervised`).",
    )
    image_size: int = Field(128, ge=32, le=256, description="Side of the images, in pixels.")
    width: int = Field(
        32, ge=4, le=128, description="Number of channels of Phi's and Omega's first layers."
    )
    narrowest_px: int = Field(
        16, ge=_SMALLEST_MAP_PX, le=64, description="Side of Phi's narrowest map, in pixels."
    )
    batch_size: int = Field(
        96, ge=2, le=4096, description="Number of images, and of prior poses, in each step."
    )
    steps_per_epoch: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Number of steps in an epoch; each ends in validation.",
    )
    learning_rate: float = Field(
        2e-4, gt=0, le=0.1, description="Learning rate of Adam (betas 0.5 and 0.999)."
    )
    decay_steps: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="Number of steps over which all learning rates fall to 0 along a cosine; 0 "
        "leaves them constant.",
    )
    gradient_clip: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="Largest norm of each network's gradient; a longer one is shortened to it.",
    )
    mirror_prior: bool = Field(
        False,
        description="Whether the prior also holds the mirror image of each of its poses. Not part "
        "of the paper.",
    )
    lift_prior: int = Field(
        0,
        ge=0,
        le=65_536,
        description="Number of 2D poses of the prior that Lambda lifts in each step, beside those "
        "that Omega reads. Not part of the paper.",
    )
    detach_pose: bool = Field(
        False,
        description="Whether the gradient of the lifting losses stops at the 2D pose, so that they "
        "train Lambda alone.",
    )
    couple_skeleton: bool = Field(
        False, description="Whether the redrawing half of the keypoint term trains Phi too."
    )
    pretrain_keypoints: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Number of steps for which Omega learns to read rendered prior poses before "
        "the joint training starts; 0 skips it.",
    )
    pretrain_silhouette: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Number of steps for which Phi learns to output foreground masks before the "
        "joint training starts; 0 skips it. Not part of the paper.",
    )
    pretrain_bodies: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Number of steps for which a reader of poses learns from drawn bodies, before "
        "it reads the foreground masks of the training images; 0 skips it. With silhouette_hue: 0 "
        "masks do not tell left from right, and the sides are read either way round. Not part of "
        "the paper.",
    )
    pretrain_pairs: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Number of steps for which Phi and Omega learn from the poses that were read "
        "in the masks, before the joint training starts; 0 skips it. Not part of the paper.",
    )
    pretrain_batch: int = Field(
        16,
        ge=2,
        le=4096,
        description="Number of images in each step of pretrain_pairs; a step of pretrain_bodies "
        "has four times as many drawn bodies.",
    )
    distort_images: bool = Field(
        False,
        description="Whether the crops of each step are scaled, turned and shifted a little; the "
        "poses are lifted as they lie in the original crops. Not part of the paper.",
    )
    silhouette_hue: Literal[0, 1, -1] = Field(
        0,
        description="Which side's limbs are bluer in the images, so that masks are shaded by hue "
        "and tell left from right, together with side_coding: the right side's (1), the left "
        "side's (-1), or neither (0). On a hand, thumb and index finger stand for the left side "
        "and the other fingers for the right. The reader of pretrain_bodies tells sides by nothing "
        "else. Not part of the paper.",
    )
    pretrain_learning_rate: float = Field(
        2e-4,
        gt=0,
        le=0.1,
        description="Learning rate of Adam at the first step of each pre-training; it falls to 0 "
        "along a cosine.",
    )
    bf16: bool = Field(True, description="Whether a GPU computes the networks in bf16.")
    replay: bool = Field(
        True,
        description="Whether a step is recorded once as a CUDA graph and then replayed, on a GPU.",
    )
    val_frames: int = Field(
        2000,
        ge=2,
        le=1_000_000,
        description="Number of validation frames, drawn once by stage_seed.",
    )
    stage_seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="Seed of the shared stages (flow prior, pre-training, validation frames). "
        "Trials with the same value reuse the same products.",
    )
    loss_weights: LossWeights = Field(
        LossWeights(), description="Weight of each loss term; 0 leaves a term out."
    )
    flow: FlowConfig = Field(FlowConfig(), description="The prior of 2D poses.")
    keypoint: KeypointConfig = Field(
        KeypointConfig(), description="Omega, which reads joints in skeleton images."
    )
    discriminator: DiscriminatorConfig = Field(
        DiscriminatorConfig(), description="D, which judges skeleton images."
    )
    lifting: LiftingConfig = Field(LiftingConfig(), description="Lambda, which lifts 2D poses.")
    renderer: RendererConfig = Field(RendererConfig(), description="How skeletons are rendered.")

    @property
    def takes_images(self) -> bool:
        """Whether the model reads images, not true 2D poses."""
        return self.mode != "lifting"

    @property
    def needs_masks(self) -> bool:
        """Whether training reads foreground masks."""
        steps = self.pretrain_silhouette + self.pretrain_bodies
        warmed_up = self.takes_images and steps > 0
        return warmed_up or "masks" in self.needs

    @property
    def known_terms(self) -> tuple[LossTerm, ...]:
        """The loss terms that can be computed in this mode, with or without a weight."""
        if self.mode == "supervised":
            return ()
        return tuple(t for t in LOSS_TERMS if self.mode == "complete" or "images" not in t.needs)

    @property
    def loss_terms(self) -> tuple[LossTerm, ...]:
        """The loss terms that are minimised: those of this mode that have a weight."""
        weights = self.loss_weights.by_name()
        return tuple(term for term in self.known_terms if weights[term.name] > 0)

    @property
    def needs(self) -> frozenset[Need]:
        """What the loss terms need beside 2D poses."""
        return frozenset().union(*(term.needs for term in self.loss_terms))

    @model_validator(mode="before")
    @classmethod
    def _without_fields_that_are_gone(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for name in _GONE.keys() & given.keys():
            _say_once(f"{name}: {given[name]!r} is ignored: {_GONE[name]}")
        return {name: value for name, value in given.items() if name not in _GONE}

    @model_validator(mode="after")
    def _something_is_learned(self) -> SelfPoseConfig:
        if self.known_terms and not self.loss_terms:
            names = ", ".join(term.name for term in self.known_terms)
            raise ValueError(
                f"loss_weights: {names} are all 0 in mode {self.mode}, so nothing would be "
                "learned; give one of them a weight"
            )
        return self

    @model_validator(mode="after")
    def _bodies_are_read_first(self) -> SelfPoseConfig:
        if self.pretrain_bodies == 0:
            for name, value in (
                ("loss_weights.read", self.loss_weights.by_name()["read"]),
                ("pretrain_pairs", self.pretrain_pairs),
            ):
                if value > 0:
                    raise ValueError(
                        f"{name}: {value} needs poses that were read in masks, and with "
                        "pretrain_bodies: 0 none are; set pretrain_bodies above 0, or give "
                        f"{name}: 0"
                    )
        for name in ("pretrain_keypoints", "pretrain_silhouette"):
            if self.pretrain_pairs > 0 and getattr(self, name) > 0:
                raise ValueError(
                    f"{name}: {getattr(self, name)} and pretrain_pairs: {self.pretrain_pairs} give "
                    "the same network its first weights; set one of them to 0"
                )
        return self

    @model_validator(mode="after")
    def _maps_divide_the_image(self) -> SelfPoseConfig:
        if self.image_size not in (32, 64, 128, 256):
            raise ValueError(f"image_size must be 32, 64, 128 or 256, got {self.image_size}")
        for name, side in (
            ("narrowest_px", self.narrowest_px),
            ("keypoint.map_px", self.keypoint.map_px or self.image_size // 8),
        ):
            if side not in [self.image_size >> halvings for halvings in range(4)]:
                raise ValueError(
                    f"{name} must be image_size ({self.image_size}) halved at most three times, "
                    f"got {side}"
                )
        return self
