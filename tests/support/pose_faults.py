"""Good recordings of poses, and every kind of fault that a seeded mutator puts into one of them.

`KINDS_3D`, `KINDS_2D` and `HAND_KINDS` have each kind of fault by its name: the mutator, and what
the reason for leaving the recording out says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from support.pose_folders import (
    Recording,
    film,
    person,
)

from selfpose.method.skeleton import H36M_17, HAND_21

__all__ = [
    "CASES",
    "HAND_KINDS",
    "KINDS_2D",
    "KINDS_3D",
    "NAMES",
    "OF_A_FEW",
    "SLOW_CASES",
    "SPOILT",
    "Change",
    "HandChange",
    "draw_hands",
    "good",
    "scaled",
    "upside_down",
]


MIRROR = list(H36M_17.mirror)
NAMES = {
    "fetch": ("S1/Directions-1", "S8/Walking-1", "S9/Waiting-2"),
    "videopose3d": ("S1/Directions 1", "S1/Photo", "S1/Eating", "S9/Waiting"),
    "mpi_inf": ("S1/Seq1", "S2/Seq1", "TS1"),
    "mocap17": ("train/a", "train/b", "train/c", "train/e", "val/d", "test/f"),
}
LENS = {"mpi_inf": (2250.0, 1024.0, 2250.0, 1024.0)}
SPOILT = {
    "fetch": "S1/Directions-1",
    "videopose3d": "S1/Photo",
    "mpi_inf": "S2/Seq1",
    "mocap17": "train/b",
}
"""The recording of each format that a mutator spoils."""


def good(
    form: str, rng: np.random.Generator, frames: int = 12, names: Sequence[str] = ()
) -> dict[str, Recording]:
    lens = LENS.get(form, (1145.0, 512.5, 1143.0, 508.5))
    return {
        name: film(person(rng, frames=frames, height_mm=rng.uniform(1500, 1900)), lens=lens)
        for name in names or NAMES[form]
    }


Change = Callable[[Recording, np.random.Generator], Recording]


def scaled(factor: float) -> Change:
    def change(seen: Recording, rng: np.random.Generator) -> Recording:
        return replace(seen, world=seen.world * factor, joints=seen.joints * factor)

    return change


def _in_3d(function: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Change:
    """Change the joints of every camera, and those in the world, in the same way."""

    def change(seen: Recording, rng: np.random.Generator) -> Recording:
        state = rng.bit_generator.state
        joints = []
        for part in (*seen.joints, seen.world):
            rng.bit_generator.state = state
            joints.append(function(part.copy(), rng))
        return replace(seen, joints=np.stack(joints[:-1]), world=joints[-1])

    return change


def _in_2d(function: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Change:
    def change(seen: Recording, rng: np.random.Generator) -> Recording:
        return replace(seen, pixels=function(seen.pixels.copy(), rng))

    return change


def _zeros(joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return joints * 0


def _equal(joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.full_like(joints, 1.0) * (200.0, 300.0, 4000.0)


def _nan(joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    joints[rng.integers(len(joints)), rng.integers(17)] = np.nan
    return joints


def _frozen(joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.repeat(joints[:1], len(joints), axis=0)


def _negated(joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return -joints


def _exchanged(joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return joints[:, MIRROR]


def _exchanged_for_a_while(joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    start = rng.integers(1, 4)
    joints[start : start + 6] = joints[start : start + 6, MIRROR]
    return joints


def _mirrored(seen: Recording, rng: np.random.Generator) -> Recording:
    return replace(seen, world=seen.world * (-1, 1, 1), joints=seen.joints * (-1, 1, 1))


def upside_down(seen: Recording, rng: np.random.Generator) -> Recording:
    """Turn the world by half a turn, so that pictures and poses still agree."""
    _, cx, _, cy = seen.lens
    return replace(
        seen,
        world=seen.world * (1, -1, -1),
        joints=seen.joints * (-1, -1, 1),
        pixels=(2 * cx, 2 * cy) - seen.pixels,
    )


def _doubled(seen: Recording, rng: np.random.Generator) -> Recording:
    rows = np.sort(np.append(np.arange(len(seen.frame)), rng.integers(len(seen.frame), size=3)))
    return replace(
        seen,
        frame=seen.frame[rows],
        world=seen.world[rows],
        joints=seen.joints[:, rows],
        pixels=seen.pixels[:, rows],
    )


def _late(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.roll(pixels, len(pixels[0]) // 2, axis=1)


def _third_zeros(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pixels[rng.random(pixels.shape[:3]) < 1 / 3] = 0
    return pixels


KINDS_3D: Mapping[str, tuple[Change, str]] = {
    "metres": (scaled(0.001), "likely in m$"),
    "centimetres": (scaled(0.1), "likely in cm"),
    "inches": (scaled(1 / 25.4), "likely in inch"),
    "zeros": (_in_3d(_zeros), "all joints are at one place"),
    "equal": (_in_3d(_equal), "all joints are at one place"),
    "nan": (_in_3d(_nan), "joints are not numbers"),
    "frozen": (_in_3d(_frozen), "frozen"),
    "negated": (_in_3d(_negated), "behind the camera|upside down"),
    "exchanged": (_in_3d(_exchanged), "left and right are exchanged"),
    "exchanged for a while": (_in_3d(_exchanged_for_a_while), "left and right are exchanged"),
    "mirrored": (_mirrored, "mirrored|left and right are exchanged"),
    "upside down": (upside_down, "upside down"),
    "doubled": (_doubled, "stands there twice"),
}
KINDS_2D: Mapping[str, tuple[Change, str]] = {
    "in [-1, 1]": (_in_2d(lambda p, _: p / 500 - 1), "not in pixels"),
    "shifted": (_in_2d(lambda p, rng: p + 40 * np.sign(rng.normal(size=2))), "are shifted"),
    "another lens": (_in_2d(lambda p, _: (p - 500) * 1.06 + 500), "disagree"),
    "sides swapped": (_in_2d(lambda p, _: p[:, :, MIRROR]), "left and right are exchanged"),
    "a third zeros": (_in_2d(_third_zeros), "are missing"),
    "late": (_in_2d(_late), "disagree"),
    "y negated": (_in_2d(lambda p, _: p * (1, -1)), "upside down|outside the picture"),
    "x mirrored": (_in_2d(lambda p, _: (1000, 0) - p * (1, -1)), "mirrored|outside the picture"),
}
# VideoPose3D's files number no frames, so that none can be doubled, and the cameras follow from
# both files, so that what these agree on is no fault (another lens).
CASES = [
    *(("mocap17", kind) for kind in KINDS_3D),
    *(("fetch", kind) for kind in (*KINDS_3D, *KINDS_2D)),
    *(("mpi_inf", kind) for kind in (*KINDS_3D, *KINDS_2D)),
]
SLOW_CASES = [
    ("videopose3d", kind)
    for kind in (*KINDS_3D, *KINDS_2D)
    if kind not in ("doubled", "another lens")
]


OF_A_FEW = ("nan", "doubled", "exchanged for a while")
"""Kinds that spoil some frames of a recording, never most of them."""


def draw_hands(rng: np.random.Generator, count: int = 12) -> np.ndarray:
    """A fan of fingers, somewhere in a picture of 368 pixels, (N, 21, 2)."""
    angles = np.radians([-55, -20, 0, 18, 38]) + rng.uniform(-0.2, 0.2, (count, 5))
    bones = np.asarray(HAND_21.bone_ratios).reshape(5, 4).cumsum(axis=1)
    chain = bones / bones.max() * rng.uniform(60, 120, (count, 1, 1))
    tips = np.stack([np.sin(angles), -np.cos(angles)], -1)[:, :, None] * chain[..., None]
    wrist = rng.uniform(150, 220, (count, 1, 2))
    return np.concatenate([wrist, wrist + tips.reshape(count, 20, 2)], axis=1)


BY_JOINT = [0, *(1 + 4 * finger + joint for joint in range(4) for finger in range(5))]
OFF = np.where(np.arange(21)[:, None] == 7, (250.0, 120.0), 0.0)

HandChange = Callable[[np.ndarray], np.ndarray]
HAND_KINDS: Mapping[str, tuple[HandChange, str]] = {
    "zeros": (lambda hands: hands * 0, "all joints are at one place"),
    "nan": (lambda hands: hands * np.nan, "not numbers"),
    "in [-1, 1]": (lambda hands: hands / 184 - 1, "not in pixels"),
    "in [0, 1]": (lambda hands: hands / 368, "not in pixels"),
    "frozen": (lambda hands: np.repeat(hands[:1], len(hands), axis=0), "frozen"),
    "a third zeros": (lambda hands: np.where(np.arange(21)[:, None] % 3 == 1, 0, hands), "missing"),
    "fingers after joints": (lambda hands: hands[:, BY_JOINT], "in another order"),
    "backwards": (lambda hands: hands[:, ::-1], "in another order"),
    "one joint far off": (lambda hands: hands + OFF, "longer than any hand's"),
}
