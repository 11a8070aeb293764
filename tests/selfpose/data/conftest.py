from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from posetune.api import Importer, silent
from selfpose.data.store import Store, open_store
from selfpose.data.synthetic.bodies.kinematics import bone_lengths, pose_joints
from selfpose.data.synthetic.bodies.procedural import IMPORTER, ProceduralOptions

JOINT_NAMES = (
    *("pelvis", "Rhip", "Rknee", "Rankle", "Lhip", "Lknee", "Lankle"),
    *("spine", "thorax", "neck", "head"),
    *("Lshoulder", "Lelbow", "Lwrist", "Rshoulder", "Relbow", "Rwrist"),
)
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)


def _make_store(out: Path, **changes: object) -> Store:
    settings = {"image_size": 32, "level": "plain", "limit": 40, "workers": 1, **changes}
    IMPORTER.run(None, out, ProceduralOptions.model_validate(settings), silent)
    return open_store(out)


def _write_mocap17(file: Path, *, motions: int = 12, frames: int = 5) -> Path:
    """Write a small file in the form that `mocap17` reads: motions of a walker, one per subject."""
    rng = np.random.default_rng(0)
    names = [f"m{i:02d}" for i in range(motions)]
    with h5py.File(file, "w") as h5:
        h5.attrs.update(
            joints=list(JOINT_NAMES), parents=PARENTS, activities=["Walking", "Waiting"]
        )
        h5.attrs.update(units="millimetres", fps=10.0, licence_own="made for a test")
        h5["subjects"] = [f"s{i}" for i in range(motions)]
        h5["motions/name"] = names
        for group, numbers in {
            "train": range(motions - 4),
            "val": range(motions - 4, motions - 2),
            "test": range(motions - 2, motions),
        }.items():
            motion = np.repeat(list(numbers), frames)
            angles = {
                "heading": np.linspace(0, 2, len(motion)),
                "left_hip_flexion": np.linspace(-0.3, 0.9, len(motion)),
            }
            joints = pose_joints(bone_lengths(1600, rng), angles) + np.asarray((3000, -2000, 1500))
            h5[f"{group}/positions"] = joints.astype(np.float32)
            h5[f"{group}/motion"] = motion.astype(np.int16)
            h5[f"{group}/subject"] = motion.astype(np.int16)
            h5[f"{group}/activity"] = (motion % 2).astype(np.int8)
            h5[f"{group}/frame"] = np.tile(np.arange(frames, dtype=np.int32), len(numbers))
    return file


@pytest.fixture(scope="session")
def make_store() -> Callable[..., Store]:
    return _make_store


@pytest.fixture(scope="session")
def import_with() -> Callable[..., Store]:
    """Import into a new store, small and with one worker if not told otherwise."""

    def run(importer: Importer, source: Path, out: Path, **changes: object) -> Store:
        settings = {"image_size": 32, "workers": 1, **changes}
        importer.run(source, out, importer.options.model_validate(settings), silent)
        return open_store(out)

    return run


@pytest.fixture(scope="session")
def plain_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return _make_store(tmp_path_factory.mktemp("stores") / "plain")


@pytest.fixture
def mocap17_file(tmp_path: Path) -> Path:
    return _write_mocap17(tmp_path / "motion.h5")


@pytest.fixture(scope="session")
def edit_metadata() -> Callable[..., None]:
    def edit(store: Path, **changes: object) -> None:
        file = store / "metadata.json"
        record = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**record, **changes}), encoding="utf-8")

    return edit
