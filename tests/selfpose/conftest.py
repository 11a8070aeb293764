"""Small data in the forms that users have it, for several modules' tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

DOUBLE = """
import torch
single, torch.float32 = torch.float32, torch.float64
torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double
def widened(make):
    def call(*arguments, **named):
        made = make(*arguments, **named)
        return made.double() if made.dtype == single else made
    return call
torch.tensor, torch.from_numpy = widened(torch.tensor), widened(torch.from_numpy)
"""


@pytest.fixture
def double_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train in double precision, here and in processes that are started.

    In single precision Adam turns the rounding of gradients that are zero into whole steps.
    """
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(DOUBLE)
    monkeypatch.syspath_prepend(folder)
    single = torch.float32
    patched = [(torch.Tensor, "float"), *((torch, n) for n in ("tensor", "from_numpy", "float32"))]
    for owner, name in patched:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back afterwards
    exec(DOUBLE, {})
    yield
    torch.set_default_dtype(single)


DOT_COLOURS = cv2.cvtColor(
    np.stack([np.arange(21) * 8, np.full(21, 255), np.full(21, 255)], -1)[None].astype(np.uint8),
    cv2.COLOR_HSV2RGB,
)[0]


def fan_of_joints(seed: int, *, width: int, height: int) -> np.ndarray:
    """A fan of five fingers somewhere in a picture."""
    rng = np.random.default_rng(seed)
    reach = min(width, height) * 0.28
    angles = np.radians(np.asarray([-55, -20, 0, 18, 38]) + rng.uniform(-15, 15))
    chain = np.asarray([0.4, 0.6, 0.8, 1.0]) * reach
    tips = np.stack([np.sin(angles), -np.cos(angles)], -1)[:, None] * chain[:, None]
    wrist = np.asarray([width / 2, height * 0.65])
    return np.concatenate([[wrist], wrist + tips.reshape(-1, 2)])


def dotted_picture(joints: np.ndarray, *, width: int, height: int) -> np.ndarray:
    """A grey picture with a coloured dot at each joint."""
    picture = np.full((height, width, 3), 110, np.uint8)
    for colour, (x, y) in zip(DOT_COLOURS.tolist(), joints, strict=True):
        place = (round(float(x) * 16), round(float(y) * 16))
        cv2.circle(
            picture, place, round(min(width, height) * 0.012 * 16), colour, -1, cv2.LINE_AA, 4
        )
    return picture


def write_jpg(file: Path, picture: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 97])


def points_of(joints: np.ndarray, flag: int = 1) -> list[list[float]]:
    return [[float(x), float(y), flag] for x, y in joints]


def add_hand(
    folder: Path, name: str, *, seed: int, width: int = 368, height: int = 368, **changes: Any
) -> dict[str, Any]:
    """Write one hand as a JSON file beside its JPG."""
    joints = fan_of_joints(seed, width=width, height=height)
    write_jpg(folder / f"{name}.jpg", dotted_picture(joints, width=width, height=height))
    entry = {
        "hand_pts": points_of(joints),
        "hand_box_center": ((joints.min(0) + joints.max(0)) / 2).tolist(),
        "is_left": 0,
        **changes,
    }
    (folder / f"{name}.json").write_text(json.dumps(entry))
    return entry


def write_handdb(root: Path) -> Path:
    """All parts, as they are unpacked, without a fault."""
    manual = root / "hand_labels"
    for part in ("manual_train", "manual_test"):
        extra = {"head_size": 88.5, "mpii_image": "015774.jpg", "mpii_annorect_idx": 1}
        add_hand(manual / part, "000015774_01_l", seed=1, width=400, height=300, is_left=1, **extra)
        add_hand(manual / part, "ex2_2.flv_000040_r", seed=2, width=640, height=360)
        add_hand(manual / part, "ex2_2.flv_000041_l", seed=3, width=640, height=360, is_left=1)
    (manual / "output_viz").mkdir()
    for i in (1, 2, 3, 4):
        for number in range(1, 5):
            add_hand(
                root / "hand_labels_synth" / f"synth{i}", f"{number:04d}", seed=10 * i + number
            )
    (root / "hand_labels_synth" / "output_viz_synth").mkdir()
    panoptic, entries = root / "hand143_panopticdb", []
    for number in range(12):
        joints = fan_of_joints(100 + number, width=1920, height=1080)
        if number == 0:
            picture = dotted_picture(joints, width=1920, height=1080)
            write_jpg(panoptic / "imgs" / "00000000.jpg", picture)
        entries.append(
            {
                "dataset": "hand143",
                "img_paths": f"imgs/{number:08d}.jpg",
                "img_width": 1920.0,
                "img_height": 1080.0,
                "joint_self": points_of(joints),
                "objpos": joints.mean(0).tolist(),
                "numOtherPeople": 0.0,
            }
        )
    (panoptic / "hands_v143_14817.json").write_text(json.dumps({"root": entries}))
    return root


@pytest.fixture(scope="session")
def handdb_maker() -> SimpleNamespace:
    """What writes HandDB in its three layouts: every joint is a dot of its own colour."""
    return SimpleNamespace(
        write=write_handdb,
        add=add_hand,
        joints=fan_of_joints,
        points=points_of,
        colours=DOT_COLOURS,
    )
