"""Names everything that a training step computes and a loss term may take.

A term (`selfpose.method.losses`) is a function whose parameters have names from `Quantities`; the
step hands each of them what it asks for. `Annotated` says what a step must have to know a quantity:
images (so not in lifting mode), foreground masks, what a reader of bodies saw in those, the
discriminator D, or the flow prior.

Frames and units: as in `geometry`.
Shape letters: B images and poses of this process; A poses that are lifted, of all processes that
train together (the same as B in one process, unless prior poses are lifted too); J joints, E limbs,
S image side in pixels, P side of a map of patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypedDict, get_args, get_type_hints

from torch import Tensor

__all__ = ["Need", "Quantities", "needs_of", "quantity_names"]

Need = Literal["images", "masks", "bodies", "discriminator", "flow"]
"""What a configuration has to provide before some of the quantities are known."""

_IMAGES: Need = "images"
_MASKS: Need = "masks"
_BODIES: Need = "bodies"
_DISCRIMINATOR: Need = "discriminator"
_FLOW: Need = "flow"


class Quantities(TypedDict, total=False):
    """Everything that a term may take; a step tells `Losses` each one once it is computed."""

    images_b3ss: Annotated[Tensor, _IMAGES]
    """Images (B, 3, S, S) in [-1, 1]."""
    masks_b1ss: Annotated[Tensor, _IMAGES, _MASKS]
    """Foreground masks of the images (B, 1, S, S): 1 on the person, -1 elsewhere."""
    mask_joints_bj2: Annotated[Tensor, _IMAGES, _BODIES]
    """Joints (B, J, 2), crop coordinates, that were read in the images' masks."""
    mask_skeletons_b1ss: Annotated[Tensor, _IMAGES, _BODIES]
    """Skeleton images (B, 1, S, S) in [-1, 1], rendered from `mask_joints_bj2`."""
    prior_bj2: Annotated[Tensor, _IMAGES]
    """2D poses of the prior (B, J, 2), crop coordinates; unpaired with the images."""
    drawn_b1ss: Annotated[Tensor, _IMAGES]
    """Skeleton images (B, 1, S, S) in [-1, 1], rendered from `prior_bj2`."""
    read_bj2: Annotated[Tensor, _IMAGES]
    """Joints (B, J, 2), crop coordinates, that Omega reads in `drawn_b1ss`."""
    skeletons_b1ss: Annotated[Tensor, _IMAGES]
    """Skeleton images (B, 1, S, S), about [-1, 1], that Phi makes of the images."""
    joints_bj2: Annotated[Tensor, _IMAGES]
    """Joints (B, J, 2), crop coordinates, that Omega reads in `skeletons_b1ss`."""
    redrawn_b1ss: Annotated[Tensor, _IMAGES]
    """Skeleton images (B, 1, S, S) in [-1, 1], rendered from the joints that Omega reads."""
    redrawing_target_b1ss: Annotated[Tensor, _IMAGES]
    """What `redrawn_b1ss` should equal: `skeletons_b1ss`, as a rule without a gradient for Phi."""
    redrawing_share: Annotated[float, _IMAGES]
    """Weight of redrawing inside the keypoint term, 0 to 1, no unit."""
    body_b1ss: Annotated[Tensor, _IMAGES, _MASKS]
    """`joints_bj2` rendered broadly, to compare with a mask (B, 1, S, S), in [-1, 1]."""
    judged: Annotated[Sequence[Tensor], _IMAGES, _DISCRIMINATOR]
    """D's maps of `skeletons_b1ss`, one (B, 1, P, P) a scale; real near 1, fake near 0."""

    normalised_bj2: Tensor
    """Poses to be lifted (B, J, 2), normalised."""
    poses_bj3: Tensor
    """The lifted poses (B, J, 3), body frame, head-to-root lengths."""
    turned_bj3: Tensor
    """`poses_bj3` in a virtual camera's frame (B, J, 3), head-to-root lengths."""
    seen_bj2: Tensor
    """`turned_bj3` projected (B, J, 2), normalised."""
    lifted_again_bj3: Tensor
    """What `seen_bj2` is lifted to (B, J, 3), the virtual camera's frame, head-to-root lengths."""
    reprojected_bj2: Tensor
    """`lifted_again_bj3` turned back and projected (B, J, 2), normalised."""
    poses_aj3: Tensor
    """`poses_bj3` of all processes (A, J, 3)."""
    lifted_again_aj3: Tensor
    """`lifted_again_bj3` of all processes (A, J, 3)."""
    rotations_a33: Tensor
    """Rotations (A, 3, 3) from the body frame to the virtual camera's frame."""
    surprisal_b: Annotated[Tensor, _FLOW]
    """Negative log-likelihood of `seen_bj2` under the frozen flow (B,), nats."""
    limbs: Sequence[tuple[int, int]]
    """The two joints of each of the E limbs."""
    limb_pairs: Sequence[tuple[int, int]]
    """Indices in `limbs` of each limb and of the same one on the other side of the body."""
    bone_ratios: Sequence[float]
    """Usual length of each limb over the mean limb's (E,), no unit."""


_HINTS = get_type_hints(Quantities, include_extras=True)


def quantity_names() -> tuple[str, ...]:
    """Return the names of all quantities."""
    return tuple(_HINTS)


def needs_of(name: str) -> frozenset[Need]:
    """Return what a configuration must provide before a quantity is known.

    Raises:
        KeyError: there is no such quantity.
    """
    hint = _HINTS[name]
    if not hasattr(hint, "__metadata__"):
        return frozenset()
    return frozenset(need for need in hint.__metadata__ if need in get_args(Need))
