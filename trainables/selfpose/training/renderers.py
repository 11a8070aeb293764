"""Makes the skeleton renderers of a configuration, as fast as the device allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from selfpose.method.renderer import SIDE_BRIGHTNESS, Profile, SkeletonRenderer
from selfpose.method.skeleton import Layout
from selfpose.training.acceleration import accelerate_renderer

if TYPE_CHECKING:  # the stage `keypoints` imports this module, and not every field of a trial
    from selfpose.config import SelfPoseConfig

__all__ = ["Renderers", "skeleton_renderer"]


@dataclass(frozen=True)
class Renderers:
    """Both renderers of the complete mode: of skeletons, and of broad bodies like a mask."""

    skeleton: SkeletonRenderer
    body: SkeletonRenderer

    @classmethod
    def of(cls, config: SelfPoseConfig, layout: Layout, device: torch.device) -> Renderers:
        """Return the renderers of a configuration, for poses on a device."""
        settings = config.renderer
        return cls(
            skeleton_renderer(
                layout,
                config.image_size,
                sigma=settings.sigma,
                profile=settings.profile,
                side_coding=settings.side_coding,
                device=device,
            ),
            skeleton_renderer(
                layout,
                config.image_size,
                sigma=settings.silhouette_sigma,
                profile=settings.profile,
                side_coding=config.silhouette_hue != 0,
                device=device,
            ),
        )


def skeleton_renderer(
    layout: Layout,
    image_size: int,
    *,
    sigma: float,
    profile: Profile,
    side_coding: bool,
    device: torch.device,
) -> SkeletonRenderer:
    """Return a renderer of skeletons for poses on a device.

    Args:
        layout: joints and limbs.
        image_size: side of the images, pixels.
        sigma: width of the limbs, square root of crop coordinates.
        profile: how the brightness falls with the distance to a limb.
        side_coding: whether left limbs are dimmer than right ones.
        device: of the poses.
    """
    renderer = SkeletonRenderer(
        layout,
        image_size,
        sigma=sigma,
        profile=profile,
        side_brightness=SIDE_BRIGHTNESS if side_coding else 1.0,
    )
    return accelerate_renderer(renderer, device)
