"""Human3.6M as it lies on disk, small and made: real HDF5, MATLAB v7.3 and JPEG.

What h36m-fetch leaves, for each of four cameras:

    processed/S1/Directions-1/annot.h5      the cameras' joints, one below the other; their lenses
    processed/S1/Directions-1/imageSequence/54138969/img_000001.jpg

and the dataset's masks, which a user may unpack beside it:

    metadata.xml                            the names of the sequences in the dataset's own files
    processed/S1/MySegmentsMat/ground_truth_bs/Directions 2.54138969.mat      silhouettes
    processed/S1/MySegmentsMat/ground_truth_bb/Directions 2.54138969.mat      boxes
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from selfpose.data.formats.human36m import IMPORTER
from selfpose.data.store import Store
from selfpose.data.synthetic.bodies.kinematics import bone_lengths, pose_joints
from selfpose.data.synthetic.cameras import CAMERAS

SUBJECTS = ("S1", "S5", "S8", "S9", "S11")
CAMERA_IDS = (54138969, 55011271, 58860488, 60457274)
HEIGHTS = (1002, 1000, 1000, 1002)
FETCH_ORDER = (1145.0, 512.5, 1143.0, 508.5)
"""fx, cx, fy, cy."""
H36M_17 = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
PARENTS = (0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
"""Of joints 1 to 16."""

Sequences = Mapping[str, tuple[int, tuple[int, ...]]]
"""Sequence: its action, and the frames that h36m-fetch kept of it."""

# Two cameras of one are missing; S9 and S11 keep other frames than 64ths.
WHOLE: Sequences = {
    "S1/Directions-1": (2, (1, 4, 9, 11, 17, 20, 23)),
    "S1/TakingPhoto-1": (12, (2, 5, 6)),
    "S5/WalkingTogether-2": (16, (1, 7, 8, 9, 10, 11)),
    "S8/WalkingDog-2": (15, (1, 3, 65, 70, 80)),
    "S9/Sitting-1": (9, (1, 2, 65, 129, 193, 257)),
    "S11/Directions-2": (2, (1, 65, 129, 193, 257)),
}
MISSING = ("S5/WalkingTogether-2", 58860488)

SMALL: Sequences = {
    "S1/Directions-1": (2, (1, 4, 9, 11, 17)),
    "S8/WalkingDog-2": (15, (1, 3, 5, 7, 9)),
    "S9/Sitting-1": (9, (1, 65, 129, 193, 257)),
}


def walk(name: str, frames: tuple[int, ...]) -> np.ndarray:
    """World poses (F, 32, 3), mm, of somebody who walks through the room."""
    rng = np.random.default_rng(len(name))
    angles = {
        "heading": np.linspace(0, 3, len(frames)),
        "left_hip_flexion": np.linspace(-0.3, 0.9, len(frames)),
        "right_shoulder_flexion": np.linspace(0.2, 1.4, len(frames)),
    }
    joints = pose_joints(bone_lengths(1600, rng), angles)
    joints[..., :2] += np.linspace(-700, 700, len(frames))[:, None, None]
    joints[..., 2] += 90 - joints[..., 2].min()
    all_32 = np.zeros((len(frames), 32, 3))
    all_32[:, H36M_17] = joints
    all_32[:, 11] = all_32[:, 0]  # the pelvis stands in the dataset twice
    for ankle, toe in ((3, 5), (8, 10)):
        all_32[:, toe] = all_32[:, ankle] + (120.0, 60.0, -60.0)
    return all_32


def see(camera: int, name: str, frames: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Joints (F, 32, 3) in the camera's axes, mm, and (F, 32, 2) in its pixels."""
    world = walk(name, frames).astype(np.float32)
    joints = CAMERAS[camera].to_camera(world).astype(np.float64)
    fx, cx, fy, cy = FETCH_ORDER
    return joints, joints[..., :2] / joints[..., 2:] * (fx, fy) + (cx, cy)


