"""Gives a 17-joint pose the shape of a body, as about 26 tapered capsules.

Read `build_capsules` first. Radii are those of a grown person; `Look.girth` scales them. Hands and
shoes have no joints of their own: they follow the forearm and the direction the hips face.

Frames and units: joints in camera axes (x right, y down, z away from the camera), mm.
Shape letters: J joints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from selfpose.data.synthetic.bodies.clothing import Fabric, Look
from selfpose.method.skeleton import Layout

__all__ = [
    "BodyFrame",
    "Capsule",
    "Vector",
    "body_frame",
    "build_capsules",
    "cross",
    "limb",
    "norm",
    "unit",
]

Vector = NDArray[np.float32]
"""A point or a direction, (3,)."""


@dataclass(frozen=True)
class Capsule:
    """Describes a tapered capsule between two points and the fabrics on its surface."""

    start: Vector
    """First end of the axis, (3,), in mm in camera axes."""
    end: Vector
    """Second end of the axis, (3,), in mm in camera axes."""
    radii_mm: tuple[float, float]
    """Radius at the start and at the end, in mm."""
    inner: Fabric
    """Fabric up to the cut."""
    outer: Fabric
    """Fabric beyond the cut."""
    origin: Vector
    """Point from which texture coordinates are measured, (3,), in mm in camera axes."""
    along: Vector
    """Unit direction of the texture's first axis, (3,); the cut is measured along it."""
    across: Vector
    """Unit direction of the texture's second axis, (3,)."""
    cut_mm: float = math.inf
    """Distance from the origin, along `along`, at which the fabric changes, in mm."""
    face: Vector | None = None
    """Unit direction in which a head looks, (3,); None for anything but a head with a face."""


@dataclass(frozen=True)
class BodyFrame:
    """Holds the unit directions of a body, (3,) each, in the axes of its joints."""

    left: Vector
    """Direction to the body's left."""
    up: Vector
    """Direction from the pelvis to the thorax."""
    forward: Vector
    """Direction in which the hips face."""


def body_frame(joints_j3: NDArray[np.float32], layout: Layout) -> BodyFrame:
    """Return the directions of a body's left, up and front, from its hips and thorax.

    Args:
        joints_j3: joints, (J, 3), in any unit, in any right-handed axes.
        layout: layout of the joints.
    """
    names = layout.joints
    up = joints_j3[names.index("thorax")] - joints_j3[layout.root]
    left = joints_j3[names.index("left_hip")] - joints_j3[names.index("right_hip")]
    forward = unit(cross(left, up))
    up = unit(up)
    return BodyFrame(left=cross(up, forward), up=up, forward=forward)


def build_capsules(joints_j3: NDArray[np.float32], layout: Layout, look: Look) -> list[Capsule]:
    """Return the capsules of a dressed body.

    Args:
        joints_j3: joints, (J, 3), in mm in camera axes.
        layout: layout of the joints, with the names of `h36m17`.
        look: clothes, colours and girth of the person.
    """
    at = dict(zip(layout.joints, joints_j3, strict=True))
    frame = body_frame(joints_j3, layout)
    return [
        *_trunk(at, frame, look),
        *_head(at, look),
        *_leg(at, "left", frame=frame, look=look),
        *_leg(at, "right", frame=frame, look=look),
        *_arm(at, "left", look=look),
        *_arm(at, "right", look=look),
    ]


def _trunk(at: dict[str, Vector], frame: BodyFrame, look: Look) -> list[Capsule]:
    pelvis, spine, thorax = at["pelvis"], at["spine"], at["thorax"]
    girth = look.girth

    def piece(start: Vector, end: Vector, *radii_mm: float) -> Capsule:
        return Capsule(
            start,
            end,
            (radii_mm[0] * girth, radii_mm[1] * girth),
            inner=look.left_trouser if look.face else look.shirt,
            outer=look.shirt,
            origin=pelvis,
            along=frame.up,
            across=frame.left,
            cut_mm=look.belt_mm,
        )

    def towards(joint: str, share: float) -> Vector:
        return thorax + np.float32(share) * (at[joint] - thorax)

    chest = spine + np.float32(0.75) * (thorax - spine)
    return [
        piece(pelvis, spine, 98, 100),
        piece(spine, chest, 100, 106),
        piece(at["left_hip"], at["right_hip"], 90, 90),
        piece(towards("left_shoulder", 0.95), towards("right_shoulder", 0.95), 58, 58),
        piece(towards("left_shoulder", 0.6), at["left_hip"], 84, 84),
        piece(towards("right_shoulder", 0.6), at["right_hip"], 84, 84),
    ]


