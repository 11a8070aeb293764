"""Reads the training sequences of MPI-INF-3DHP.

    S1/Seq1/annot.mat                   MATLAB v5: cells of 14 cameras, frames from 0, 28 joints
    S1/Seq1/camera.calibration          optional; with it 3D joints are compared with 2D joints
    S1/Seq1/FGmasks/video_0/...         optional: masks, with the names of the pictures

and pictures, numbered from 1, in any of three schemes:
    S1/Seq1/imageFrames/video_0/frame_000001.jpg
    S1/Seq1/imageSequence/video_0/img_000001.jpg
    S1_Seq1_Cam0_000001.jpg             beside S1, in images/, or in the sequence's folder
Frames and units: pixels of the 2048 x 2048 frame, though pictures may be smaller; mm in camera
axes. Shape letters: F frames, J joints.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError
from selfpose.data.foreground import MaskPlace
from selfpose.data.formats.mpi_inf_protocol import (
    CAMERAS,
    SHORT_VIDEOS,
    STUDIO_SIZE,
    SUBJECTS,
    TEST_ACTIVITIES,
    TRAIN_JOINTS,
    TRAIN_STRIDE,
    USABLE_FRAMES,
    Gathered,
    MpiInf3dhpOptions,
)
from selfpose.data.photographs import Photographs
from selfpose.data.sources import Skip
from selfpose.data.synthetic.motions import first_half

__all__ = ["read_train_sequence"]

DATASET_JOINTS = 28
"""Number of joints in the annotations."""
DATASET_CAMERAS = 14
"""Number of cameras in the annotations."""
DISAGREE_PX = 50.0
"""Mean distance of projected 3D joints to the 2D joints, in pixels, above which a row is bad. It is
far more than the distortion of the lens."""
WATCHED_STRIDE = 64
"""Distance, in training frames, between the frames that validate when no subject is held out."""


def read_train_sequence(
    folder: Path, name: str, *, motion: int, options: MpiInf3dhpOptions
) -> Gathered:
    """Read a training sequence.

    Args:
        folder: the dataset's folder.
        name: name of the sequence, e.g. `S1/Seq1`.
        motion: number of the sequence among all motions.
        options: which frames and which scale are used.

    Raises:
        BadInputError: the annotations cannot be read or have another form.
    """
    annotations = _read_annotations(folder / name / "annot.mat", options.scale)
    gathered = Gathered(name, annotations.sha256)
    subject = name.split("/")[0]
    split = "val" if subject == options.val else "train"
    chosen_f = _choose_frames(annotations, gathered, split=split, options=options)
    frames = annotations.frame_f[chosen_f]
    cut = int(frames[first_half(frames)].max(initial=-1))  # all cameras are cut at the same time
    disagree_f = _disagree(annotations, folder / name / "camera.calibration")
    for camera in CAMERAS:
        item = f"{name} camera {camera}"
        if (name, camera) in SHORT_VIDEOS:
            gathered.excluded.append(Skip(split, item, "video too short in the dataset"))
            continue
        pattern = _picture_pattern(folder, name, camera)
        fault = _camera_fault(annotations, camera, pattern)
        if fault or pattern is None:
            gathered.skipped.append(Skip(split, item, fault))
            continue
        rows = _rows(annotations, camera, chosen_f, pattern=pattern)
        rows.columns["motion"][:] = motion
        rows.columns["subject"][:] = SUBJECTS.index(subject)
        rows.columns["activity"][:] = len(TEST_ACTIVITIES) + int(name[-1]) - 1
        rows = _leave_out(rows, disagree_f[camera][chosen_f], split=split, gathered=gathered)
        rows = replace(rows, root=str(folder))
        rows = replace(rows, masks=_place_masks(folder / name / "FGmasks", camera, rows))
        for part, chosen_n in _split_rows(rows, split, cut=cut, options=options).items():
            gathered.parts.setdefault(part, []).append(rows.pick(np.flatnonzero(chosen_n)))
    return gathered


@dataclass(frozen=True)
class _Annotations:
    """Holds the annotations of one sequence, as its annot.mat has them."""

    frame_f: NDArray[np.int64]
    """Numbers of the frames, (F,), from 0."""
    joints_2d: Mapping[int, NDArray[np.float32]]
    """2D joints of each camera, (F, 28, 2), in pixels."""
    joints_3d: Mapping[int, NDArray[np.float32]]
    """3D joints of each camera, (F, 28, 3), in mm, at the scale that the options ask for."""
    real_3d: Mapping[int, NDArray[np.float32]]
    """3D joints of each camera, (F, 28, 3), in mm, at real scale; only these project to the 2D
    joints."""
    sha256: str
    """SHA-256 of the file."""


def _read_annotations(file: Path, scale: str) -> _Annotations:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    wanted = "univ_annot3" if scale == "universal" else "annot3"
    poses = {"annot2": 2, "annot3": 3, wanted: 3}
    try:
        found = loadmat(str(file), appendmat=False, variable_names=(*poses, "cameras", "frames"))
        cameras = [int(camera) for camera in found["cameras"].reshape(-1)]
        frame_f = found["frames"].reshape(-1).astype(np.int64)
        joints = {
            name: {
                camera: np.asarray(cell).reshape(len(cell), -1, axes).astype(np.float32)
                for camera, cell in zip(cameras, found[name].reshape(-1), strict=True)
            }
            for name, axes in poses.items()
        }
    except NotImplementedError:  # scipy raises it for MATLAB v7.3
        raise BadInputError(f"{file}: MATLAB v7.3; the dataset's own is v5") from None
    except KeyError as error:
        raise BadInputError(f"{file}: there is no {error.args[0]}; not in this form") from None
    except (OSError, ValueError, TypeError, IndexError, zlib.error, MatReadError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInputError(f"{file}: not a readable MATLAB file, or cut off: {reason}") from None
    for some in joints.values():
        _check_form(file, some)
    with file.open("rb") as raw:
        sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
    return _Annotations(frame_f, joints["annot2"], joints[wanted], joints["annot3"], sha256)


def _check_form(file: Path, joints: Mapping[int, NDArray[np.float32]]) -> None:
    for camera, joints_fjx in joints.items():
        if not 0 <= camera < DATASET_CAMERAS:
            raise BadInputError(f"{file}: unknown camera {camera}; there are 0 to 13")
        if joints_fjx.shape[1] != DATASET_JOINTS:
            raise BadInputError(
                f"{file}: unknown layout: camera {camera} has {joints_fjx.shape[1]} joints, "
                f"must be {DATASET_JOINTS}"
            )


def _choose_frames(
    annotations: _Annotations, gathered: Gathered, *, split: str, options: MpiInf3dhpOptions
) -> NDArray[np.bool_]:
    """Return which annotated frames are used, (F,).

    Annotations can go on after the end of the video; such frames are written down as excluded.
    """
    chosen_f = annotations.frame_f < USABLE_FRAMES[gathered.name]
    if not chosen_f.all():
        item = f"{gathered.name} ({(~chosen_f).sum()} frames)"
        gathered.excluded.append(Skip(split, item, "annotated past the video's end"))
    if options.frames == "sampled":
        chosen_f &= annotations.frame_f % TRAIN_STRIDE == 0
    return chosen_f


def _camera_fault(annotations: _Annotations, camera: int, pattern: str | None) -> str:
    """Return why a camera of a sequence cannot be used; empty if it can."""
    if camera not in annotations.joints_2d:
        return "missing camera"
    lengths = {len(part[camera]) for part in (annotations.joints_2d, annotations.joints_3d)}
    if lengths != {len(annotations.frame_f)}:
        return "wrong count: arrays of unequal length"
    return "" if pattern else "no pictures"


def _rows(
    annotations: _Annotations, camera: int, chosen_f: NDArray[np.bool_], *, pattern: str
) -> Photographs:
    """Return the rows of one camera; motion, subject and activity are 0 in all of them."""
    frames = annotations.frame_f[chosen_f]
    blank = np.zeros(len(frames), np.int32)
    return Photographs(
        names=[pattern.format(frame + 1) for frame in frames.tolist()],
        joints_2d_nj2=annotations.joints_2d[camera][chosen_f][:, TRAIN_JOINTS],
        joints_3d_nj3=annotations.joints_3d[camera][chosen_f][:, TRAIN_JOINTS],
        columns={
            **{name: blank.copy() for name in ("activity", "subject", "motion")},
            "camera": np.full(len(frames), camera, np.int32),
            "frame": frames.astype(np.int32),
        },
        frame_size_n2=np.tile(np.asarray(STUDIO_SIZE, np.int32), (len(frames), 1)),
        root=None,
    )


def _disagree(annotations: _Annotations, calibration: Path) -> dict[int, NDArray[np.bool_]]:
    """Return for each camera in which frames the projected 3D joints are far from the 2D joints.

    A camera without calibration has no such frames.
    """
    known = _read_intrinsics(calibration) if calibration.is_file() else {}
    frames = len(annotations.frame_f)
    disagree: dict[int, NDArray[np.bool_]] = {camera: np.zeros(frames, bool) for camera in CAMERAS}
    for camera in set(known) & set(annotations.joints_2d) & set(annotations.real_3d):
        seen_fj3 = annotations.real_3d[camera].astype(np.float64) @ known[camera].T
        with np.errstate(divide="ignore", invalid="ignore"):
            off_fj2 = seen_fj3[..., :2] / seen_fj3[..., 2:]
        if len(off_fj2) == len(annotations.joints_2d[camera]) == frames:
            off_fj2 = off_fj2[:, TRAIN_JOINTS] - annotations.joints_2d[camera][:, TRAIN_JOINTS]
            disagree[camera] = np.linalg.norm(off_fj2, axis=-1).mean(axis=1) > DISAGREE_PX
    return disagree


def _read_intrinsics(file: Path) -> dict[int, NDArray[np.float64]]:
    """Return the matrix (3, 3) of intrinsics of each camera, in pixels.

    The file has a header and then seven lines for each camera, which begin with a word.
    """
    found: dict[int, NDArray[np.float64]] = {}
    camera = -1
    try:
        for line in file.read_text(encoding="utf-8").splitlines()[1:]:
            key, *values = line.split() or [""]
            if key == "name":
                camera = int(values[0])
            elif key == "intrinsic":
                found[camera] = np.asarray(values, np.float64).reshape(4, 4)[:3, :3]
    except (OSError, ValueError, IndexError) as error:
        raise BadInputError(f"{file}: not a table of cameras: {error}") from None
    return found


def _leave_out(
    rows: Photographs, disagree_n: NDArray[np.bool_], *, split: str, gathered: Gathered
) -> Photographs:
    """Return the good rows and write down the others.

    A row with a joint outside the picture is excluded, because people walk out of the picture; a
    row whose 2D and 3D joints disagree is bad.
    """
    size_2 = np.asarray(STUDIO_SIZE)
    outside_nj2 = (rows.joints_2d_nj2 < 0) | (rows.joints_2d_nj2 > size_2 - 1)
    outside_n = outside_nj2.any(axis=(1, 2))
    for rows_n, reason, account in (
        (outside_n, "joints outside the picture", gathered.excluded),
        (disagree_n & ~outside_n, "2D and 3D joints disagree", gathered.skipped),
    ):
        account += [Skip(split, rows.names[i], reason) for i in np.flatnonzero(rows_n).tolist()]
    return rows.pick(np.flatnonzero(~outside_n & ~disagree_n))


def _split_rows(
    rows: Photographs, split: str, *, cut: int, options: MpiInf3dhpOptions
) -> dict[str, NDArray[np.bool_]]:
    """Return which rows go into which split; `cut` ends the first half of the sequence."""
    frame_n = rows.columns["frame"]
    if split == "val":
        return {"val": np.ones(len(frame_n), dtype=bool)}
    splits = {"train": frame_n <= cut, "prior": frame_n > cut}
    # Without a held-out subject, some frames of the prior's half let one watch the training.
    if options.val == "none":
        splits["val"] = (frame_n > cut) & (frame_n // TRAIN_STRIDE % WATCHED_STRIDE == 0)
    return splits


def _picture_pattern(folder: Path, name: str, camera: int) -> str | None:
    """Return the path of a camera's pictures below the folder, with a place for the number.

    The numbers begin at 1. The path is None if no picture is found in any of the three schemes.
    """
    for kind, start in (("imageFrames", "frame"), ("imageSequence", "img")):
        place = f"{name}/{kind}/video_{camera}"
        if next((folder / place).glob(f"{start}_*.jpg"), None):
            return place + f"/{start}_{{:06d}}.jpg"
    start = f"{name.replace('/', '_')}_Cam{camera}_"
    for place in ("", "images/", f"{name}/", f"{name}/imageSequence/", f"{name}/imageFrames/"):
        if next((folder / place).glob(f"{start}*.jpg"), None):
            return place + start + "{:06d}.jpg"
    return None


def _place_masks(folder: Path, camera: int, rows: Photographs) -> list[MaskPlace | None]:
    """Return where each row's mask lies; empty if no masks were unpacked."""
    masks = {file.stem: file for file in sorted((folder / f"video_{camera}").glob("*.[jp][pn]g"))}
    if not masks:
        return []
    found = [masks.get(Path(name).stem) for name in rows.names]
    return [None if file is None else MaskPlace(str(file)) for file in found]
