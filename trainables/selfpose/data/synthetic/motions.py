"""Defines the motions that importers give to `drawing`, and places them in a room.

Frames and units: world axes (z up), millimetres, floor at z = 0.
Shape letters: F frames of a motion, J joints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfpose.data.plausibility import Checks, Take
from selfpose.data.sources import Skip
from selfpose.method.skeleton import Layout

__all__ = [
    "Corpus",
    "Motion",
    "check_corpus",
    "choose_frames",
    "first_half",
    "half_of",
    "place_in_room",
]

ANKLE_HEIGHT_MM = 90.0
"""Height of the lowest ankle's joint above the floor, in mm."""
REACH_MM = 900.0
"""Largest distance of the pelvis from the room's middle, in x and in y, in mm."""


@dataclass(frozen=True)
class Motion:
    """Holds one continuous recording of one subject."""

    name: str
    """Name of the motion, which no other motion has."""
    subject: int
    """Index of the subject in `Corpus.subjects`."""
    split: str
    """Name of the split that the motion goes into: `train`, `prior`, `val` or `test`."""
    frame_f: NDArray[np.int32]
    """Number of each frame in the recording, (F,)."""
    activity_f: NDArray[np.int32]
    """Index of each frame's activity in `Corpus.activities`, (F,)."""
    joints_fj3: NDArray[np.float32]
    """Joints, (F, J, 3), in mm in world axes."""


@dataclass(frozen=True)
class Corpus:
    """Holds all motions of one import, before anything is drawn."""

    format: str
    """Name of the importer."""
    layout: Layout
    """Layout of the joints."""
    licence: str
    """Licence of the data, in words."""
    source_digest: str
    """SHA-256 of the file that was read; empty if no file was read."""
    activities: tuple[str, ...]
    """Names of the activities."""
    subjects: tuple[str, ...]
    """Names of the subjects."""
    motions: tuple[Motion, ...]
    """All motions, of every split."""
    enlarged: float = 1.0
    """Factor by which the motions are larger than in life. A hand is enlarged until it fills the
    room like a person; the store holds its poses in life size."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the checks of `plausibility` measured, for `Source.facts`."""
    skipped: tuple[Skip, ...] = ()
    """Frames that were left out, by the reader or by the checks."""


def check_corpus(corpus: Corpus, where: object) -> Corpus:
    """Return a corpus without the frames that no person can have; a motion may lose all of them.

    Args:
        corpus: the motions, in mm in world axes (z up).
        where: the file that was read, or the importer's name, for a message.

    Raises:
        BadInputError: most frames are bad for one reason.
    """
    checks = Checks(corpus.layout)
    kept: list[Motion] = []
    for motion in corpus.motions:
        good_f = checks.check(
            Take(
                name=motion.name,
                split=motion.split,
                names=[f"{motion.name} frame {frame}" for frame in motion.frame_f.tolist()],
                frame_n=motion.frame_f,
                joints_3d_nj3=motion.joints_fj3.astype(np.float64) / corpus.enlarged,
                axes="world",
            )
        )
        if good_f.any():
            kept.append(motion if good_f.all() else _pick_frames(motion, good_f))
    checks.finish(where)
    return replace(
        corpus,
        motions=tuple(kept),
        facts=checks.facts(),
        skipped=(*corpus.skipped, *checks.skipped),
    )


def _pick_frames(motion: Motion, good_f: NDArray[np.bool_]) -> Motion:
    return replace(
        motion,
        frame_f=motion.frame_f[good_f],
        activity_f=motion.activity_f[good_f],
        joints_fj3=motion.joints_fj3[good_f],
    )


def half_of(motion_name: str) -> str:
    """Return whether a training motion gives images (`train`) or 2D poses (`prior`).

    The hash of the name decides. The two splits never share a motion, so no image has its own pose
    in the prior.
    """
    return "train" if hashlib.sha256(motion_name.encode()).digest()[0] % 2 == 0 else "prior"


def first_half(frame_n: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows belong to the first half of a recording's frames, (N,).

    Args:
        frame_n: number of each row's frame, (N,); rows of several cameras share a number, and each
            number counts once.
    """
    frames, place_n = np.unique(frame_n, return_inverse=True)
    halves: NDArray[np.bool_] = place_n.reshape(-1) < (len(frames) + 1) // 2
    return halves


def place_in_room(
    joints_fj3: NDArray[np.float32], layout: Layout, *, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Put a motion on the floor, within `REACH_MM` of the room's middle.

    A path that is too long is shrunk as a whole, so that it stays continuous; the pose itself is
    never changed.

    Args:
        joints_fj3: joints, (F, J, 3), in mm, z up.
        layout: layout of the joints; its ankles stand on the floor.
        rng: generator of the place in the room.

    Returns:
        Joints, (F, J, 3), in mm in world axes.
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
    """Choose at most `limit` frames, evenly over motions and evenly within each motion.

    Short motions give all their frames, and the others share the rest of the limit.

    Args:
        lengths: number of frames of each motion.
        limit: highest number of frames to choose; None chooses all.

    Returns:
        Positions of the chosen frames of each motion, from 0, in order. Together there are
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
    """Return a share for each length: their sum is `limit`, none is above its length.

    The shares are as equal as these two conditions allow.
    """
    low, high = 0, int(lengths.max())
    # Bisection finds the largest equal share whose sum stays within the limit.
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(lengths, middle).sum() <= limit:
            low = middle
        else:
            high = middle - 1
    shares = np.minimum(lengths, low)
    longer = np.flatnonzero(lengths > low)
    left = limit - int(shares.sum())
    shares[longer[np.arange(left) * len(longer) // max(left, 1)]] += 1
    return shares
