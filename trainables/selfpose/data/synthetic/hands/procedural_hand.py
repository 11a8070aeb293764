"""Makes motions of an articulated hand, for a store without any pictures of hands.

Read `make_hand_motion` first. A motion is ten seconds of one gesture and its variations: the hand
moves between key poses within the joint limits, while the whole hand turns slowly. For drawing, the
hand is enlarged until it fills the room like a person; its poses are stored in life size.

Frames and units: see `selfpose.data.synthetic.hands.kinematics`. Shape letters: F frames, J joints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posetune.api import Importer, Progress
from selfpose.data.importing import run_import
from selfpose.data.seeding import generator
from selfpose.data.synthetic.bodies.angle_tracks import (
    KeyPose,
    eased_over_motion,
    smooth,
    start_heading,
    with_drift,
)
from selfpose.data.synthetic.bodies.kinematics import limit_angles
from selfpose.data.synthetic.bodies.procedural import LICENCE, ProceduralOptions, make_motions
from selfpose.data.synthetic.drawing import draw_corpus
from selfpose.data.synthetic.hands.kinematics import HAND_LIMITS_DEG, hand_bone_lengths, pose_hand
from selfpose.data.synthetic.motions import Corpus, check_corpus
from selfpose.method.skeleton import FINGERS, HAND_21

__all__ = ["GESTURES", "IMPORTER", "make_hand_corpus", "make_hand_motion"]

ENLARGED = 8.0
"""Factor by which a hand is enlarged at the place where people stand; it then looks as if it were
0.6 m from a camera."""
MIDDLE_MM = 1000.0
"""Height of the hand's middle above the floor in mm, near the point that the cameras look at."""
REACH_MM = 400.0
"""Largest distance of the hand's middle from the room's middle, in x and in y, in mm."""
RELAXED_SHARE = 0.2
"""Share of key poses in which the hand is relaxed instead of making the gesture."""
KEYS = 6
"""Number of key poses of a motion."""


def make_hand_corpus(options: ProceduralOptions) -> Corpus:
    """Make the motions of all splits; all gestures have equally many motions and frames."""

    def make(gesture: str, subject: str, rng: np.random.Generator) -> NDArray[np.float32]:
        joints_fj3 = ENLARGED * make_hand_motion(gesture, subject, seed=options.seed, rng=rng)
        place_3 = (*rng.uniform(-REACH_MM, REACH_MM, 2), MIDDLE_MM)
        middle_3 = joints_fj3.mean(axis=(0, 1))
        return (joints_fj3 - middle_3 + np.asarray(place_3)).astype(np.float32)

    subjects, motions = make_motions(options, tuple(GESTURES), make)
    return Corpus(
        format="procedural_hand",
        layout=HAND_21,
        licence=LICENCE,
        source_digest="",
        activities=tuple(GESTURES),
        subjects=subjects,
        motions=motions,
        enlarged=ENLARGED,
    )


