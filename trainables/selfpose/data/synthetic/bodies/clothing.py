"""Draws how a subject looks at random: colours, patterns, sleeves and trousers.

Colours are RGB, 0..255, before lighting. Lengths along a limb are shares of the limb.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = [
    "Colour",
    "Fabric",
    "Look",
    "any_cloth",
    "any_skin",
    "clothes_look",
    "hsv",
    "plain_look",
]

Colour = tuple[float, float, float]
"""Red, green and blue, 0..255."""
Pattern = Literal["none", "hoops", "stripes", "checks", "spots"]

_SKIN: tuple[Colour, ...] = (
    (244, 209, 184),
    (229, 184, 148),
    (206, 155, 118),
    (172, 120, 84),
    (128, 84, 58),
    (88, 58, 42),
)
_HAIR: tuple[Colour, ...] = (
    (30, 26, 24),
    (66, 44, 30),
    (112, 74, 44),
    (182, 146, 92),
    (150, 148, 146),
)
_PATTERNS: tuple[Pattern, ...] = ("none", "hoops", "stripes", "checks", "spots")


@dataclass(frozen=True)
class Fabric:
    """Describes the surface of a body's part: one colour, or two in a pattern."""

    colour: Colour
    """First colour."""
    second: Colour = (0.0, 0.0, 0.0)
    """Second colour, if there is a pattern."""
    pattern: Pattern = "none"
    """Pattern of the two colours; `none` has the first colour alone."""
    period_mm: float = 100.0
    """Length after which the pattern repeats, in mm."""


@dataclass(frozen=True)
class Look:
    """Describes how one subject looks in all frames."""

    girth: float
    """Factor on all radii of the body."""
    skin: Fabric
    """Fabric of neck and face."""
    hair: Fabric
    """Fabric of the hair."""
    long_hair: bool
    """Whether the hair reaches below the neck."""
    face: bool
    """Whether the head has a face in front and hair behind; otherwise it is one colour all over."""
    shirt: Fabric
    """Fabric of the trunk above the belt."""
    left_sleeve: Fabric
    """Fabric of the left arm as far as the sleeve reaches."""
    right_sleeve: Fabric
    """Fabric of the right arm as far as the sleeve reaches."""
    left_hand: Fabric
    """Fabric of the left hand, and of the left arm and leg where they are bare."""
    right_hand: Fabric
    """Fabric of the right hand, and of the right arm and leg where they are bare."""
    left_trouser: Fabric
    """Fabric of the left leg as far as the trousers reach."""
    right_trouser: Fabric
    """Fabric of the right leg as far as the trousers reach."""
    left_shoe: Fabric
    """Fabric of the left shoe."""
    right_shoe: Fabric
    """Fabric of the right shoe."""
    sleeve_share: float
    """Place where the sleeves end: 0 at the shoulder, 1 at the elbow, 2 at the wrist."""
    trouser_share: float
    """Place where the trousers end: 0 at the hip, 1 at the knee, 2 at the ankle."""
    belt_mm: float
    """Height above the pelvis at which the shirt ends on the trunk, in mm."""


def plain_look(rng: np.random.Generator) -> Look:
    """Draw a look with one colour per part, in which left and right limbs differ."""
    turn, bright = rng.uniform(-0.04, 0.04), rng.uniform(0.8, 1.0)

    def part(hue: float, saturation: float, value: float) -> Fabric:
        return Fabric(hsv(hue + turn, saturation, value * bright))

    left_arm, right_arm = part(0.14, 0.75, 0.95), part(0.52, 0.65, 0.9)
    left_leg, right_leg = part(0.04, 0.75, 0.9), part(0.63, 0.6, 0.95)
    head, trunk = part(0.85, 0.35, 1.0), part(0.33, 0.5, 0.8)
    return Look(
        girth=rng.uniform(0.86, 1.2),
        skin=head,
        hair=head,
        long_hair=False,
        face=False,
        shirt=trunk,
        left_sleeve=left_arm,
        right_sleeve=right_arm,
        left_hand=left_arm,
        right_hand=right_arm,
        left_trouser=left_leg,
        right_trouser=right_leg,
        left_shoe=left_leg,
        right_shoe=right_leg,
        sleeve_share=2.0,
        trouser_share=2.0,
        belt_mm=-1000.0,
    )


def clothes_look(rng: np.random.Generator) -> Look:
    """Draw a dressed look: left and right limbs are alike, and patterns make false edges."""
    skin = any_skin(rng)
    hair = Fabric(_scaled(_HAIR[rng.integers(len(_HAIR))], rng.uniform(0.7, 1.2)))
    shirt = Fabric(
        any_cloth(rng),
        second=any_cloth(rng),
        pattern=_PATTERNS[rng.integers(len(_PATTERNS))],
        period_mm=rng.uniform(70.0, 170.0),
    )
    legs, shoes = Fabric(_trousers(rng)), Fabric(_scaled(any_cloth(rng), 0.7))
    return Look(
        girth=rng.uniform(0.86, 1.25),
        skin=skin,
        hair=hair,
        long_hair=bool(rng.random() < 0.4),
        face=True,
        shirt=shirt,
        left_sleeve=shirt,
        right_sleeve=shirt,
        left_hand=skin,
        right_hand=skin,
        left_trouser=legs,
        right_trouser=legs,
        left_shoe=shoes,
        right_shoe=shoes,
        sleeve_share=float(rng.choice([0.3, 0.6, 0.9, 1.4, 1.95])),
        trouser_share=float(rng.choice([0.6, 0.9, 1.5, 1.9, 1.95])),
        belt_mm=float(rng.choice([-20.0, 10.0, 60.0])),
    )


def any_skin(rng: np.random.Generator) -> Fabric:
    """Draw the colour of a skin, as a plain fabric."""
    gain = rng.uniform(0.85, 1.08)
    return Fabric(_scaled(_SKIN[rng.integers(len(_SKIN))], gain))


def any_cloth(rng: np.random.Generator) -> Colour:
    """Draw the colour of a cloth, of any hue."""
    return hsv(rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.25, 0.95))


def _trousers(rng: np.random.Generator) -> Colour:
    return hsv(rng.random(), rng.uniform(0.05, 0.5), rng.uniform(0.15, 0.75))


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return the colour with a hue (in turns), a saturation and a value (both 0 to 1)."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return (255 * red, 255 * green, 255 * blue)


def _scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255.0, channel * factor) for channel in colour)
    return (red, green, blue)
