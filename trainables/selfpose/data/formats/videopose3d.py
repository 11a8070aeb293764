"""Reads Human3.6M's poses from VideoPose3D's files, for a store without pictures, for lifting.

    data_3d_h36m.npz        positions_3d: world axes, metres, 32 joints, every frame at 50 Hz
    data_2d_h36m_gt.npz     positions_2d: pixels of the full frame, 17 joints, four cameras

The cameras are in neither file. They are recovered from both: a camera must project the 3D joints
to the 2D joints. A file of 2D detections may be named instead of the true 2D poses.
Frames and units: 3D joints are turned into mm in camera axes. Shape letters: F frames, J joints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError, Progress, silent
from selfpose.data.formats.human36m_protocol import (
    ACTIVITIES,
    CAMERA_IDS,
    FRAME_SIZES,
    JOINTS,
    LICENCE,
    SUBJECTS,
    TEST_SUBJECTS,
    Human36MOptions,
    describe_protocol,
    split_frames,
)
from selfpose.data.formats.npz import read_object
from selfpose.data.photographs import Photographs, join_photographs, limit_rows, photograph_jobs
from selfpose.data.sources import Skip, Source

__all__ = ["POSES_FILE", "PoseCamera", "fit_camera", "read_videopose3d"]

POSES_FILE = "data_3d_h36m.npz"
TRUE_2D_FILE = "data_2d_h36m_gt.npz"
DATASET_JOINTS = 32
OTHER_NAMES = {
    "Photo": "TakingPhoto",
    "WalkDog": "WalkingDog",
    "WalkTogether": "WalkingTogether",
}
"""Names of activities in these files that differ from h36m-fetch's, with h36m-fetch's names."""
MOVED_MM = 40.0
"""Distance in mm that some joint must have moved since the last training frame for the next one to
be kept. Source: h36m-fetch does the same."""
FIT_FRAMES = 400
"""Number of frames from which a camera is recovered, about."""
FIT_GUESS_PX = (1145.0, 500.0)
"""Focal length and centre in pixels from which the fit of a camera starts: those of a lens that
sees a room from its corner."""
FIT_ERROR_PX = 5.0
"""Error of a fitted camera in pixels from which the two files do not belong together."""


@dataclass(frozen=True)
class PoseCamera:
    """Holds the place and rotation of a camera that was recovered from poses."""

    world_to_camera_33: NDArray[np.float64]
    """Rotation from world axes to camera axes, (3, 3), for column vectors."""
    shift_mm: NDArray[np.float64]
    """The world's origin in camera axes, (3,), in mm."""
    error_px: float
    """Root of the mean squared distance between projected 3D joints and 2D joints, in pixels."""

    def to_camera(self, joints_fj3: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return joints in camera axes.

        Args:
            joints_fj3: joints in world axes, (..., 3), in mm.

        Returns:
            Joints in camera axes, (..., 3), in mm.
        """
        turned: NDArray[np.float64] = np.matmul(joints_fj3, self.world_to_camera_33.T)
        return turned + self.shift_mm


def read_videopose3d(path: Path, options: Human36MOptions, progress: Progress = silent) -> Source:
    """Read all poses.

    Args:
        path: folder of the two files, or the file of 2D poses in it that is to be used.
        options: which frames are used; the joints must be those of h36m17 at real scale.
        progress: hears of every subject.

    Raises:
        BadInputError: a file cannot be read, has another form, or does not belong to the other.
    """
    if options.layout != "h36m17" or options.scale != "real":
        raise BadInputError(
            "--layout, --scale: VideoPose3D's files hold the joints of h36m17 at real scale alone; "
            "leave the options out, or import h36m-fetch's folders"
        )
    folder = path.parent if path.suffix == ".npz" else path
    file_2d = path if path.suffix == ".npz" and path.name != POSES_FILE else folder / TRUE_2D_FILE
    poses = _subjects_of(read_object(folder / POSES_FILE, "positions_3d"), folder / POSES_FILE)
    truth = _read_2d(folder / TRUE_2D_FILE)
    given = truth if file_2d.name == TRUE_2D_FILE else _read_2d(file_2d)
    collected = _Collected(options)
    for i, subject in enumerate(name for name in SUBJECTS if name in poses):
        progress(i, len(poses), f"reading {subject}")
        cameras = _fit_cameras(subject, poses[subject], truth.get(subject, {}), folder)
        for action, world_fj3 in poses[subject].items():
            pixels = given.get(subject, {}).get(action)
            collected.add(subject, action, world_fj3=world_fj3, pixels=pixels, cameras=cameras)
    rows = {
        split: limit_rows(join_photographs(parts), options.limit)
        for split, parts in collected.parts.items()
    }
    job, facts = photograph_jobs(rows, options)
    return Source(
        format="human36m",
        layout=JOINTS[options.layout][0],
        licence=LICENCE,
        digest=_digest([folder / POSES_FILE, folder / TRUE_2D_FILE, file_2d]),
        activities=ACTIVITIES,
        subjects=SUBJECTS,
        motions=tuple(collected.motions),
        rows={split: len(part) for split, part in rows.items()},
        job=job,
        facts={**describe_protocol(options), "2D poses": file_2d.name, "images": "none", **facts},
        skipped=tuple(collected.skipped),
    )


class _Collected:
    """Collects the rows of all sequences, and what is left out of them."""

    def __init__(self, options: Human36MOptions):
        self._options = options
        self.parts: dict[str, list[Photographs]] = {}
        self.motions: list[str] = []
        self.skipped: list[Skip] = []

    def add(
        self, subject: str, action: str, *, world_fj3: Any, pixels: Any, cameras: list[PoseCamera]
    ) -> None:
        """Add the rows of a sequence.

        Args:
            subject: name of the subject.
            action: name of the action in the files.
            world_fj3: 3D joints, (F, 32, 3), in metres in world axes.
            pixels: 2D joints of each camera, (F, 17, 2), in pixels; None if there are none.
            cameras: the subject's four cameras.
        """
        name = f"{subject}/{action}"
        number = len(self.motions)
        self.motions.append(name)
        if pixels is None:
            test = subject in TEST_SUBJECTS
            self.skipped.append(Skip("test" if test else "train", name, "no 2D poses"))
            return
        frames = min(len(world_fj3), *(len(part) for part in pixels))  # detections can be longer
        frame_f = np.arange(1, frames + 1)
        joints_fj3 = np.asarray(world_fj3[:frames], np.float64)[:, JOINTS["h36m17"][1]] * 1000
        if self._options.frames == "sampled" and subject not in TEST_SUBJECTS:
            frame_f = frame_f[_moving_frames(joints_fj3)]
        for camera, (model, pixels_fj2) in enumerate(zip(cameras, pixels, strict=True)):
            rows = _Rows(name, number, camera).of(frame_f, model.to_camera(joints_fj3), pixels_fj2)
            for split, chosen_n in split_frames(subject, frame_f, self._options).items():
                self.parts.setdefault(split, []).append(rows.pick(np.flatnonzero(chosen_n)))


@dataclass(frozen=True)
class _Rows:
    """Makes the rows of one sequence in one camera."""

    name: str
    motion: int
    camera: int

    def of(
        self, frame_f: NDArray[np.int64], joints_fj3: NDArray[np.float64], pixels_fj2: Any
    ) -> Photographs:
        """Return the rows of some frames.

        Args:
            frame_f: numbers of the frames to take, (n,), from 1.
            joints_fj3: 3D joints of all frames, (F, J, 3), in mm in camera axes.
            pixels_fj2: 2D joints of all frames, (F, J, 2), in pixels.
        """
        subject, action = self.name.split("/")
        columns = {
            "activity": ACTIVITIES.index(_activity(action)),
            "subject": SUBJECTS.index(subject),
            "motion": self.motion,
            "camera": self.camera,
            "frame": frame_f,
        }
        start = f"{self.name} camera {CAMERA_IDS[self.camera]} frame"
        shape = (len(frame_f), 2)
        return Photographs(
            names=[f"{start} {frame}" for frame in frame_f.tolist()],
            joints_2d_nj2=np.asarray(pixels_fj2, np.float32)[frame_f - 1],
            joints_3d_nj3=joints_fj3[frame_f - 1].astype(np.float32),
            columns={key: np.full(shape[0], column, np.int32) for key, column in columns.items()},
            frame_size_n2=np.broadcast_to(np.asarray(FRAME_SIZES[self.camera], np.int32), shape),
            root=None,
            slack=1.0,  # detections may well lie outside the frame
        )


def fit_camera(
    joints_n3: NDArray[np.float64], pixels_n2: NDArray[np.float64], size: tuple[int, int]
) -> PoseCamera:
    """Recover a camera from points and their projections.

    Args:
        joints_n3: points, (n, 3), in mm in world axes.
        pixels_n2: where the camera sees the points, (n, 2), in pixels of the frame.
        size: width and height of the frame in pixels.
    """
    focal, centre = FIT_GUESS_PX
    guess = np.asarray([[focal, 0, centre], [0, focal, centre], [0, 0, 1]])
    origin_3 = joints_n3.mean(axis=0)  # points around zero keep more digits in float32
    error_px, _, _, (turn,), (shift,) = cv2.calibrateCamera(
        [(joints_n3 - origin_3).astype(np.float32)],
        [pixels_n2.astype(np.float32)],
        size,
        guess,
        np.zeros(5),
        flags=cv2.CALIB_USE_INTRINSIC_GUESS,
    )
    rotation_33 = np.asarray(cv2.Rodrigues(turn)[0], dtype=np.float64)
    return PoseCamera(rotation_33, np.asarray(shift).reshape(3) - rotation_33 @ origin_3, error_px)


def _fit_cameras(
    subject: str, poses: Mapping[str, Any], truth: Mapping[str, Any], folder: Path
) -> list[PoseCamera]:
    """Recover the four cameras of a subject from frames of all its sequences.

    Raises:
        BadInputError: there are no true 2D poses, or no camera projects the 3D poses to them.
    """
    pairs = [(np.asarray(poses[action]), truth[action]) for action in poses if action in truth]
    if not pairs:
        raise BadInputError(
            f"{folder / TRUE_2D_FILE}: no 2D poses of {subject}, whose cameras they give"
        )
    cameras = []
    for camera, size in enumerate(FRAME_SIZES):
        world, image = [], []
        for joints_fj3, pixels in pairs:
            frames = min(len(joints_fj3), len(pixels[camera]))
            some = np.linspace(0, frames - 1, min(frames, FIT_FRAMES // len(pairs) + 1)).astype(int)
            world.append(joints_fj3[some][:, JOINTS["h36m17"][1]].reshape(-1, 3) * 1000.0)
            image.append(np.asarray(pixels[camera])[some].reshape(-1, 2))
        joints_n3, pixels_n2 = np.concatenate(world), np.concatenate(image)
        good_n = np.isfinite(joints_n3).all(axis=1) & np.isfinite(pixels_n2).all(axis=1)
        fitted = fit_camera(joints_n3[good_n].astype(np.float64), pixels_n2[good_n], size)
        if not fitted.error_px < FIT_ERROR_PX:
            raise BadInputError(
                f"{folder / TRUE_2D_FILE}: the poses of {subject} in camera {CAMERA_IDS[camera]} "
                f"do not belong to those of {POSES_FILE}: no camera sees them closer than "
                f"{fitted.error_px:.0f} px"
            )
        cameras.append(fitted)
    return cameras


def _moving_frames(joints_fj3: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the frames in which some joint moved far enough since the last frame that was kept."""
    kept = [0] if len(joints_fj3) else []
    for frame in range(1, len(joints_fj3)):
        moved_j = np.linalg.norm(joints_fj3[frame] - joints_fj3[kept[-1]], axis=1)
        # NaN counts as moved, so that the job finds it later and names it for what it is.
        if not moved_j.max() <= MOVED_MM:
            kept.append(frame)
    return np.asarray(kept, dtype=np.int64)


def _activity(action: str) -> str:
    name = action.split(" ")[0]
    return OTHER_NAMES.get(name, name)


def _read_2d(file: Path) -> Mapping[str, Any]:
    """Return the 2D poses of four cameras, in a list, by subject and action."""
    about = read_object(file, "metadata")
    layout = JOINTS["h36m17"][0]
    left = [j for j, name in enumerate(layout.joints) if name.startswith("left")]
    right = [layout.mirror[j] for j in left]
    sides = [sorted(side) for side in about.get("keypoints_symmetry", ())]
    if about.get("num_joints") != len(layout.joints) or sides != [sorted(left), sorted(right)]:
        raise BadInputError(
            f"{file}: unknown layout: {about.get('num_joints')} joints, left and right {sides}; "
            f"must be those of {layout.name}: {[sorted(left), sorted(right)]}"
        )
    subjects = _subjects_of(read_object(file, "positions_2d"), file)
    for subject, actions in subjects.items():
        for action, cameras in actions.items():
            if len(cameras) != len(CAMERA_IDS):
                raise BadInputError(f"{file}: {subject}/{action} has {len(cameras)} cameras, not 4")
            for pixels_fj2 in cameras:
                _check_shape(pixels_fj2, (len(layout.joints), 2), f"{file}: {subject}/{action}")
    return subjects


def _subjects_of(poses: Any, file: Path) -> Mapping[str, Any]:
    """Return `poses` as they are, after checking the names of subjects and actions in them."""
    if not isinstance(poses, dict) or not any(name in poses for name in SUBJECTS):
        raise BadInputError(f"{file}: holds no poses of the subjects {', '.join(SUBJECTS)}")
    for subject, actions in poses.items():
        for action, values in actions.items():
            if subject in SUBJECTS and _activity(action) not in ACTIVITIES:
                raise BadInputError(f"{file}: {subject}/{action}: unknown activity")
            if isinstance(values, np.ndarray) and file.name == POSES_FILE:
                _check_shape(values, (DATASET_JOINTS, 3), f"{file}: {subject}/{action}")
    return poses


def _check_shape(values: Any, shape: tuple[int, int], where: str) -> None:
    if np.ndim(values) != 3 or np.shape(values)[1:] != shape:
        raise BadInputError(
            f"{where}: unknown layout: shape {np.shape(values)}, must be "
            f"(F, {shape[0]}, {shape[1]})"
        )


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as raw:
            digest.update(hashlib.file_digest(raw, "sha256").digest())
    return digest.hexdigest()
