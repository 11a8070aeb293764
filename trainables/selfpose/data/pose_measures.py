"""Measures poses: the size of a body, its knees, whether it stands upright, and 2D against 3D.

`plausibility` says which of these numbers are possible, and where its bounds come from.

Frames and units: 3D joints in mm, in camera axes (x right, y down, z forward) or world axes (z up);
2D joints in pixels. Shape letters: N poses, J joints, S limbs that are measured, D axes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from selfpose.method.skeleton import HAND_21, Layout

__all__ = [
    "UNITS_MM",
    "Axes",
    "BodyPoses",
    "Bounds2D",
    "Compared2D",
    "Rows",
    "Size",
    "Unit",
    "extent",
    "fit_lens",
    "frozen_rows",
    "is_hand",
    "radius",
    "size_of",
    "stretch",
]

Axes = Literal["camera", "world"]
"""Axes of 3D joints."""
Rows = NDArray[np.bool_]
"""Says something about each row, (N,)."""
Unit = Literal["m", "cm", "mm", "inch"]
"""Name of a unit of length, as `--unit` takes it."""
UNITS_MM: Mapping[str, float] = {"m": 1000.0, "cm": 10.0, "mm": 1.0, "inch": 25.4}
"""Length of each unit in mm."""

FROZEN_ROWS = 10
"""Number of equal poses in a row that make a take frozen. A take of 3 to 9 rows is frozen if all of
them are equal."""
FROZEN_MM = 0.01
"""Largest difference of a joint's coordinates between equal poses, in mm or pixels."""
BENT_MM = 60.0
"""Distance of a knee from the line between hip and ankle from which the knee counts as bent."""

NEARER = 0.8
"""How much nearer the next pose must be with its sides exchanged for the sides to have jumped. One
jump too many does no harm, because the knees decide."""


def is_hand(layout: Layout) -> bool:
    """Return whether a layout's joints are those of a hand."""
    return layout.name == HAND_21.name


@dataclass(frozen=True)
class Size:
    """Says how the size of a layout's body follows from its limbs, and what sizes there are."""

    what: str
    """Words for the size."""
    low_mm: float
    """Smallest size there is."""
    high_mm: float
    """Largest size there is."""
    usual_mm: float
    """Size of a usual adult."""
    ends_s2: NDArray[np.int64]
    """The two joints of each limb that is measured, (S, 2)."""
    shares_s: NDArray[np.float64]
    """Length of each limb as a share of the size, (S,)."""

    def measure(self, joints_nj3: NDArray[Any]) -> NDArray[np.float64]:
        """Return the size of each pose, (N,), in its unit: the median of what the limbs say."""
        ends_ns23 = joints_nj3[:, self.ends_s2]
        length_ns = _length(ends_ns23[:, :, 0] - ends_ns23[:, :, 1])
        return np.asarray(np.median(length_ns / self.shares_s, axis=1), dtype=np.float64)

    def likely_unit(self, size: float) -> str:
        """Return the unit in which a size is nearest to the usual one."""
        if not size > 0:
            return "mm"
        return min(UNITS_MM, key=lambda unit: abs(math.log(size * UNITS_MM[unit] / self.usual_mm)))


_BODY_SHARES = (
    *(("hip", "knee", 0.245), ("knee", "ankle", 0.246)),
    *(("shoulder", "elbow", 0.186), ("elbow", "wrist", 0.146)),
)
"""Ends of each limb, and its length as a share of body height (Drillis and Contini 1966)."""


@functools.cache
def size_of(layout: Layout) -> Size:
    """Return how a layout's bodies are measured: people by their height, hands by their length."""
    if is_hand(layout):
        ratios = np.asarray(layout.bone_ratios)
        is_middle = [layout.joints[child].startswith("middle") for child, _ in layout.limbs]
        shares = ratios / ratios[is_middle].sum()
        return Size("length of the hand", 85.0, 260.0, 183.0, np.asarray(layout.limbs), shares)
    ends_of = [
        (layout.joints.index(f"{side}_{first}"), layout.joints.index(f"{side}_{second}"), share)
        for side in ("left", "right")
        for first, second, share in _BODY_SHARES
    ]
    ends = np.asarray([(first, second) for first, second, _ in ends_of])
    shares = np.asarray([share for *_, share in ends_of])
    return Size("height from limb lengths", 600.0, 2500.0, 1700.0, ends, shares)


