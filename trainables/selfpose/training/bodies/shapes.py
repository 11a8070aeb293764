"""How wide the parts of a body are: one table for each joint layout.

Widths are generic ones of grown people, chosen from usual girths (a limb's radius is about its
girth over 2 pi) and not from any image. A drawing varies them by more than they are wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from selfpose.method.skeleton import FINGERS, H36M_17, HAND_21, KEYPOINTGAN_17, Layout
from selfpose.training.bodies.distortion import TURN

__all__ = ["BODY_SHAPES", "BodyShape", "Part", "Shade", "Tip"]

Shade = Literal["bright", "middle", "dim"]
"""How bright a part is in masks that are shaded by hue: right limbs and three fingers are bright,
left limbs, the thumb and the index finger are dim, a trunk, a head and a palm are in the middle."""


@dataclass(frozen=True)
class Part:
    """A capsule between two joints."""

    start: str
    end: str
    radius: float
    """Half the width of the part, in mean limb lengths."""
    layer: str
    """Parts of one layer are drawn as one shape, before or behind the other layers."""
    shade: Shade = "middle"
    """How bright it is where the masks are shaded by hue."""


@dataclass(frozen=True)
class Tip:
    """What goes on behind a last joint and is no limb of the layout: a foot or a hand."""

    near: str
    far: str
    """The last joint, which is the end of the limb from `near`."""
    part: Part
    """Radius, layer and shade; its ends are drawn anew for every picture."""
    is_foot: bool
    """A foot stands across the limb, a hand goes on along it."""


@dataclass(frozen=True)
class BodyShape:
    """All parts of a body."""

    parts: tuple[Part, ...]
    tips: tuple[Tip, ...] = ()
    mixed: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    """Which joints may come from another pose, and the joints that they hang on: one stem for all
    of them, or one for each side (`selfpose.training.bodies.recombination`)."""
    turn: float = TURN
    """How far the drawings that the reader learns from are turned at most, in radians: people stand
    upright, hands are free. Crops of images are turned by `distortion.TURN` at most."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of all layers, in the order in which parts name them."""
        named = [part.layer for part in (*self.parts, *(tip.part for tip in self.tips))]
        return tuple(dict.fromkeys(named))


_RADII = {
    "knee": 0.29,  # the thigh, which ends there
    "ankle": 0.20,
    "toe": 0.15,
    "elbow": 0.18,
    "wrist": 0.15,
    "spine": 0.46,
    "thorax": 0.46,
    "neck": 0.20,
    "head": 0.36,
    "hip": 0.25,
    "shoulder": 0.22,
}
_SHADES: Mapping[str, Shade] = {"right": "bright", "left": "dim"}
_FLANK_RADIUS = 0.36
_FOOT_RADIUS = 0.15
_HAND_RADIUS = 0.14
_FINGER_RADII = {"thumb": 0.25, "index": 0.21, "middle": 0.21, "ring": 0.20, "little": 0.18}
_PALM_RADIUS = 0.30
_HAND_TURN = 1.0
"""Largest turn of a drawn hand, in radians; chosen on validation among 0.15 to 3.14."""


def _side_and_name(joint: str) -> tuple[str, str]:
    side, _, name = joint.partition("_")
    return (side, name) if side in ("right", "left") else ("", joint)


def _layer(side: str, name: str) -> str:
    if name in ("neck", "head"):
        return "head"
    if not side or name in ("hip", "shoulder"):
        return "trunk"
    return f"{side} arm" if name in ("elbow", "wrist") else f"{side} leg"


def _limb(child: str, parent: str) -> Part:
    side, name = _side_and_name(child)
    layer = _layer(side, name)
    belongs = side and layer.startswith(side)
    return Part(parent, child, _RADII[name], layer, _SHADES[side] if belongs else "middle")


def _person(layout: Layout) -> BodyShape:
    names = layout.joints
    parts = [_limb(names[child], names[parent]) for child, parent in layout.limbs]
    tips = []
    for side in ("right", "left"):
        parts.append(Part(f"{side}_hip", f"{side}_shoulder", _FLANK_RADIUS, "trunk"))
        hand = Part("", "", _HAND_RADIUS, f"{side} arm", _SHADES[side])
        tips.append(Tip(f"{side}_elbow", f"{side}_wrist", hand, is_foot=False))
        if f"{side}_toe" not in names:
            foot = Part("", "", _FOOT_RADIUS, f"{side} leg", _SHADES[side])
            tips.append(Tip(f"{side}_knee", f"{side}_ankle", foot, is_foot=True))
    legs = [f"{side}_{name}" for side in ("right", "left") for name in ("knee", "ankle", "toe")]
    mixed = (
        (("right_shoulder",), ("right_elbow", "right_wrist")),
        (("left_shoulder",), ("left_elbow", "left_wrist")),
        (("right_hip", "left_hip"), tuple(name for name in legs if name in names)),
    )
    return BodyShape(tuple(parts), tuple(tips), mixed)


def _hand() -> BodyShape:
    parts, mixed = [], []
    for finger in FINGERS:
        joints = [f"{finger}_{i}" for i in range(1, 5)]
        parts.append(Part("wrist", joints[0], _PALM_RADIUS, "palm"))
        shade: Shade = "dim" if HAND_21.joints.index(joints[0]) in HAND_21.dim else "bright"
        for start, end in pairwise(joints):
            parts.append(Part(start, end, _FINGER_RADII[finger], finger, shade))
        mixed.append(((joints[0],), tuple(joints[1:])))
    knuckles = [f"{finger}_1" for finger in FINGERS[1:]]
    for start, end in pairwise(knuckles):
        parts.append(Part(start, end, _PALM_RADIUS, "palm"))
    return BodyShape(tuple(parts), mixed=tuple(mixed), turn=_HAND_TURN)


BODY_SHAPES: Mapping[str, BodyShape] = {
    H36M_17.name: _person(H36M_17),
    KEYPOINTGAN_17.name: _person(KEYPOINTGAN_17),
    HAND_21.name: _hand(),
}
"""The shape of each layout's body, by the layout's name."""
