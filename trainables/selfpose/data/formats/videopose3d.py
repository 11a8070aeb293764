"""Reads Human3.6M's poses from VideoPose3D's files, for a store without pictures, for lifting.

    data_3d_h36m.npz        positions_3d: world axes, metres, 32 joints, every frame at 50 Hz
    data_2d_h36m_gt.npz     positions_2d: pixels of the full frame, 17 joints, four cameras

The cameras are in neither file; `recovered_cameras` finds them from both. A file of 2D detections
may be named instead of the true 2D poses.

Frames and units: 3D joints are turned into mm in camera axes. Shape letters: F frames, J joints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError, Progress, silent
from selfpose.data.formats.human36m_protocol import (
    ACTIVITIES,
    CAMERA_IDS,
    DRIFT,
    DRIFTED_STEMS,
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
from selfpose.data.formats.recovered_cameras import PoseCamera, recover_camera
from selfpose.data.pictures.photographs import (
    Photographs,
    join_photographs,
    limit_rows,
    photograph_jobs,
)
from selfpose.data.plausibility import FROZEN, UNITS_MM, Checks, Take
from selfpose.data.pose_measures import extent, frozen_rows
from selfpose.data.sources import Skip, Source

__all__ = ["POSES_FILE", "read_videopose3d"]

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
LONGER_FRAMES = 10
"""Number of frames by which 2D and 3D poses of a sequence may differ in length unnamed."""


def read_videopose3d(path: Path, options: Human36MOptions, progress: Progress = silent) -> Source:
    """Read all poses.

    Args:
        path: folder of the two files, or the file of 2D poses in it that is to be used.
        options: which frames are used; the joints must be those of h36m17 at real scale.
        progress: hears of every subject.

    Raises:
        BadInputError: a file cannot be read, has another form, or does not belong to the other. One
            sequence that has another form is left out and named.
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
    collected = _CollectedPoses(options, detected=given is not truth)
    unit_mm = UNITS_MM[options.unit or "m"]
    for i, subject in enumerate(name for name in SUBJECTS if name in poses):
        progress(i, len(poses), f"reading {subject}")
        sound = collected.sound_poses(subject, poses[subject])
        in_mm = {action: np.asarray(world) * unit_mm for action, world in sound.items()}
        true_2d = {
            action: [None if _camera_fault(pixels_fj2) else pixels_fj2 for pixels_fj2 in cameras]
            for action, cameras in truth.get(subject, {}).items()
            if not _list_fault(cameras)
        }
        cameras = [
            recover_camera(in_mm, true_2d, camera=camera) for camera in range(len(CAMERA_IDS))
        ]
        for action, world_fj3 in in_mm.items():
            pixels = given.get(subject, {}).get(action)
            sequence = _PoseSequence(f"{subject}/{action}", world_fj3, pixels, true_2d.get(action))
            collected.add(sequence, cameras)
    collected.checks.finish(folder)
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
        facts={
            **describe_protocol(options),
            "2D poses": file_2d.name,
            "images": "none",
            **facts,
            **collected.checks.facts(),
        },
        skipped=(*collected.skipped, *collected.checks.skipped),
        excluded=tuple(collected.excluded),
    )


@dataclass(frozen=True)
class _PoseSequence:
    """Holds the poses of one sequence."""

    name: str
    """Name in the files, e.g. `S1/Directions 1`."""
    world_fj3: NDArray[np.float64]
    """3D joints, (F, 32, 3), in mm in world axes."""
    pixels: Any
    """What the file has as 2D joints: those of each camera, (F, 17, 2), in pixels; None for a
    camera or for all without."""
    true_pixels: Sequence[Any] | None
    """The true 2D joints in the same form, without those of another form."""


