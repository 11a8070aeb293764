"""Everything that can be set about a trial; dotted names are what sweeps search.

The defaults are the paper's. What its body does not say, and what we added, is a field, never a
constant in the code.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selfpose.method.flow import FlowTraining
from selfpose.method.geometry import Elevation
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


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LossWeights(_Part):
    """Factor of each term in the sum that Phi, Omega and Lambda minimise; 0 leaves a term out."""

    adversarial: float = Field(1.0, ge=0, le=100, description="Skeletons look drawn (LSGAN).")
    keypoint: float = Field(1.0, ge=0, le=100, description="Omega reads what was drawn.")
    flow: float = Field(1.0, ge=0, le=100, description="Re-projected poses are likely.")
    reprojection_2d: float = Field(1.0, ge=0, le=100, description="The round trip ends in 2D.")
    consistency_3d: float = Field(1.0, ge=0, le=100, description="Lifted twice is the same.")
    deformation: float = Field(1.0, ge=0, le=100, description="So are differences of poses.")
    bone: float = Field(0.0, ge=0, le=1000, description="Bone ratios are usual (ElePose: 50).")
    silhouette: float = Field(
        0.0, ge=0, le=100, description="The pose covers the foreground mask; ours, not the paper's."
    )


_OF_IMAGES = ("adversarial", "keypoint", "silhouette")
"""Loss terms that lifting mode does not have."""


class FlowConfig(_Part):
    """The prior of 2D poses: principal components and coupling blocks."""

    depth: int = Field(8, ge=1, le=32, description="Number of affine coupling blocks.")
    pca_dimensions: int = Field(26, ge=2, le=126, description="Principal components kept.")
    hidden: int = Field(1024, ge=8, le=4096, description="Neurons inside each block.")
    steps: int = Field(20_000, ge=1, le=1_000_000, description="Steps of pre-training.")
    batch_size: int = Field(256, ge=2, le=16_384, description="Poses per step.")
    learning_rate: float = Field(1e-4, gt=0, le=0.1, description="Of Adam, decayed by a cosine.")
    weight_decay: float = Field(1e-5, ge=0, le=1, description="Of Adam, per step.")
    noise: float = Field(
        0.0, ge=0, le=1, description="Standard deviation added to the whitened components."
    )

    outlier_share: float = Field(
        0.0, ge=0, lt=1, description="Share of poses that come from a broad Gaussian; ours."
    )

    def training(self) -> FlowTraining:
        """Return these fields as `flow` takes them."""
        return FlowTraining(
            depth=self.depth,
            components=self.pca_dimensions,
            hidden=self.hidden,
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            noise=self.noise,
        )


class KeypointConfig(_Part):
    """Omega and its two-part loss."""

    redrawing_share: float = Field(
        0.1, ge=0, le=1, description="Share of redrawing Phi's skeletons; reading has the rest."
    )
    map_px: int | None = Field(
        None, ge=_SMALLEST_MAP_PX, le=64, description="Side of Omega's maps; none: image_size / 8."
    )
    jitter: float = Field(
        0.0, ge=0, le=0.5, description="Pre-training poses are shifted by up to this, crop units."
    )


class DiscriminatorConfig(_Part):
    """D and how strong it is."""

    width: int = Field(64, ge=4, le=256, description="Channels of the first layer.")
    learning_rate_ratio: float = Field(
        1.0, gt=0, le=10, description="D's learning rate over the others'."
    )
    noise: float = Field(
        0.0, ge=0, le=2, description="Standard deviation of noise on all that D sees."
    )
    noise_steps: int = Field(
        10_000, ge=1, le=10_000_000, description="Steps over which that noise decays to zero."
    )


class LiftingConfig(_Part):
    """Lambda and the virtual cameras of its losses."""

    width: int = Field(1024, ge=8, le=4096, description="Neurons per layer.")
    elevation: Elevation = Field(
        "learned", description="Camera tilt: predicted, uniform within 20 degrees, or none."
    )
    head_activation: HeadActivation = Field("linear", description="After Lambda's last layers.")
    input_scale: float = Field(10.0, gt=0, le=100, description="Factor on the normalised pose.")
    learning_rate_ratio: float = Field(
        1.0, gt=0, le=100, description="Lambda's learning rate over the others'."
    )
    mirror_average: bool = Field(
        False, description="Lift a pose and its mirror image and take the mean; ours, at use only."
    )


class RendererConfig(_Part):
    """How skeletons are drawn."""

    sigma: float = Field(0.2, gt=0.01, le=2, description="Pen width, root of crop units.")
    profile: Profile = Field("distance", description="What the exponent is linear in.")
    side_coding: bool = Field(False, description="Draw the left limbs dimmer; ours.")
    silhouette_sigma: float = Field(0.35, gt=0.01, le=2, description="Pen of the silhouette term.")


class SelfPoseConfig(_Part):
    """One trial."""

    mode: Literal["complete", "lifting", "supervised"] = Field(
        "complete",
        description="Images to 3D; only Lambda on the prior's 2D poses; or, as the upper "
        "reference, images to 3D taught with the full truth.",
    )
    image_size: int = Field(128, ge=32, le=256, description="Side of the images, pixels.")
    width: int = Field(32, ge=4, le=128, description="Channels of Phi's and Omega's first layers.")
    narrowest_px: int = Field(
        16, ge=_SMALLEST_MAP_PX, le=64, description="Side of Phi's narrowest map."
    )
    batch_size: int = Field(96, ge=2, le=4096, description="Images, and prior poses, per step.")
    steps_per_epoch: int = Field(1000, ge=1, le=1_000_000, description="Between validations.")
    learning_rate: float = Field(2e-4, gt=0, le=0.1, description="Of Adam, betas .5 and .999.")
    decay_steps: int = Field(
        0, ge=0, le=10_000_000, description="Steps over which all rates fall to zero; 0: constant."
    )
    gradient_clip: float = Field(
        1.0, gt=0, le=1000, description="Largest gradient norm of each network."
    )
    mirror_prior: bool = Field(
        False, description="Let the prior hold each pose's mirror image too; ours."
    )
    lift_prior: int = Field(
        0,
        ge=0,
        le=65_536,
        description="Prior 2D poses per step that are lifted too; ours, the paper lifts Omega's.",
    )
    detach_pose: bool = Field(
        False, description="Stop the gradient of the lifting losses at the 2D pose."
    )
    couple_skeleton: bool = Field(
        False, description="Let the redrawing half of the keypoint term train Phi too."
    )
    pretrain_keypoints: int = Field(
        0, ge=0, le=1_000_000, description="Steps of Omega on drawn prior poses, before."
    )
    pretrain_silhouette: int = Field(
        0, ge=0, le=1_000_000, description="Steps of Phi on foreground masks, before; ours."
    )
    silhouette_hue: Literal[0, 1, -1] = Field(
        0,
        description="Shade the masks of both by hue, for pictures in which one side's limbs are "
        "bluer (1: the right side's, -1: the left side's), with side_coding; ours.",
    )
    pretrain_learning_rate: float = Field(
        2e-4, gt=0, le=0.1, description="Of Adam in both, decayed by a cosine."
    )
    bf16: bool = Field(True, description="On CUDA, compute the networks in bf16.")
    compile: bool = Field(
        False, description="On CUDA, compile the networks; needs Triton and a C++ compiler there."
    )
    replay: bool = Field(
        True, description="On CUDA, record a step once as a CUDA graph and replay it."
    )
    val_frames: int = Field(2000, ge=2, le=1_000_000, description="Validation frames, seeded.")
    stage_seed: int = Field(0, ge=0, le=2**31 - 1, description="Of all that trials share.")
    loss_weights: LossWeights = LossWeights()
    flow: FlowConfig = FlowConfig()
    keypoint: KeypointConfig = KeypointConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    lifting: LiftingConfig = LiftingConfig()
    renderer: RendererConfig = RendererConfig()

    @property
    def takes_images(self) -> bool:
        """Whether the model reads images, not true 2D poses."""
        return self.mode != "lifting"

    @property
    def needs_masks(self) -> bool:
        """Whether training reads foreground masks."""
        warmed_up = self.takes_images and self.pretrain_silhouette > 0
        return warmed_up or (self.mode == "complete" and self.loss_weights.silhouette > 0)

    @model_validator(mode="after")
    def _something_is_learned(self) -> SelfPoseConfig:
        weights = self.loss_weights.model_dump()
        if self.mode == "supervised":
            return self  # does not use them
        if self.mode == "lifting":
            weights = {name: weights[name] for name in weights if name not in _OF_IMAGES}
        if not any(weights.values()):
            raise ValueError(
                f"loss_weights: {', '.join(weights)} are all 0 in mode {self.mode}, nothing would "
                "be learned; give one of them a weight"
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