def make_hand_motion(
    gesture: str, subject: str, *, seed: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Make one motion of one hand.

    Args:
        gesture: name of the gesture, a key of `GESTURES`.
        subject: name of the person, which decides the lengths of the bones.
        seed: seed of the person's bones.
        rng: generator of the movement.

    Returns:
        Joints, (F, J, 3), in mm in world axes, in life size, with the wrist at the origin.
    """
    lengths_j = hand_bone_lengths(generator(seed, "hand", subject))
    keys = [
        (_relaxed if rng.random() < RELAXED_SHARE else GESTURES[gesture])(rng) for _ in range(KEYS)
    ]
    tracks = limit_angles(with_drift(eased_over_motion(keys, rng), rng), HAND_LIMITS_DEG)
    tracks["heading"] = start_heading(rng) + smooth(rng, 0.8)
    for name, degrees in (("tilt", 22), ("lean", 25)):
        tracks[name] = np.radians(rng.normal(0, degrees)) + smooth(rng, 0.5)
    return pose_hand(lengths_j, tracks)


def _open(rng: np.random.Generator) -> KeyPose:
    """Stretch all fingers, together or spread."""
    fan = rng.uniform(-0.3, 1.0)
    thumb = _thumb(rng, flexion=5, knuckle=5, spread=rng.uniform(-15, 15), lift=rng.uniform(0, 30))
    return {**_curled(rng, dict.fromkeys(FINGERS[1:], 0.02), fan=fan), **thumb}


def _relaxed(rng: np.random.Generator) -> KeyPose:
    """Let the fingers hang, the little one most bent."""
    bent = rng.uniform(0.1, 0.35)
    curls = {finger: bent + 0.05 * number for number, finger in enumerate(FINGERS[1:])}
    thumb = _thumb(rng, flexion=15, knuckle=15, spread=-5, lift=20)
    return {**_curled(rng, curls, fan=rng.uniform(0, 0.4)), **thumb}


def _fist(rng: np.random.Generator) -> KeyPose:
    """Close all fingers, the thumb over them or beside."""
    thumb = _thumb_over(rng) if rng.random() < 0.7 else _thumb_out(rng)
    return {**_curled(rng, dict.fromkeys(FINGERS[1:], 0.95)), **thumb}


def _point(rng: np.random.Generator) -> KeyPose:
    """Stretch the forefinger, the others closed."""
    curls = {finger: 0.03 if finger == "index" else 0.92 for finger in FINGERS[1:]}
    return {**_curled(rng, curls), **(_thumb_over if rng.random() < 0.6 else _thumb_out)(rng)}


def _pinch(rng: np.random.Generator) -> KeyPose:
    """Bring thumb and forefinger together, the others stretched or bent."""
    rest = rng.uniform(0.0, 0.8)
    pose = _curled(rng, dict.fromkeys(FINGERS[1:], rest), fan=rng.uniform(0, 0.6))
    apart = rng.uniform(0, 1) ** 2  # from closed to open
    pose |= {
        "index_flexion": 60 - 25 * apart + rng.normal(0, 3),
        "index_knuckle": 40 - 15 * apart + rng.normal(0, 3),
        "index_spread": rng.normal(0, 2),
    }
    return {**pose, **_thumb(rng, flexion=30, knuckle=40 - 25 * apart, spread=-15, lift=30)}


def _count(rng: np.random.Generator) -> KeyPose:
    """Show a number with the fingers: each stretched or closed."""
    up = {finger: bool(rng.random() < 0.5) for finger in FINGERS}
    curls = {finger: 0.03 if up[finger] else 0.9 for finger in FINGERS[1:]}
    thumb = _thumb_out(rng) if up["thumb"] else _thumb_over(rng)
    return {**_curled(rng, curls, fan=rng.uniform(0, 0.9)), **thumb}


def _grasp(rng: np.random.Generator) -> KeyPose:
    """Hold something round, thin or thick."""
    curls = dict.fromkeys(FINGERS[1:], rng.uniform(0.25, 0.7))
    lift = rng.uniform(30, 48)
    thumb = _thumb(rng, flexion=25, knuckle=25, spread=rng.uniform(-20, 0), lift=lift)
    return {**_curled(rng, curls, fan=rng.uniform(0.1, 0.8)), **thumb}


GESTURES: Mapping[str, Callable[[np.random.Generator], KeyPose]] = {
    "Open": _open,
    "Fist": _fist,
    "Pointing": _point,
    "Pinching": _pinch,
    "Counting": _count,
    "Grasping": _grasp,
}


def _curled(rng: np.random.Generator, curls: Mapping[str, float], *, fan: float = 0.0) -> KeyPose:
    """Draw the angles of the four fingers without the thumb.

    Each is curled from 0 (stretched) to 1 (closed); `fan` spreads them, from 0 to about 1.
    """
    fanned = {"index": 12.0, "middle": 1.0, "ring": -6.0, "little": -14.0}
    pose: KeyPose = {}
    for finger, curl in curls.items():
        pose[f"{finger}_flexion"] = 88 * curl + rng.normal(0, 6)
        pose[f"{finger}_knuckle"] = 98 * curl + rng.normal(0, 7)
        # Closed fingers cannot be spread: their ligaments are tight.
        pose[f"{finger}_spread"] = (fan * fanned[finger] + rng.normal(0, 2)) * (1 - 0.8 * curl)
    return pose


def _thumb_over(rng: np.random.Generator) -> KeyPose:
    return _thumb(rng, flexion=45, knuckle=65, spread=-20, lift=rng.uniform(8, 25))


def _thumb_out(rng: np.random.Generator) -> KeyPose:
    return _thumb(rng, flexion=4, knuckle=3, spread=rng.uniform(5, 20), lift=rng.uniform(0, 15))


def _thumb(
    rng: np.random.Generator, *, flexion: float, knuckle: float, spread: float, lift: float
) -> KeyPose:
    """Draw the angles of the thumb, in degrees, near the given ones."""
    angles = np.asarray((flexion, knuckle, spread, lift)) + rng.normal(0, (5, 6, 3, 4))
    names = ("thumb_flexion", "thumb_knuckle", "thumb_spread", "thumb_lift")
    return dict(zip(names, angles.tolist(), strict=True))


def _run(file: Path | None, out: Path, options: ProceduralOptions, progress: Progress) -> None:
    corpus = check_corpus(make_hand_corpus(options), "procedural_hand")
    run_import(draw_corpus(corpus, options), out, options, progress)


IMPORTER = Importer(
    summary="an articulated hand in motion, 21 joints; needs no file",
    needs_file=False,
    options=ProceduralOptions,
    run=_run,
)