def draw(camera: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The person, red, before the camera's background; and the mask of it."""
    mask = np.zeros((HEIGHTS[camera], 1000), np.uint8)
    points = np.rint(pixels[H36M_17]).astype(int).tolist()
    for child, parent in enumerate(PARENTS, start=1):
        cv2.line(mask, points[child], points[parent], 255, 26)
    coarse = np.random.default_rng(camera).integers(60, 120, (12, 12, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (1000, HEIGHTS[camera]), interpolation=cv2.INTER_CUBIC)
    picture[mask > 0] = (20, 20, 230)
    return picture, mask


def write_sequence(root: Path, name: str, action: int, frames: tuple[int, ...]) -> None:
    columns: dict[str, list[np.ndarray]] = {}
    present = [i for i, camera in enumerate(CAMERA_IDS) if (name, camera) != MISSING]
    for i in present:
        joints, pixels = see(i, name, frames)
        folder = root / name / "imageSequence" / str(CAMERA_IDS[i])
        folder.mkdir(parents=True)
        for frame, points in zip(frames, pixels, strict=True):
            cv2.imwrite(str(folder / f"img_{frame:06d}.jpg"), draw(i, points)[0])
        for key, values in {
            "pose/2d": pixels,
            "pose/3d": joints,
            "pose/3d-univ": joints * 0.9,
            "frame": np.asarray(frames),
            "camera": np.full(len(frames), CAMERA_IDS[i]),
            "subject": np.full(len(frames), int(name.split("/")[0][1:])),
            "action": np.full(len(frames), action),
            "subaction": np.full(len(frames), int(name[-1])),
        }.items():
            columns.setdefault(key, []).append(values)
    with h5py.File(root / name / "annot.h5", "w") as h5:
        for key, parts in columns.items():
            h5[key] = np.concatenate(parts)
        for i in present:
            h5[f"intrinsics/{CAMERA_IDS[i]}"] = FETCH_ORDER
            h5[f"intrinsics-univ/{CAMERA_IDS[i]}"] = FETCH_ORDER


def write_folder(root: Path, sequences: Sequences) -> Path:
    for name, (action, frames) in sequences.items():
        write_sequence(root, name, action, frames)
    return root


def write_silhouettes(root: Path, *, boxes: bool) -> None:
    """The masks of the small folder, and the table that names their files."""
    kind = "ground_truth_bb" if boxes else "ground_truth_bs"
    rows = [["Action", "subaction", *SUBJECTS]]
    for name, (action, frames) in SMALL.items():
        subject, sequence = name.split("/")
        stem = f"{sequence[:-2]} {action}"
        rows.append([str(action), name[-1], *(stem if s == subject else "x" for s in SUBJECTS)])
        for i, camera in enumerate(CAMERA_IDS):
            masks = [draw(i, points)[1] > 0 for points in see(i, name, frames)[1]]
            if boxes:
                masks = [fill_box(mask) for mask in masks]
            file = root / subject / "MySegmentsMat" / kind / f"{stem}.{camera}.mat"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_mat73(file, dict(zip(frames, masks, strict=True)))
    cells = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows)
    table = "".join(f"<tr>{row}</tr>" for row in cells)
    (root.parent / "metadata.xml").write_text(
        f"<m><mapping>{table}</mapping></m>", encoding="utf-8"
    )


def fill_box(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    filled = np.zeros_like(mask)
    filled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return filled


def write_mat73(file: Path, masks: dict[int, np.ndarray]) -> None:
    """MATLAB v7.3: one reference per frame of the video, blank where there is no mask."""
    with h5py.File(file, "w", userblock_size=512) as h5:
        references = np.empty((max(masks), 1), dtype=h5py.ref_dtype)
        references[:, 0] = h5.create_dataset("#refs#/blank", data=np.zeros((2, 2), np.uint8)).ref
        for frame, mask in masks.items():
            stored = h5.create_dataset(
                f"#refs#/{frame}", data=mask.T.astype(np.uint8), compression="gzip"
            )
            references[frame - 1, 0] = stored.ref
        h5.create_dataset("Masks", data=references, dtype=h5py.ref_dtype)


@pytest.fixture(scope="session")
def whole_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All subjects, to read only."""
    return write_folder(tmp_path_factory.mktemp("h36m") / "processed", WHOLE)


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    """One sequence for each split: a copy to spoil."""
    return Path(shutil.copytree(small_folder, tmp_path / "copy" / "processed"))


@pytest.fixture
def write_masks(folder: Path) -> Callable[..., None]:
    """Unpack the dataset's masks into `folder`: silhouettes, or boxes."""

    def write(*, boxes: bool = False) -> None:
        write_silhouettes(folder, boxes=boxes)

    return write


@dataclass(frozen=True)
class Truth:
    """What a picture of the whole folder shows; the joints are those of h36m17."""

    action: int
    joints: np.ndarray
    """(17, 3), mm, in the camera's axes."""
    pixels: np.ndarray
    """(17, 2)."""


@pytest.fixture(scope="session")
def truth() -> Callable[[str, int, int], Truth]:
    """Look up what is seen of a motion, in a frame, by a camera (0 to 3)."""

    def look_up(motion: str, frame: int, camera: int) -> Truth:
        action, frames = WHOLE[motion]
        joints, pixels = see(camera, motion, frames)
        at = frames.index(frame)
        return Truth(action, joints[at, H36M_17], pixels[at, H36M_17])

    return look_up


@pytest.fixture(scope="session")
def import_folder(import_with: Callable[..., Store]) -> Callable[..., Store]:
    """Import a folder of this dataset, as `import_with` does."""
    return partial(import_with, IMPORTER)


@pytest.fixture(scope="session")
def store(
    whole_folder: Path,
    import_folder: Callable[..., Store],
    tmp_path_factory: pytest.TempPathFactory,
) -> Store:
    """The whole folder, imported."""
    return import_folder(whole_folder, tmp_path_factory.mktemp("stores") / "h36m", image_size=64)


@pytest.fixture(scope="session")
def frames_in() -> Callable[[Store, str], set[tuple[str, int]]]:
    """Name the motion and frame of each row of a split."""

    def collect(store: Store, split: str) -> set[tuple[str, int]]:
        rows = store.split(split)
        names = [store.metadata.motions[i] for i in rows.motion]
        return set(zip(names, rows.frame.tolist(), strict=True))

    return collect


@pytest.fixture(scope="session")
def skipped() -> Callable[[Store], list[list[str]]]:
    """Read what a store's import left out: split, item and reason."""

    def read(store: Store) -> list[list[str]]:
        with (store.root / "skipped.csv").open(encoding="utf-8", newline="") as text:
            return list(csv.reader(text))[1:]

    return read