@dataclass(frozen=True)
class BodyPoses:
    """Measures 3D poses; each number is computed once."""

    layout: Layout
    """Layout of the joints."""
    joints_nj3: NDArray[Any]
    """Joints, (N, J, 3), in mm."""
    axes: Axes
    """Axes of the joints."""

    @functools.cached_property
    def size_n(self) -> NDArray[np.float64]:
        """Size of each pose, (N,), in mm."""
        return size_of(self.layout).measure(self.joints_nj3)

    @functools.cached_property
    def up_n(self) -> NDArray[np.float64]:
        """Height of the head above the ankles, (N,), as a share of body height."""
        up_nj = -self.joints_nj3[..., 1] if self.axes == "camera" else self.joints_nj3[..., 2]
        ankles_n = (up_nj[:, self._index("left_ankle")] + up_nj[:, self._index("right_ankle")]) / 2
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # of broken poses
            return np.asarray((up_nj[:, self.layout.head] - ankles_n) / self.size_n, np.float64)

    @functools.cached_property
    def knees(self) -> tuple[NDArray[np.float64], Rows]:
        """How far each knee bends forwards, in mm, and whether it is bent, (N, 2) each."""
        trunk = "spine" if "spine" in self.layout.joints else "thorax"
        up_n3 = self._joint(trunk) - self.joints_nj3[:, self.layout.root]
        forward_n3 = _unit(_cross(up_n3, self._joint("right_hip") - self._joint("left_hip")))
        forwards, bent = [], []
        for side in ("left", "right"):
            hip_n3 = self._joint(f"{side}_hip")
            line_n3 = _unit(self._joint(f"{side}_ankle") - hip_n3)
            off_n3 = self._joint(f"{side}_knee") - hip_n3
            off_n3 = off_n3 - _dot(off_n3, line_n3)[:, None] * line_n3
            forwards.append(_dot(off_n3, forward_n3))
            bent.append(_dot(off_n3, off_n3) > BENT_MM**2)
        return np.stack(forwards, 1), np.stack(bent, 1)

    def pick(self, rows: NDArray[Any]) -> BodyPoses:
        """Return some of the poses."""
        return BodyPoses(self.layout, self.joints_nj3[rows], self.axes)

    def longest_limb_n(self) -> NDArray[np.float64]:
        """Return the length of each pose's longest limb, (N,), in mm."""
        children, parents = np.asarray(self.layout.limbs).T
        limb_nl3 = self.joints_nj3[:, children] - self.joints_nj3[:, parents]
        return np.asarray(_length(limb_nl3).max(axis=1), dtype=np.float64)

    def pieces_n(self) -> NDArray[np.int64]:
        """Number the pieces between which left and right jump, (N,), poses in the order of time.

        The sides jump where the next pose is nearer with its sides exchanged.
        """
        joints_nj3 = self.joints_nj3
        mirrored_nj3 = joints_nj3[1:, list(self.layout.mirror)]
        step_n = _length(joints_nj3[1:] - joints_nj3[:-1]).mean(axis=1)
        swapped_n = _length(mirrored_nj3 - joints_nj3[:-1]).mean(axis=1)
        return np.cumsum([0, *(swapped_n < NEARER * step_n)])

    def height_px_n(self, seen_nj2: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the height in pixels that each person has in the picture when they stand, (N,).

        Args:
            seen_nj2: where the joints are seen, (N, J, 2), in pixels.
        """
        focal_n = radius(seen_nj2) / radius(self.plane_nj2)
        return np.asarray(focal_n * self.size_n / self.joints_nj3[:, self.layout.root, 2])

    @property
    def plane_nj2(self) -> NDArray[np.float64]:
        """The joints' x/z and y/z, (N, J, 2); no unit."""
        return np.asarray(self.joints_nj3[..., :2] / self.joints_nj3[..., 2:], dtype=np.float64)

    def _index(self, name: str) -> int:
        return self.layout.joints.index(name)

    def _joint(self, name: str) -> NDArray[np.float64]:
        return np.asarray(self.joints_nj3[:, self._index(name)], dtype=np.float64)


@dataclass(frozen=True)
class Bounds2D:
    """Says how far 2D joints may be from where they should be, in shares of a person's height."""

    row: float
    """Largest median distance of the joints in one row; their mean may be twice as large, because
    single joints can be anywhere."""
    take: float
    """Largest median distance over the rows of a take."""
    shift: float
    """Largest median shift of the whole pose over the rows of a take."""
    scale: float
    """Largest median ratio of the poses' sizes, as the distance of its logarithm from 0."""


@dataclass(frozen=True)
class Compared2D:
    """Compares the 2D joints of some rows of one camera with where they should be."""

    given_nj2: NDArray[np.float64]
    """The 2D joints, (N, J, 2), in pixels."""
    seen_nj2: NDArray[np.float64]
    """Where they should be, (N, J, 2), in pixels."""
    height_px_n: NDArray[np.float64]
    """Height of each person in the picture when they stand, (N,), in pixels."""

    @functools.cached_property
    def distance_n(self) -> NDArray[np.float64]:
        """Mean distance of each row's joints, (N,), as a share of the person's height."""
        return self._distance(self.given_nj2, self.seen_nj2)

    def is_near_n(self, bounds: Bounds2D) -> Rows:
        """Return which rows are within bounds, (N,)."""
        distance_nj = _length(self.given_nj2 - self.seen_nj2) / self.height_px_n[:, None]
        near_n: Rows = np.median(distance_nj, axis=1) <= bounds.row
        return near_n & (self.distance_n <= 2 * bounds.row)

    @functools.cached_property
    def shift(self) -> float:
        """Median shift of the whole pose, as a share of the person's height."""
        shift_n2 = (self.given_nj2 - self.seen_nj2).mean(axis=1) / self.height_px_n[:, None]
        return float(np.linalg.norm(np.median(shift_n2, axis=0)))

    @functools.cached_property
    def scale(self) -> float:
        """Median ratio of the poses' sizes, as the distance of its logarithm from 0."""
        ratio = float(np.median(radius(self.given_nj2) / radius(self.seen_nj2)))
        return abs(math.log(ratio)) if ratio > 0 else math.inf

    def is_within(self, bounds: Bounds2D) -> bool:
        """Return whether the rows as a whole are within bounds."""
        distance = float(np.median(self.distance_n))
        return distance <= bounds.take and self.shift <= bounds.shift and self.scale <= bounds.scale

    def centred_distance(self, change: Any = (1.0, 1.0), order: Any = slice(None)) -> float:
        """Return the median distance, as a share of the height, when poses lie on one another.

        Args:
            change: factors of x and y of the given joints around their middle, (2,).
            order: order of the given joints, (J,).
        """
        given_nj2 = _centred(self.given_nj2)[:, order] * change
        return float(np.median(self._distance(given_nj2, _centred(self.seen_nj2))))

    def _distance(
        self, a_nj2: NDArray[np.float64], b_nj2: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return np.asarray(_length(a_nj2 - b_nj2).mean(axis=1) / self.height_px_n, np.float64)


def frozen_rows(poses_njd: NDArray[Any]) -> Rows:
    """Return which poses of one camera, in the order of time, belong to a frozen stretch, (N,).

    Args:
        poses_njd: poses, (N, J, D), in mm or pixels.
    """
    moved_n = ~(np.abs(np.diff(poses_njd, axis=0)).max(axis=(1, 2)) <= FROZEN_MM)
    starts = np.flatnonzero(np.concatenate([[True], moved_n]))
    rows = np.diff([*starts, len(poses_njd)])
    return np.repeat(rows >= min(FROZEN_ROWS, max(3, len(poses_njd))), rows)


def fit_lens(
    plane_nj2: NDArray[np.float64], given_nj2: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit focal lengths and centre, (2,) each in pixels, by which points x/z are seen as given.

    Rows that fit badly are left out of a second and third fit.

    Args:
        plane_nj2: x/z and y/z of the joints, (N, J, 2); no unit.
        given_nj2: 2D joints, (N, J, 2), in pixels.
    """
    kept_n = np.ones(len(plane_nj2), dtype=bool)
    focal_2, centre_2 = np.ones(2), np.zeros(2)
    for _ in range(3):
        for axis in range(2):
            x_m, wanted_m = plane_nj2[kept_n, :, axis], given_nj2[kept_n, :, axis]
            off_m = x_m - x_m.mean()
            focal_2[axis] = (off_m * wanted_m).sum() / max(float((off_m * off_m).sum()), 1e-12)
            centre_2[axis] = wanted_m.mean() - focal_2[axis] * x_m.mean()
        off_n = _length(plane_nj2 * focal_2 + centre_2 - given_nj2).mean(axis=1)
        kept_n = off_n <= 2 * np.median(off_n)
    return focal_2, centre_2


def stretch(layout: Layout, joints_nj2: NDArray[Any], rank: int) -> NDArray[np.float64]:
    """Return how much the longest limb in each picture stands out, (N,), no unit.

    Each limb's 2D length is divided by its usual one. What is near 1 for all limbs in a plane is
    smaller for limbs towards the camera, so the largest is compared with one a few ranks below.

    Args:
        layout: the layout of the joints.
        joints_nj2: 2D joints, (N, J, 2), in pixels.
        rank: rank of the limb to compare with; 1 is the longest.
    """
    children, parents = np.asarray(layout.limbs).T
    length_ns = _length(joints_nj2[:, children].astype(np.float64) - joints_nj2[:, parents])
    ordered_ns = np.sort(length_ns / np.asarray(layout.bone_ratios), axis=1)
    return np.asarray(ordered_ns[:, -1] / np.maximum(ordered_ns[:, -rank], 1e-12), np.float64)


def extent(poses_njd: NDArray[Any]) -> NDArray[np.float64]:
    """Return the larger side of each pose's box, (N,), in the unit of the poses (N, J, D)."""
    with np.errstate(invalid="ignore"):  # of infinities
        side_nd = poses_njd.max(axis=1) - poses_njd.min(axis=1)
        return np.asarray(side_nd.max(axis=1), dtype=np.float64)


def radius(joints_nj2: NDArray[Any]) -> NDArray[np.float64]:
    """Return the size of each 2D pose (N, J, 2), (N,): its joints' norm around their middle."""
    centred_nj2 = _centred(joints_nj2)
    return np.asarray(np.sqrt(np.einsum("njd,njd->n", centred_nj2, centred_nj2)), np.float64)


def _centred(joints_nj2: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(joints_nj2 - joints_nj2.mean(axis=1, keepdims=True), dtype=np.float64)


def _length(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Return the lengths of vectors (..., D); several times faster than numpy's norm."""
    with np.errstate(over="ignore", invalid="ignore"):  # of broken poses
        return np.asarray(np.sqrt(np.einsum("...d,...d->...", vectors, vectors)), np.float64)


def _dot(a_n3: NDArray[Any], b_n3: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("nd,nd->n", a_n3, b_n3), dtype=np.float64)


def _cross(a_n3: NDArray[Any], b_n3: NDArray[Any]) -> NDArray[np.float64]:
    (ax, ay, az), (bx, by, bz) = a_n3.T, b_n3.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)


def _unit(vectors_n3: NDArray[Any]) -> NDArray[np.float64]:
    """Return vectors (N, 3) of length 1; one of length 0 stays."""
    length_n = _length(vectors_n3)
    return np.asarray(vectors_n3 / np.where(length_n > 0, length_n, 1.0)[:, None], np.float64)
