"""Gives a 21-joint pose the shape of a hand, as about 40 tapered capsules, and draws its looks.

Read `build_hand` first. Radii are those of a hand whose middle knuckle is 91 mm from the wrist;
they grow and shrink with it.

Frames and units: joints in camera axes (x right, y down, z away from the camera), any length unit.
Shape letters: J joints.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfpose.data.synthetic.bodies.anatomy import Capsule, Vector, cross, limb, norm, unit
from selfpose.data.synthetic.bodies.clothing import Fabric, any_cloth, any_skin, hsv
from selfpose.method.skeleton import FINGERS, HAND_21

__all__ = ["HandLook", "build_forearm", "build_hand", "clothes_hand", "plain_hand"]

_PALM_MM = 91.0
_FINGER_MM: dict[str, tuple[float, float, float, float]] = {
    "thumb": (15.0, 12.5, 10.5, 8.0),
    "index": (11.5, 9.5, 8.3, 6.8),
    "middle": (11.5, 9.7, 8.5, 7.0),
    "ring": (11.0, 9.2, 8.0, 6.6),
    "little": (10.0, 8.0, 7.0, 5.8),
}
"""Radius of each finger at its joints, from the base to the tip, in mm."""


@dataclass(frozen=True)
class HandLook:
    """Describes how one hand looks in all frames."""

    girth: float
    """Factor on all radii of the hand."""
    palm: Fabric
    """Fabric of the palm."""
    fingers: tuple[Fabric, ...]
    """Fabric of each finger, in the order of `FINGERS`."""
    nails: Fabric | None
    """Fabric of the nails; None draws no nails."""
    sleeve: Fabric | None
    """Fabric of the forearm; None draws no forearm."""


def plain_hand(rng: np.random.Generator) -> HandLook:
    """Draw a look with one colour per finger and one for the palm, without nails and forearm."""
    turn, bright = rng.uniform(-0.04, 0.04), rng.uniform(0.8, 1.0)
    hues = (0.03, 0.14, 0.33, 0.52, 0.66)
    fingers = tuple(Fabric(hsv(hue + turn, 0.7, 0.95 * bright)) for hue in hues)
    palm = Fabric(hsv(0.85 + turn, 0.3, bright))
    return HandLook(rng.uniform(0.9, 1.15), palm, fingers, nails=None, sleeve=None)


def clothes_hand(rng: np.random.Generator) -> HandLook:
    """Draw a look of skin all over, with nails and a sleeve."""
    skin = any_skin(rng)
    red, green, blue = skin.colour
    nails = Fabric((min(255.0, red * 1.12), min(255.0, green * 1.1), min(255.0, blue * 1.14)))
    bare = rng.random() < 0.4
    return HandLook(
        girth=rng.uniform(0.88, 1.18),
        palm=skin,
        fingers=(skin,) * len(FINGERS),
        nails=nails,
        sleeve=skin if bare else Fabric(any_cloth(rng)),
    )


def build_hand(joints_j3: NDArray[np.float32], look: HandLook) -> list[Capsule]:
    """Return the capsules of a hand.

    Args:
        joints_j3: joints of the layout `hand21`, (J, 3), in any length unit in camera axes.
        look: colours and girth of the hand.
    """
    at = dict(zip(HAND_21.joints, joints_j3, strict=True))
    scale = _scale(joints_j3)
    side = unit(at["index_1"] - at["little_1"])
    parts = _palm(at, look, scale=scale * look.girth, side=side)
    for finger, fabric in zip(FINGERS, look.fingers, strict=True):
        points = [at[f"{finger}_{i}"] for i in range(1, 5)]
        radii = [radius * scale * look.girth for radius in _FINGER_MM[finger]]
        parts += [
            limb(points[i], points[i + 1], (radii[i], radii[i + 1]), fabric, **_texture(points[i]))
            for i in range(3)
        ]
        if look.nails is not None:
            bend = (
                side
                if finger != "thumb"
                else cross(points[2] - points[1], at["little_1"] - points[1])
            )
            parts.append(_nail(points, unit(bend), radii[3], look.nails))
    return parts


def build_forearm(joints_j3: NDArray[np.float32], look: HandLook) -> list[Capsule]:
    """Return the capsules of the forearm behind the wrist, which is no part of the hand.

    Args:
        joints_j3: joints of the layout `hand21`, (J, 3), in any length unit in camera axes.
        look: fabric of the sleeve and girth; without a sleeve there are no capsules.
    """
    if look.sleeve is None:
        return []
    at = dict(zip(HAND_21.joints, joints_j3, strict=True))
    scale = np.float32(_scale(joints_j3))
    back = scale * unit(at["wrist"] - at["middle_1"])
    side = scale * unit(at["index_1"] - at["little_1"])
    parts = []
    for aside in (np.float32(-9), np.float32(9)):
        start = at["wrist"] + aside * side + np.float32(12) * back
        end = start + np.float32(110) * back + aside * side
        radii = (float(scale) * 17 * look.girth, float(scale) * 26 * look.girth)
        parts.append(limb(start, end, radii, look.sleeve, **_texture(start)))
    return parts


def _palm(at: dict[str, Vector], look: HandLook, *, scale: float, side: Vector) -> list[Capsule]:
    """Return the metacarpals, the webs between the knuckles and the ball of the thumb."""
    wrist = at["wrist"]
    reach = np.float32(10 * scale) * side

    def piece(start: Vector, end: Vector, *radii_mm: float) -> Capsule:
        radii = (radii_mm[0] * scale, radii_mm[1] * scale)
        return limb(start, end, radii, look.palm, **_texture(start))

    starts = {"index": wrist + reach, "middle": wrist, "ring": wrist, "little": wrist - reach}
    parts = [
        piece(start, at[f"{finger}_1"], 15, _FINGER_MM[finger][0])
        for finger, start in starts.items()
    ]
    for first, second in itertools.pairwise(FINGERS[1:]):
        parts.append(piece(at[f"{first}_1"], at[f"{second}_1"], 10, 10))
    half = np.float32(0.5) * (at["thumb_1"] + at["thumb_2"])
    web = np.float32(0.45) * wrist + np.float32(0.55) * at["index_1"]
    heel = np.float32(0.6) * wrist + np.float32(0.4) * at["little_1"]
    return [
        *parts,
        piece(wrist + reach, at["thumb_1"], 15, 15),
        piece(half, web, 11, 12),
        piece(heel, at["little_1"], 15, 11),
    ]


def _nail(points: list[Vector], bend: Vector, radius: float, fabric: Fabric) -> Capsule:
    """Return a fingernail: a small capsule that looks out of the back of the fingertip."""
    along = unit(points[3] - points[2])
    outward = np.float32(0.72 * radius) * unit(cross(along, bend))
    tip = points[3] + outward
    start = tip - np.float32(1.3 * radius) * along
    return limb(start, tip, (0.5 * radius, 0.5 * radius), fabric, **_texture(start))


def _texture(origin: Vector) -> dict[str, Vector]:
    """Return the texture's place that a capsule needs, though a hand's fabrics have no pattern."""
    return {"origin": origin, "across": np.asarray((0, 1, 0), dtype=np.float32)}


def _scale(joints_j3: NDArray[np.float32]) -> float:
    """Return how many units of the joints are one mm on a hand of middling size."""
    return norm(joints_j3[HAND_21.head] - joints_j3[HAND_21.root]) / _PALM_MM
