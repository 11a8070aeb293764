"""Makes tracks of angles over time: eased between key poses, with slow waves on top.

Shape letters: F frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FPS",
    "FRAMES",
    "KeyPose",
    "Tracks",
    "eased",
    "eased_over_motion",
    "smooth",
    "start_heading",
    "with_drift",
]

FPS = 10
"""Number of frames per second."""
FRAMES = 100
"""Number of frames of a motion, F."""

Tracks = dict[str, NDArray[np.float64]]
"""Angles in each frame, (F,) each, in radians, by the angle's name."""
KeyPose = dict[str, float]
"""Angles at one moment, in degrees, by the angle's name."""


def eased(keys: Sequence[KeyPose], times_s: NDArray[np.float64]) -> Tracks:
    """Return tracks that move from key pose to key pose and slow down at each one.

    Args:
        keys: key poses; an angle that a pose lacks is 0 there.
        times_s: time of each key pose, in seconds, ascending.

    Returns:
        Tracks of all angles that some key pose has, (F,) each, in radians.
    """
    seconds = np.arange(FRAMES) / FPS
    place = np.interp(seconds, times_s, np.arange(len(keys)))
    before = np.minimum(place.astype(int), len(keys) - 2)
    share = (1 - np.cos(np.pi * (place - before))) / 2
    tracks: Tracks = {}
    for name in sorted({name for key in keys for name in key}):
        values = np.radians([key.get(name, 0.0) for key in keys])
        tracks[name] = values[before] + share * (values[before + 1] - values[before])
    return tracks


def eased_over_motion(keys: Sequence[KeyPose], rng: np.random.Generator) -> Tracks:
    """Return tracks that move through the key poses at uneven times, which fill the motion."""
    times = np.cumsum(rng.uniform(0.9, 2.0, len(keys)))
    return eased(keys, (times - times[0]) * (FRAMES / FPS) / (times[-1] - times[0]))


def with_drift(tracks: Tracks, rng: np.random.Generator) -> Tracks:
    """Return tracks with a little slow movement in every joint, because nobody stands still."""
    return {
        name: track if name == "heading" else track + smooth(rng, 0.04)
        for name, track in tracks.items()
    }


def start_heading(rng: np.random.Generator) -> float:
    """Draw a direction to face, in radians."""
    return float(rng.uniform(-np.pi, np.pi))


def smooth(rng: np.random.Generator, size: float) -> NDArray[np.float64]:
    """Draw a smooth random track (F,): the sum of four slow waves, of about the given size."""
    seconds = np.arange(FRAMES) / FPS
    hertz, phase, weight = (
        rng.uniform(0.05, 0.35, 4),
        rng.uniform(0, 2 * np.pi, 4),
        rng.normal(size=4),
    )
    waves = np.sin(2 * np.pi * seconds[:, None] * hertz + phase)
    return size / 2 * (waves @ weight)
