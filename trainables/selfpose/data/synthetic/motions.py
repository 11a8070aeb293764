"""Motions in a room: what the importers that draw people hand over, whatever they read.

Frames and units: world axes (z up), millimetres, floor at z = 0.
Shape letters: F frames of a motion, J joints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfpose.method.skeleton import Layout

__all__ = ["Corpus", "Motion", "choose_frames", "first_half", "half_of", "place_in_room"]

ANKLE_HEIGHT_MM = 90.0
REACH_MM = 900.0
"""The pelvis stays within this distance of the room's middle, in x and in y."""


@dataclass(frozen=True)
class Motion:
    """One continuous recording of one subject."""

    name: str
    subject: int
    """Index into `Corpus.subjects`."""
    split: str
    """`train`, `prior`, `val` or `test`."""
    frame_f: NDArray[np.int32]
    activity_f: NDArray[np.int32]
    """Index into `Corpus.activities`."""
    joints_fj3: NDArray[np.float32]


@dataclass(frozen=True)
class Corpus:
    """All motions of one import, before anything is rendered."""

    format: str
    layout: Layout
    licence: str
    source_digest: str
    """SHA-256 of what was read; empty when nothing was."""
    activities: tuple[str, ...]
    subjects: tuple[str, ...]
    motions: tuple[Motion, ...]
    enlarged: float = 1.0
    """How many times life size the motions are: a hand fills the room like a person. The store
    holds life size."""


def half_of(motion_name: str) -> str:
    """Say whether a training motion gives images (`train`) or 2D poses (`prior`).

    The two never share a motion, so no image has its own pose in the prior.
    """
    return "train" if hashlib.sha256(motion_name.encode()).digest()[0] % 2 == 0 else "prior"


def first_half(frame_n: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which rows are of the first half of a recording's frames.

    Args:
        frame_n: the frame of each row, (N,); the same frame of several cameras is one.
    """
    frames, place_n = np.unique(frame_n, return_inverse=True)
    halves: NDArray[np.bool_] = place_n.reshape(-1) < (len(frames) + 1) // 2
    return halves


def place_in_room(
    joints_fj3: NDArray[np.float32], layout: Layout, *, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Put a motion on the floor, within reach of the room's middle.

    A path longer than the room is shrunk as a whole, so that it stays continuous; the pose
    itself is never changed.

    Args:
        joints_fj3: joints, (F, J, 3), mm, z up.
        layout: the joints' layout; its ankles stand on the floor.
        rng: where the place in the room comes from.
    """
    ankles = [j for j, name in enumerate(layout.joints) if name.endswith("ankle")]
    joints_fj3 = joints_fj3.astype(np.float64)
    path_f2 = joints_fj3[:, layout.root, :2]
    low_2, high_2 = path_f2.min(axis=0), path_f2.max(axis=0)
    half_2 = (high_2 - low_2) / 2
    shrink = min(1.0, REACH_MM / max(float(half_2.max()), 1.0))
    room_2 = REACH_MM - half_2 * shrink
    middle_2 = rng.uniform(-1.0, 1.0, 2) * room_2
    placed_f2 = (path_f2 - (low_2 + high_2) / 2) * shrink + middle_2

    placed_fj3 = joints_fj3.copy()
    placed_fj3[..., :2] += (placed_f2 - path_f2)[:, None]
    placed_fj3[..., 2] += ANKLE_HEIGHT_MM - joints_fj3[:, ankles, 2].min()
    return placed_fj3.astype(np.float32)


def choose_frames(lengths: Sequence[int], limit: int | None) -> list[NDArray[np.int64]]:
    """Choose at most `limit` frames, evenly over motions and evenly within each.

    Short motions give all they have, and the others share what is left.

    Returns:
        For each motion the chosen frame positions, in order; their number is
        min(limit, sum of lengths).
    """
    counts = np.asarray(lengths, dtype=np.int64)
    if limit is not None and limit < int(counts.sum()):
        counts = _even_shares(counts, limit)
    return [
        (np.arange(count) * length + length // 2) // max(count, 1)
        for count, length in zip(counts.tolist(), lengths, strict=True)
    ]


def _even_shares(lengths: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Return shares with the given sum, none above its length, as equal as possible."""
    low, high = 0, int(lengths.max())
    while low < high:  # the largest equal share whose sum stays within the limit
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if np.minimum(lengths, middle).sum() <= limit else (low, middle - 1)
        )
    shares = np.minimum(lengths, low)
    longer = np.flatnonzero(lengths > low)
    left = limit - int(shares.sum())
    shares[longer[np.arange(left) * len(longer) // max(left, 1)]] += 1
    return shares