def _head(at: dict[str, Vector], look: Look) -> list[Capsule]:
    thorax, neck, head = at["thorax"], at["neck"], at["head"]
    up = unit(head - neck)
    forward = unit(cross(at["left_shoulder"] - at["right_shoulder"], up))
    left = cross(up, forward)
    middle = neck + np.float32(0.75) * (head - neck)
    skull = limb(neck, middle, (82, 90), look.hair, origin=middle, across=left)
    parts = [
        limb(thorax, neck, (56 * look.girth, 54), look.skin, origin=thorax, across=left),
        replace(skull, outer=look.skin, face=forward if look.face else None),
    ]
    if look.long_hair:
        back, down = np.float32(-48) * forward, np.float32(-150) * up
        nape = middle + back
        parts.append(limb(nape, nape + down, (80, 62), look.hair, origin=nape, across=left))
    return parts


def _leg(at: dict[str, Vector], side: str, *, frame: BodyFrame, look: Look) -> list[Capsule]:
    hip, knee, ankle = (at[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle"))
    left = side == "left"
    cloth = look.left_trouser if left else look.right_trouser
    bare = look.left_hand if left else look.right_hand
    shoe = look.left_shoe if left else look.right_shoe
    girth, share = look.girth, look.trouser_share
    shin = unit(ankle - knee)
    toes = unit(frame.forward - np.dot(frame.forward, shin) * shin)
    sole = ankle + np.float32(42) * shin
    return [
        _sleeved(hip, knee, (81 * girth, 58 * girth), cloth, outer=bare, share=share),
        _sleeved(knee, ankle, (58 * girth, 38 * girth), cloth, outer=bare, share=share - 1),
        limb(ankle, sole - np.float32(25) * toes, (42, 44), shoe, origin=ankle, across=toes),
        limb(sole, sole + np.float32(145) * toes, (44, 34), shoe, origin=sole, across=shin),
    ]


def _arm(at: dict[str, Vector], side: str, *, look: Look) -> list[Capsule]:
    shoulder, elbow, wrist = (at[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist"))
    left = side == "left"
    cloth = look.left_sleeve if left else look.right_sleeve
    bare = look.left_hand if left else look.right_hand
    girth, share = look.girth, look.sleeve_share
    direction = unit(wrist - elbow)
    palm, tips = wrist + np.float32(20) * direction, wrist + np.float32(95) * direction
    return [
        _sleeved(shoulder, elbow, (54 * girth, 42 * girth), cloth, outer=bare, share=share),
        _sleeved(elbow, wrist, (41 * girth, 29 * girth), cloth, outer=bare, share=share - 1),
        limb(palm, tips, (34, 27), bare, origin=palm, across=_any_normal(direction)),
    ]


def _sleeved(
    start: Vector,
    end: Vector,
    radii_mm: tuple[float, float],
    inner: Fabric,
    *,
    outer: Fabric,
    share: float,
) -> Capsule:
    """Return a limb with the fabric `inner` up to a share of its length, and `outer` beyond."""
    axis = end - start
    along = unit(axis)
    cut = math.inf if share >= 1 else -math.inf if share <= 0 else share * float(norm(axis))
    return Capsule(
        start,
        end,
        radii_mm,
        inner=inner,
        outer=outer,
        origin=start,
        along=along,
        across=_any_normal(along),
        cut_mm=cut,
    )


def limb(
    start: Vector,
    end: Vector,
    radii_mm: tuple[float, float],
    fabric: Fabric,
    *,
    origin: Vector,
    across: Vector,
) -> Capsule:
    """Return a capsule of one fabric.

    Args:
        start: first end of the axis, (3,).
        end: second end of the axis, (3,), in the unit and axes of `start`.
        radii_mm: radius at the start and at the end, in the unit of `start`.
        fabric: fabric of the whole surface.
        origin: point from which texture coordinates are measured, (3,).
        across: unit direction of the texture's second axis, (3,).
    """
    along = unit(end - start)
    return Capsule(
        start,
        end,
        radii_mm,
        inner=fabric,
        outer=fabric,
        origin=origin,
        along=along,
        across=across,
    )


def _any_normal(direction: Vector) -> Vector:
    """Return a unit vector at right angles to a unit direction."""
    helper = (1.0, 0.0, 0.0) if abs(float(direction[0])) < 0.7 else (0.0, 1.0, 0.0)
    return unit(cross(direction, np.asarray(helper, dtype=np.float32)))


def cross(a: Vector, b: Vector) -> Vector:
    """Return the cross product of two vectors (3,); for one pair numpy is several times slower."""
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    return np.asarray((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx), dtype=np.float32)


def norm(vector: Vector) -> float:
    """Return the length of a vector (3,), in its unit."""
    return math.sqrt(float(vector @ vector))


def unit(vector: Vector) -> Vector:
    """Return the unit direction (3,) of a vector (3,); a vector of length zero stays zero."""
    return (vector / np.float32(max(norm(vector), 1e-6))).astype(np.float32)
