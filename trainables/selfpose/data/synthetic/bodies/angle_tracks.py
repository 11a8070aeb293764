"""Angle tracks over time: eased between key poses, with slow waves on top.

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
FRAMES = 100
"""Length of a motion."""

Tracks = dict[str, NDArray[np.float64]]
"""Angle tracks by name, each (F,), radians."""
KeyPose = dict[str, float]
"""Angles in degrees by name."""


def eased(keys: Sequence[KeyPose], times_s: NDArray[np.float64]) -> Tracks:
    """Move from key pose to key pose, slowing down at each; angles become radians."""
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
    """Move through the key poses at uneven times that fill the motion."""
    times = np.cumsum(rng.uniform(0.9, 2.0, len(keys)))
    return eased(keys, (times - times[0]) * (FRAMES / FPS) / (times[-1] - times[0]))


def with_drift(tracks: Tracks, rng: np.random.Generator) -> Tracks:
    """Add a little slow movement to every joint: nobody stands still."""
    return {
        name: track if name == "heading" else track + smooth(rng, 0.04)
        for name, track in tracks.items()
    }


def start_heading(rng: np.random.Generator) -> float:
    """Draw a direction to face, radians."""
    return float(rng.uniform(-np.pi, np.pi))


def smooth(rng: np.random.Generator, size: float) -> NDArray[np.float64]:
    """Draw a smooth random track (F,) of about this size: four slow waves."""
    seconds = np.arange(FRAMES) / FPS
    hertz, phase, weight = (
        rng.uniform(0.05, 0.35, 4),
        rng.uniform(0, 2 * np.pi, 4),
        rng.normal(size=4),
    )
    waves = np.sin(2 * np.pi * seconds[:, None] * hertz + phase)
    return size / 2 * (waves @ weight)