class _CollectedPoses:
    """Collects the rows of all sequences, and what is left out of them."""

    def __init__(self, options: Human36MOptions, *, detected: bool):
        self._options, self._detected = options, detected
        self.checks = Checks(JOINTS["h36m17"][0])
        self.parts: dict[str, list[Photographs]] = {}
        self.motions: list[str] = []
        self.skipped: list[Skip] = []
        self.excluded: list[Skip] = []

    def sound_poses(self, subject: str, poses: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the 3D poses of a subject that have the right form; write down the others."""
        sound: dict[str, Any] = {}
        for action, world in poses.items():
            fault = _array_fault(world, (DATASET_JOINTS, 3))
            if _activity(str(action)) not in ACTIVITIES:
                fault = "unknown activity"
            if fault:
                skip = Skip(self._split(subject), f"{subject}/{action}", fault)
                self.skipped.append(skip)
            else:
                sound[action] = world
        return sound

    def _split(self, subject: str) -> str:
        if subject in TEST_SUBJECTS:
            return "test"
        return "val" if subject == self._options.val else "train"

    def add(self, sequence: _PoseSequence, cameras: Sequence[PoseCamera]) -> None:
        """Add the rows of a sequence, as the subject's four cameras see them."""
        name, number = sequence.name, len(self.motions)
        self.motions.append(name)
        subject = name.split("/")[0]
        split = self._split(subject)
        if name in DRIFTED_STEMS and self._options.exclude_drift:
            self.excluded.append(Skip(split, name, DRIFT))
            return
        if fault := _list_fault(sequence.pixels):
            self.skipped.append(Skip(split, name, fault))
            return
        joints_fj3 = np.asarray(sequence.world_fj3, np.float64)[:, JOINTS["h36m17"][1]]
        frozen_f = self._frozen(joints_fj3, name, split)
        for camera, (model, pixels_fj2) in enumerate(zip(cameras, sequence.pixels, strict=True)):
            item = f"{name} camera {CAMERA_IDS[camera]}"
            fault = _camera_fault(pixels_fj2) or model.fault
            if fault:
                self.skipped.append(Skip(split, item, fault))
                continue
            frames = min(len(joints_fj3), len(pixels_fj2))  # detections can be longer
            if abs(len(joints_fj3) - len(pixels_fj2)) > LONGER_FRAMES:
                words = f"{item} (3D {len(joints_fj3)}, 2D {len(pixels_fj2)} frames)"
                self.skipped.append(Skip(split, words, "wrong count: arrays of unequal length"))
            frame_f = self._frames(joints_fj3[:frames], frozen_f, subject)
            rows = _CameraRows(name, number, camera).of(
                frame_f, model.to_camera(joints_fj3), pixels_fj2
            )
            chosen = split_frames(subject, frame_f, self._options)
            used_n = np.any(list(chosen.values()), axis=0)
            used_n[used_n] = self._sound(rows.pick(np.flatnonzero(used_n)), sequence, split, model)
            for part, chosen_n in chosen.items():
                some = rows.pick(np.flatnonzero(chosen_n & used_n))
                self.parts.setdefault(part, []).append(some)

    def _frozen(self, joints_fj3: NDArray[np.float64], name: str, split: str) -> NDArray[np.bool_]:
        """Return which frames are frozen, (F,), and write them down."""
        frozen_f = frozen_rows(joints_fj3) & (extent(joints_fj3) > 0)
        if frozen_f.any():
            first = int(frozen_f.argmax()) + 1
            item = f"{name} ({frozen_f.sum()} frames, the first is {first})"
            self.skipped.append(Skip(split, item, FROZEN))
        return frozen_f

    def _frames(
        self, joints_fj3: NDArray[np.float64], frozen_f: NDArray[np.bool_], subject: str
    ) -> NDArray[np.int64]:
        """Return the numbers of the frames to take, from 1."""
        frames = np.flatnonzero(~frozen_f[: len(joints_fj3)])
        if self._options.frames == "sampled" and subject not in TEST_SUBJECTS:
            frames = frames[_moving_frames(joints_fj3[frames])]
        return frames + 1

    def _sound(
        self, rows: Photographs, sequence: _PoseSequence, split: str, model: PoseCamera
    ) -> NDArray[np.bool_]:
        """Return which rows of one camera the checks accept, (n,)."""
        if not len(rows):
            return np.zeros(0, dtype=bool)
        frame_n, camera = rows.columns["frame"], int(rows.columns["camera"][0])
        assert rows.joints_3d_nj3 is not None  # these files are poses
        seen_nj2 = model.project(rows.joints_3d_nj3)
        true = sequence.true_pixels
        if self._detected and true is not None and true[camera] is not None:
            places = frame_n[frame_n <= len(true[camera])] - 1
            seen_nj2[: len(places)] = np.asarray(true[camera])[places]
        take = Take(
            name=f"{sequence.name} camera {CAMERA_IDS[camera]}",
            split=split,
            names=rows.names,
            frame_n=frame_n,
            joints_3d_nj3=rows.joints_3d_nj3,
            joints_2d_nj2=rows.joints_2d_nj2,
            seen_2d_nj2=seen_nj2,
            detected=self._detected,
        )
        return self.checks.check(take)


@dataclass(frozen=True)
class _CameraRows:
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
    return _subjects_of(read_object(file, "positions_2d"), file)


def _subjects_of(poses: Any, file: Path) -> Mapping[str, Mapping[Any, Any]]:
    """Return what a file has for each subject, by action."""
    if not isinstance(poses, dict) or not any(name in poses for name in SUBJECTS):
        raise BadInputError(f"{file}: holds no poses of the subjects {', '.join(SUBJECTS)}")
    for subject, actions in poses.items():
        if not isinstance(actions, dict):
            raise BadInputError(f"{file}: {subject} is no table of poses by action")
    return poses


def _list_fault(cameras: Any) -> str:
    """Return why the 2D poses of a sequence cannot be used; empty if they can."""
    if cameras is None:
        return "no 2D poses"
    is_list = isinstance(cameras, list | tuple) or (
        isinstance(cameras, np.ndarray) and cameras.ndim > 0
    )
    if not is_list or len(cameras) != len(CAMERA_IDS):
        return f"not 2D poses of {len(CAMERA_IDS)} cameras"
    return ""


def _camera_fault(pixels_fj2: Any) -> str:
    """Return why the 2D poses of a camera cannot be used; empty if they can."""
    if pixels_fj2 is None:
        return "missing camera"
    return _array_fault(pixels_fj2, (len(JOINTS["h36m17"][0].joints), 2))


def _array_fault(values: Any, row: tuple[int, int]) -> str:
    """Return why values are no array (F, *row) of numbers; empty if they are one."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        return "not an array of numbers"
    if values.shape[1:] != row:
        return f"unknown layout: shape {values.shape}, must be (F, {row[0]}, {row[1]})"
    return ""


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as raw:
            digest.update(hashlib.file_digest(raw, "sha256").digest())
    return digest.hexdigest()
