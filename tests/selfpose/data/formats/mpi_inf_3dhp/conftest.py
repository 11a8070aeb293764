"""MPI-INF-3DHP as it lies on disk, small and made: real MATLAB v5 and v7.3, real JPEG.

A training sequence, seen by 14 cameras of which a user unpacks some:

    S1/Seq1/annot.mat                                   MATLAB v5: 28 joints, one cell per camera
    S1/Seq1/camera.calibration
    S1/Seq1/imageFrames/video_0/frame_000001.jpg        the pictures, at any size; or:
    S2/Seq2/imageSequence/video_0/img_000001.jpg
    images/S8_Seq1_Cam4_000001.jpg
    S1/Seq1/FGmasks/video_0/frame_000001.png            the dataset's masks, if unpacked

A test sequence, seen by one camera:

    mpi_inf_3dhp_test_set/TS1/annot_data.mat            MATLAB v7.3: 17 joints in another order
    mpi_inf_3dhp_test_set/TS1/imageSequence/img_000001.jpg
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from scipy.io import savemat

from selfpose.data.formats.mpi_inf_3dhp import IMPORTER
from selfpose.data.store import Store
from selfpose.data.synthetic.bodies.kinematics import bone_lengths, pose_joints
from selfpose.data.synthetic.cameras import CAMERAS, Camera, look_at

# h36m17's joints among the 28 of a training sequence, and among the 17 of a test sequence
FROM_28 = [4, 23, 24, 25, 18, 19, 20, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16]
FROM_17 = [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]
PARENTS = (0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
UNIVERSAL = 0.95
"""What the universal skeleton is to the real one."""
PLACES: tuple[Camera, ...] = (
    *CAMERAS,
    *(look_at((3000 - 500 * i, 3500, 1500), (0, 0, 900)) for i in range(10)),
)


@dataclass(frozen=True)
class Filmed:
    """How a training sequence's pictures are named, their side, and which cameras have some."""

    pattern: str
    side_px: int
    cameras: tuple[int, ...]

    def picture(self, name: str, camera: int, frame: int) -> str:
        flat = name.replace("/", "_")
        return self.pattern.format(seq=name, flat=flat, camera=camera, number=frame + 1)


IMAGE_FRAMES = "{seq}/imageFrames/video_{camera}/frame_{number:06d}.jpg"
IMAGE_SEQUENCE = "{seq}/imageSequence/video_{camera}/img_{number:06d}.jpg"
ONE_FOLDER = "images/{flat}_Cam{camera}_{number:06d}.jpg"

TRAINING = {
    "S1/Seq1": Filmed(IMAGE_FRAMES, 1024, (0, 8)),
    "S2/Seq2": Filmed(IMAGE_SEQUENCE, 768, (0, 1)),
    "S6/Seq2": Filmed(IMAGE_SEQUENCE, 512, (0, 2)),
    "S8/Seq1": Filmed(ONE_FOLDER, 512, (4,)),
}
FRAMES = (0, 10, 15, 20, 30, 40, 50, 60, 6400, 6410, 6420, 6430)
FULL_SIZE = (2048, 2048)
"""The pictures that the joints' pixels of a training sequence are counted in."""

TESTS = {"TS1": (2048, 2048), "TS5": (1920, 1080)}
VALID = (1, 1, 0, 1, 1, 1, 1)
ACTIVITIES = (1, 2, 0, 3, 4, 6, 7)


def walk(name: str, frames: int) -> np.ndarray:
    """World poses (F, 17, 3), h36m17, mm, of somebody who walks through the room."""
    rng = np.random.default_rng(sum(map(ord, name)))
    angles = {
        "heading": np.linspace(0, 3, frames),
        "left_hip_flexion": np.linspace(-0.3, 0.9, frames),
        "right_shoulder_flexion": np.linspace(0.2, 1.4, frames),
    }
    joints = pose_joints(bone_lengths(1600, rng), angles)
    joints[..., :2] += np.linspace(-600, 600, frames)[:, None, None]
    joints[..., 2] += 90 - joints[..., 2].min()
    return joints.astype(np.float32)


