"""Writes small folders of every data format from poses that a test made up.

Read `film` first: it films people with cameras, and a test changes what the cameras saw. Readers of
annotations look at no picture, so all pictures are one small picture of noise.

Frames and units: world axes (z up) and camera axes (x right, y down, z forward) in mm; pixels.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from selfpose.data.synthetic.bodies.kinematics import bone_lengths, pose_joints
from selfpose.data.synthetic.cameras import Camera, look_at

__all__ = [
    "CAMERA_IDS",
    "H36M_32",
    "Recording",
    "film",
    "person",
    "write_fetch",
    "write_hands",
    "write_mocap17",
    "write_mpi_inf",
    "write_videopose3d",
]

CAMERA_IDS = (54138969, 55011271, 58860488, 60457274)
H36M_32 = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
MPI_28 = [4, 23, 24, 25, 18, 19, 20, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16]
MPI_17 = [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]
LEFT, RIGHT = [4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]
PLACES = ((1900, 4950, 1580), (1900, -5100, 1600), (-1700, 5180, 1500), (-1680, -3860, 1550))


@dataclass(frozen=True)
class Recording:
    """What four cameras saw of one person; the arrays begin with the camera and the frame."""

    frame: np.ndarray
    """Numbers of the frames, (F,), from 1."""
    world: np.ndarray
    """Joints, (F, 17, 3), in mm in world axes."""
    joints: np.ndarray
    """Joints, (4, F, 17, 3), in mm in camera axes."""
    pixels: np.ndarray
    """Joints, (4, F, 17, 2), in pixels."""
    lens: tuple[float, float, float, float]
    """fx, cx, fy, cy in pixels."""


def person(
    rng: np.random.Generator,
    *,
    frames: int = 12,
    height_mm: float = 1700.0,
    posture: str = "walking",
) -> np.ndarray:
    """Joints (F, 17, 3) of a person who moves, in mm in world axes, the feet on the floor."""
    t = np.linspace(0, rng.uniform(2, 4), frames)
    start = rng.uniform(0, 6.28)
    seated = posture == "seated"
    angles = {
        "heading": start + 0.5 * t,
        "left_hip_flexion": (1.4 if seated else 0.3) + 0.3 * np.sin(2 * t),
        "right_hip_flexion": (1.4 if seated else 0.3) - 0.3 * np.sin(2 * t),
        "left_knee": (1.4 if seated else 0.7) + 0.3 * np.sin(2 * t + 1),
        "right_knee": (1.4 if seated else 0.7) - 0.3 * np.sin(2 * t + 1),
        "left_shoulder_flexion": rng.uniform(0, 1.5) + 0.3 * np.sin(2 * t),
        "right_shoulder_flexion": rng.uniform(0, 1.5) - 0.3 * np.sin(2 * t),
        "left_elbow": 0.6 + 0.2 * np.sin(t),
        "right_elbow": 0.6 + 0.2 * np.cos(t),
    }
    joints = pose_joints(bone_lengths(height_mm * 0.955, rng), angles)
    if posture == "lying":
        joints = joints[..., [2, 1, 0]] * (-1, 1, 1)  # a turn about y: nobody is mirrored
    joints[..., :2] += (np.linspace(-500, 500, frames) * rng.uniform(0.5, 1))[:, None, None]
    joints[..., 2] += 90 - joints[..., 2].min()
    return joints


def film(
    world: np.ndarray,
    *,
    lens: tuple[float, float, float, float] = (1145.0, 512.5, 1143.0, 508.5),
    places: tuple[tuple[float, float, float], ...] = PLACES,
    stride: int = 1,
) -> Recording:
    """Film a person with four cameras; `stride` is the distance between frame numbers."""
    cameras: list[Camera] = [look_at(place, (0.0, 0.0, 900.0)) for place in places]
    joints = np.stack([camera.to_camera(world.astype(np.float32)) for camera in cameras])
    joints = joints.astype(np.float64)
    fx, cx, fy, cy = lens
    pixels = joints[..., :2] / joints[..., 2:] * (fx, fy) + (cx, cy)
    return Recording(1 + stride * np.arange(len(world)), world, joints, pixels, lens)


@functools.cache
def picture(side: int) -> bytes:
    """A small JPEG of grey noise."""
    noise = np.random.default_rng(0).integers(60, 120, (side, side, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".jpg", noise)[1])


def _write_pictures(folder: Path, names: Iterable[str], *, side: int = 64) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(picture(side))


def write_fetch(root: Path, recordings: Mapping[str, Recording]) -> Path:
    """Human3.6M as h36m-fetch leaves it; the names are such as `S1/Directions-1`."""
    for name, seen in recordings.items():
        for camera in CAMERA_IDS:
            place = root / name / "imageSequence" / str(camera)
            _write_pictures(place, [f"img_{frame:06d}.jpg" for frame in seen.frame])
        frames = len(seen.frame)
        arrays = {
            "pose/2d": _spread(seen.pixels, H36M_32, 32),
            "pose/3d": _spread(seen.joints, H36M_32, 32),
            "pose/3d-univ": _spread(seen.joints * 0.95, H36M_32, 32),
            "frame": np.tile(seen.frame, 4),
            "camera": np.repeat(CAMERA_IDS, frames),
            "action": np.full(4 * frames, 2),
        }
        with h5py.File(root / name / "annot.h5", "w") as h5:
            for key, values in arrays.items():
                h5[key] = values
            for camera in CAMERA_IDS:
                for group in ("intrinsics", "intrinsics-univ"):
                    h5[f"{group}/{camera}"] = seen.lens
    return root


def write_videopose3d(root: Path, recordings: Mapping[str, Recording], *, cameras: int = 4) -> Path:
    """Human3.6M as VideoPose3D has it; the names are such as `S1/Directions 1`.

    Behind the first `cameras` the others are missing.
    """
    root.mkdir(parents=True)
    poses: dict[str, dict[str, Any]] = {}
    pixels: dict[str, dict[str, Any]] = {}
    for name, seen in recordings.items():
        subject, action = name.split("/")
        world = _spread(seen.world[None] / 1000, H36M_32, 32).astype(np.float32)
        poses.setdefault(subject, {})[action] = world
        seen_2d: list[np.ndarray | None] = [*seen.pixels.astype(np.float32)]
        seen_2d[cameras:] = [None] * (len(seen_2d) - cameras)
        pixels.setdefault(subject, {})[action] = seen_2d
    about = {"num_joints": 17, "keypoints_symmetry": [LEFT, RIGHT]}
    files = {
        "data_3d_h36m.npz": {"positions_3d": poses},
        "data_2d_h36m_gt.npz": {"positions_2d": pixels, "metadata": about},
    }
    for file, arrays in files.items():
        np.savez(root / file, **{key: np.array(value, object) for key, value in arrays.items()})
    return root


def write_mpi_inf(root: Path, recordings: Mapping[str, Recording]) -> Path:
    """MPI-INF-3DHP; `S1/Seq1` and the like train, `TS1` and the like test."""
    from scipy.io import savemat

    for name, seen in recordings.items():
        if name.startswith("TS"):
            _write_mpi_test(root / "mpi_inf_3dhp_test_set" / name, seen)
            continue
        for camera in range(4):
            place = root / name / "imageFrames" / f"video_{camera}"
            numbered = [f"frame_{10 * frame - 9:06d}.jpg" for frame in seen.frame]
            _write_pictures(place, numbered)
        keys = ("annot2", "annot3", "univ_annot3")
        cells = {key: np.empty((4, 1), dtype=object) for key in keys}
        frames = len(seen.frame)
        for camera in range(4):
            pixels = _spread(seen.pixels[camera][None], MPI_28, 28)
            joints = _spread(seen.joints[camera][None], MPI_28, 28)
            cells["annot2"][camera, 0] = pixels.reshape(frames, -1)
            cells["annot3"][camera, 0] = joints.reshape(frames, -1)
            cells["univ_annot3"][camera, 0] = 0.95 * joints.reshape(frames, -1)
        numbers = {"cameras": np.arange(4)[None], "frames": (10 * (seen.frame - 1))[:, None]}
        savemat(root / name / "annot.mat", {**cells, **numbers})
        _write_calibration(root / name / "camera.calibration", seen.lens)
    return root


def _write_calibration(file: Path, lens: tuple[float, float, float, float]) -> None:
    fx, cx, fy, cy = lens
    lines = ["Skeletool Camera Calibration File V1.0"]
    for camera in range(4):
        lines += [
            f"name {camera}",
            f"  intrinsic {fx} 0 {cx} 0 0 {fy} {cy} 0 0 0 1 0 0 0 0 1",
            "  extrinsic " + " ".join(map(str, np.eye(4).reshape(-1))),
        ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_mpi_test(folder: Path, seen: Recording) -> None:
    frames = len(seen.frame)
    numbered = [f"img_{number:06d}.jpg" for number in range(1, frames + 1)]
    _write_pictures(folder / "imageSequence", numbered)
    with h5py.File(folder / "annot_data.mat", "w") as h5:
        for key, values in {
            "annot2": seen.pixels[0],
            "annot3": seen.joints[0],
            "univ_annot3": 0.95 * seen.joints[0],
        }.items():
            h5[key] = _spread(values[None], MPI_17, 17)[:, None]
        h5["valid_frame"] = np.ones((frames, 1))
        h5["activity_annotation"] = np.ones((frames, 1))


def write_mocap17(file: Path, recordings: Mapping[str, Recording]) -> Path:
    """Motion capture; a name begins with its group: `train/a`, `val/b`, `test/c`."""
    names = list(recordings)
    joints = (
        *("pelvis", "Rhip", "Rknee", "Rankle", "Lhip", "Lknee", "Lankle"),
        *("spine", "thorax", "neck", "head"),
        *("Lshoulder", "Lelbow", "Lwrist", "Rshoulder", "Relbow", "Rwrist"),
    )
    parents = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
    with h5py.File(file, "w") as h5:
        h5.attrs.update(joints=list(joints), parents=parents, activities=["Walking"])
        h5["subjects"], h5["motions/name"] = ["s0"], names
        for group in ("train", "val", "test"):
            parts = [
                (number, recordings[name])
                for number, name in enumerate(names)
                if name.startswith(group)
            ]
            count = [len(seen.frame) for _, seen in parts]
            h5[f"{group}/positions"] = np.concatenate([seen.world for _, seen in parts]).astype(
                np.float32
            )
            h5[f"{group}/frame"] = np.concatenate([seen.frame for _, seen in parts])
            h5[f"{group}/motion"] = np.repeat([number for number, _ in parts], count)
            for column in ("subject", "activity"):
                h5[f"{group}/{column}"] = np.zeros(sum(count), np.int32)
    return file


def write_hands(root: Path, parts: Mapping[str, np.ndarray]) -> Path:
    """HandDB's folders of single annotations: joints (N, 21, 2) in pixels by the part's name."""
    for part, hands in parts.items():
        top = "hand_labels" if part.startswith("manual") else "hand_labels_synth"
        folder = root / top / part
        _write_pictures(folder, [f"{i:04d}.jpg" for i in range(len(hands))], side=368)
        for i, joints in enumerate(hands):
            points = [[float(x), float(y), 1] for x, y in joints]
            (folder / f"{i:04d}.json").write_text(json.dumps({"hand_pts": points, "is_left": 0}))
    return root


def _spread(values: np.ndarray, places: list[int], count: int) -> np.ndarray:
    """Put 17 joints at their places among more; cameras follow one another."""
    flat = values.reshape(-1, 17, values.shape[-1])
    spread = np.zeros((len(flat), count, values.shape[-1]))
    spread[:, places] = flat
    return spread