def see(name: str, camera: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Joints (F, 17, 3) in the camera's axes, mm, and (F, 17, 2) in its pixels, h36m17."""
    frames, size = (len(VALID), TESTS[name]) if name in TESTS else (len(FRAMES), FULL_SIZE)
    joints = PLACES[camera].to_camera(walk(name, frames))
    focal = 1.1 * min(size)
    return joints, joints[..., :2] / joints[..., 2:] * focal + np.asarray(size) / 2


def draw(
    pixels: np.ndarray, size: tuple[int, int], *, frame: tuple[int, int], seed: int
) -> np.ndarray:
    """The person, red, whose pixels are of `frame`, in a picture of `size`."""
    coarse = np.random.default_rng(seed).integers(60, 120, (9, 9, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    scale = size[0] / frame[0]
    points = np.rint((pixels + 0.5) * scale - 0.5).astype(int).tolist()
    for child, parent in enumerate(PARENTS):
        cv2.line(picture, points[child], points[parent], (20, 20, 230), max(2, round(52 * scale)))
    return picture


def write_training(root: Path, name: str, filmed: Filmed) -> None:
    cells = {key: np.empty((14, 1), dtype=object) for key in ("annot2", "annot3", "univ_annot3")}
    for camera in range(14):
        joints, pixels = see(name, camera)
        all_2d, all_3d = np.zeros((len(FRAMES), 28, 2)), np.zeros((len(FRAMES), 28, 3))
        all_2d[:, FROM_28], all_3d[:, FROM_28] = pixels, joints
        cells["annot2"][camera, 0] = all_2d.reshape(len(FRAMES), 56)
        cells["annot3"][camera, 0] = all_3d.reshape(len(FRAMES), 84)
        cells["univ_annot3"][camera, 0] = UNIVERSAL * all_3d.reshape(len(FRAMES), 84)
    (root / name).mkdir(parents=True)
    numbers = {"cameras": np.arange(14)[None], "frames": np.asarray(FRAMES)[:, None]}
    savemat(root / name / "annot.mat", {**cells, **numbers})
    write_calibration(root / name / "camera.calibration")
    size = (filmed.side_px, filmed.side_px)
    for camera in filmed.cameras:
        for frame, points in zip(FRAMES, see(name, camera)[1], strict=True):
            file = root / filmed.picture(name, camera, frame)
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), draw(points, size, frame=FULL_SIZE, seed=camera))


def write_calibration(file: Path) -> None:
    lines = ["Skeletool Camera Calibration File V1.0"]
    focal, centre = 1.1 * 2048, 1024
    for camera in range(14):
        extrinsic = np.eye(4)
        extrinsic[:3, :3] = PLACES[camera].world_to_camera_33
        lines += [
            f"name          {camera}",
            "  sensor      10 10",
            "  size        2048 2048",
            "  animated    0",
            f"  intrinsic   {focal} 0 {centre} 0 0 {focal} {centre} 0 0 0 1 0 0 0 0 1 ",
            "  extrinsic   " + " ".join(map(str, extrinsic.reshape(-1))),
            "  radial      0",
        ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_test(root: Path, name: str, size: tuple[int, int]) -> None:
    folder = root / "mpi_inf_3dhp_test_set" / name
    (folder / "imageSequence").mkdir(parents=True)
    joints, pixels = see(name)
    for frame, points in enumerate(pixels):
        picture = draw(points, size, frame=size, seed=3)
        cv2.imwrite(str(folder / "imageSequence" / f"img_{frame + 1:06d}.jpg"), picture)
    arrays = {"annot2": pixels, "annot3": joints, "univ_annot3": UNIVERSAL * joints}
    with h5py.File(folder / "annot_data.mat", "w", userblock_size=512) as h5:
        for key, values in arrays.items():
            stored = np.zeros((len(VALID), 1, 17, values.shape[-1]))
            stored[:, 0, FROM_17] = values
            h5[key] = stored
        h5["valid_frame"] = np.asarray(VALID, float)[:, None]
        activities = np.asarray(ACTIVITIES, float)
        h5["activity_annotation"] = activities[None] if name == "TS5" else activities[:, None]


def write_foreground(root: Path, *, inverted: bool) -> None:
    """Masks in the red channel: of the person, or the other way round."""
    for name, filmed in TRAINING.items():
        for camera in filmed.cameras:
            place = root / name / "FGmasks" / f"video_{camera}"
            place.mkdir(parents=True)
            for frame, points in zip(FRAMES, see(name, camera)[1], strict=True):
                picture = draw(points, (512, 512), frame=FULL_SIZE, seed=0)
                person = picture[..., 2].astype(int) - picture[..., 1] > 100
                mask = np.zeros((512, 512, 3), np.uint8)
                mask[..., 2] = (person != inverted) * np.uint8(255)
                stem = Path(filmed.picture(name, camera, frame)).stem
                cv2.imwrite(str(place / f"{stem}.png"), mask)


@pytest.fixture(scope="session")
def whole_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset, to read only."""
    root = tmp_path_factory.mktemp("mpi_inf_3dhp")
    for name, filmed in TRAINING.items():
        write_training(root, name, filmed)
    for name, size in TESTS.items():
        write_test(root, name, size)
    return root


@pytest.fixture
def folder(whole_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole_folder, tmp_path / "copy"))


@pytest.fixture
def write_masks(folder: Path) -> Callable[..., None]:
    """Unpack the dataset's masks into `folder`."""

    def write(*, inverted: bool) -> None:
        write_foreground(folder, inverted=inverted)

    return write


@dataclass(frozen=True)
class Truth:
    """What a picture shows; the joints are those of h36m17."""

    joints: np.ndarray
    """(17, 3), mm, in the camera's axes."""
    universal: np.ndarray
    """The same of the universal skeleton."""
    pixels: np.ndarray
    """(17, 2), in pictures of the full size."""


@pytest.fixture(scope="session")
def truth() -> Callable[[str, int, int], Truth]:
    """Look up what is seen of a motion, in a frame, by a camera (0 to 13)."""

    def look_up(motion: str, frame: int, camera: int) -> Truth:
        joints, pixels = see(motion, camera)
        at = frame if motion in TESTS else FRAMES.index(frame)
        return Truth(joints[at], UNIVERSAL * joints[at], pixels[at])

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
    return import_folder(whole_folder, tmp_path_factory.mktemp("stores") / "3dhp", image_size=64)


@pytest.fixture(scope="session")
def skipped() -> Callable[[Store], dict[str, list[str]]]:
    """Read what a store's import left out: the items of each reason."""

    def read(store: Store) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        with (store.root / "skipped.csv").open(encoding="utf-8", newline="") as text:
            for _, item, reason in list(csv.reader(text))[1:]:
                found.setdefault(reason, []).append(item)
        return found

    return read
