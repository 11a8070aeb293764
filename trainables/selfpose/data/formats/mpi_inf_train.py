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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfpose.data.formats.matlab import NewerMatlabFileError, read_matlab
from selfpose.data.formats.mpi_inf_protocol import (
    CAMERAS,
    SHORT_VIDEOS,
    STUDIO_SIZE,
    SUBJECTS,
    TEST_ACTIVITIES,
    TRAIN_JOINTS,
    TRAIN_SLACK,
    TRAIN_STRIDE,
    USABLE_FRAMES,
    Gathered,
    MpiInf3dhpOptions,
)
from selfpose.data.pictures.foreground import MaskPlace
from selfpose.data.pictures.photographs import Photographs
from selfpose.data.plausibility import UNITS_MM, Checks, Take, lens_fault
from selfpose.data.sources import BadAnnotationError, Skip
from selfpose.data.synthetic.motions import first_half

__all__ = ["TRAIN_FILE", "read_train_sequence"]

TRAIN_FILE = "annot.mat"
CALIBRATION_FILE = "camera.calibration"
DATASET_JOINTS = 28
"""Number of joints in the annotations."""
DATASET_CAMERAS = 14
"""Number of cameras in the annotations."""
_NUMBERS = ("cameras", "frames")
"""Variables that hold plain numbers; the others have a cell for each camera."""
WATCHED_STRIDE = 64
"""Distance, in training frames, between the frames that validate when no subject is held out."""


def read_train_sequence(
    folder: Path, name: str, *, motion: int, options: MpiInf3dhpOptions, checks: Checks
) -> Gathered:
    """Read a training sequence.

    Args:
        folder: the dataset's folder.
        name: name of the sequence, e.g. `S1/Seq1`.
        motion: number of the sequence among all motions.
        options: which frames and which scale are used.
        checks: what the rows are held against.

    Raises:
        BadAnnotationError: the annotations cannot be read or have another form.
    """
    annotations = _read_annotations(folder / name / TRAIN_FILE, options)
    gathered = Gathered(name, annotations.sha256)
    subject = name.split("/")[0]
    split = "val" if subject == options.val else "train"
    chosen_f = _choose_frames(annotations, gathered, split=split, options=options)
    frames = annotations.frame_f[chosen_f]
    cut = int(frames[first_half(frames)].max(initial=-1))  # all cameras are cut at the same time
    lenses: dict[int, _Lens] = {}
    try:
        lenses = _read_lenses(folder / name / CALIBRATION_FILE)
    except BadAnnotationError as error:  # the rows do without: their lens is fitted
        gathered.skipped.append(Skip(split, f"{name}/{CALIBRATION_FILE}", str(error)))
    for camera in CAMERAS:
        item = f"{name} camera {camera}"
        if (name, camera) in SHORT_VIDEOS:
            gathered.excluded.append(Skip(split, item, "video too short in the dataset"))
            continue
        pattern = _picture_pattern(folder, name, camera)
        fault = _camera_fault(annotations, camera, pattern) or lenses.get(camera, _NO_LENS).fault
        if fault or pattern is None:
            gathered.skipped.append(Skip(split, item, fault))
            continue
        chosen = np.flatnonzero(chosen_f[: min(_lengths(annotations, camera))])
        lengths = _lengths(annotations, camera)
        if len(set(lengths)) > 1:
            words = f"{item} (2D, 3D, real 3D, frames: {', '.join(map(str, lengths))})"
            gathered.skipped.append(Skip(split, words, "wrong count: arrays of unequal length"))
        rows = _rows(annotations, camera, chosen, pattern=pattern)
        rows.columns["motion"][:] = motion
        rows.columns["subject"][:] = SUBJECTS.index(subject)
        rows.columns["activity"][:] = len(TEST_ACTIVITIES) + int(name[-1]) - 1
        take = _take(
            annotations, rows, item, chosen=chosen, lens=lenses.get(camera, _NO_LENS), split=split
        )
        slack = 0.0 if options.whole_people else TRAIN_SLACK
        rows = _leave_out(rows, take, slack=slack, gathered=gathered, checks=checks)
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


def _read_annotations(file: Path, options: MpiInf3dhpOptions) -> _Annotations:
    wanted = "univ_annot3" if options.scale == "universal" else "annot3"
    poses = {"annot2": 2, "annot3": 3, wanted: 3}
    try:
        found = read_matlab(file, (*poses, "cameras", "frames"))
        numbers = {name: np.concatenate([c.reshape(-1) for c in found[name]]) for name in _NUMBERS}
        cameras = [int(camera) for camera in numbers["cameras"]]
        frame_f = numbers["frames"].astype(np.int64)
        joints = {
            name: {
                camera: cell.reshape(len(cell), -1, axes).astype(np.float32)
                for camera, cell in zip(cameras, found[name], strict=True)
            }
            for name, axes in poses.items()
        }
    except NewerMatlabFileError:
        raise BadAnnotationError("is a MATLAB v7.3 file; the dataset's own are v5") from None
    except FileNotFoundError:
        raise BadAnnotationError("no such file of annotations") from None
    except KeyError as error:
        raise BadAnnotationError(f"not in the dataset's form: {error.args[0]} is missing") from None
    except (OSError, ValueError, TypeError, ArithmeticError):
        raise BadAnnotationError("not a readable MATLAB file, or cut off") from None
    for some in joints.values():
        _check_form(some)
    if options.unit is not None:
        for name in {"annot3", wanted}:
            joints[name] = {
                camera: joints_fj3 * np.float32(UNITS_MM[options.unit])
                for camera, joints_fj3 in joints[name].items()
            }
    with file.open("rb") as raw:
        sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
    return _Annotations(frame_f, joints["annot2"], joints[wanted], joints["annot3"], sha256)


def _check_form(joints: Mapping[int, NDArray[np.float32]]) -> None:
    for camera, joints_fjx in joints.items():
        if not 0 <= camera < DATASET_CAMERAS:
            raise BadAnnotationError(f"unknown camera {camera}; the dataset has 0 to 13")
        if joints_fjx.shape[1] != DATASET_JOINTS:
            raise BadAnnotationError(
                f"unknown layout: camera {camera} has {joints_fjx.shape[1]} joints, "
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
    return "" if pattern else "no pictures"


def _lengths(annotations: _Annotations, camera: int) -> tuple[int, ...]:
    """Return the numbers of 2D poses, 3D poses, 3D poses at real scale, and frames of a camera."""
    parts = (annotations.joints_2d, annotations.joints_3d, annotations.real_3d)
    return (*(len(part[camera]) for part in parts), len(annotations.frame_f))


def _rows(
    annotations: _Annotations, camera: int, chosen: NDArray[np.int64], *, pattern: str
) -> Photographs:
    """Return the rows of one camera; motion, subject and activity are 0 in all of them."""
    frames = annotations.frame_f[chosen]
    blank = np.zeros(len(frames), np.int32)
    return Photographs(
        names=[pattern.format(frame + 1) for frame in frames.tolist()],
        joints_2d_nj2=annotations.joints_2d[camera][chosen][:, TRAIN_JOINTS],
        joints_3d_nj3=annotations.joints_3d[camera][chosen][:, TRAIN_JOINTS],
        columns={
            **{name: blank.copy() for name in ("activity", "subject", "motion")},
            "camera": np.full(len(frames), camera, np.int32),
            "frame": frames.astype(np.int32),
        },
        frame_size_n2=np.tile(np.asarray(STUDIO_SIZE, np.int32), (len(frames), 1)),
        root=None,
        slack=TRAIN_SLACK,
    )


@dataclass(frozen=True)
class _Lens:
    """Holds a camera's intrinsics, as far as they are known."""

    intrinsics_33: NDArray[np.float64] | None
    """Matrix of intrinsics, (3, 3), in pixels."""
    fault: str
    """What is wrong with the camera; empty if nothing is."""


_NO_LENS = _Lens(None, "")


def _read_lenses(file: Path) -> dict[int, _Lens]:
    """Return the lens of each camera in a file of calibrations; there are none without a file.

    The file has a header and then seven lines for each camera, which begin with a word.

    Raises:
        BadAnnotationError: the file cannot be read.
    """
    intrinsics: dict[int, NDArray[np.float64]] = {}
    rotations: dict[int, NDArray[np.float64]] = {}
    camera = -1
    if not file.is_file():
        return {}
    try:
        for line in file.read_text(encoding="utf-8").splitlines()[1:]:
            key, *values = line.split() or [""]
            if key == "name":
                camera = int(values[0])
            elif key in ("intrinsic", "extrinsic"):
                found = intrinsics if key == "intrinsic" else rotations
                found[camera] = np.asarray(values, np.float64).reshape(4, 4)[:3, :3]
    except (OSError, ValueError, IndexError) as error:
        raise BadAnnotationError(f"not a table of cameras: {error}") from None
    return {
        camera: _Lens(matrix_33, lens_fault(np.diag(matrix_33)[:2].tolist(), rotations.get(camera)))
        for camera, matrix_33 in intrinsics.items()
    }


def _take(
    annotations: _Annotations,
    rows: Photographs,
    item: str,
    *,
    chosen: NDArray[np.int64],
    lens: _Lens,
    split: str,
) -> Take:
    """Return what the checks look at: the rows of one camera, with the lens if it is known."""
    camera = int(rows.columns["camera"][0]) if len(rows) else 0
    real_nj3 = annotations.real_3d[camera][chosen][:, TRAIN_JOINTS].astype(np.float64)
    seen_nj2 = None
    if lens.intrinsics_33 is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            through_nj3 = real_nj3 @ lens.intrinsics_33.T
            seen_nj2 = through_nj3[..., :2] / through_nj3[..., 2:]
    return Take(
        name=item,
        split=split,
        names=rows.names,
        frame_n=rows.columns["frame"],
        joints_3d_nj3=rows.joints_3d_nj3,
        projecting_nj3=real_nj3,
        joints_2d_nj2=rows.joints_2d_nj2,
        seen_2d_nj2=seen_nj2,
    )


def _leave_out(
    rows: Photographs, take: Take, *, slack: float, gathered: Gathered, checks: Checks
) -> Photographs:
    """Return the good rows and write down the others.

    A row is excluded if all its joints are outside the picture, or if one is outside by more than
    `slack` of the picture's side, because people walk out of the picture, but not out of every
    picture of a camera. The others are held against what a person can be.
    """
    size_2 = np.asarray(STUDIO_SIZE)
    below_nj2, above_nj2 = -rows.joints_2d_nj2, rows.joints_2d_nj2 - (size_2 - 1)
    beyond_nj2 = np.maximum(below_nj2, above_nj2) / size_2
    beyond_nj = beyond_nj2.max(axis=2)  # NaN is not outside; the checks find it
    outside_n = (beyond_nj > 0).all(axis=1) | (beyond_nj > slack).any(axis=1)
    reason = "joints outside the picture"
    if len(rows) and outside_n.all():
        item = f"{take.name} ({len(rows)} rows)"
        gathered.skipped.append(Skip(take.split, item, reason))
    else:
        gathered.excluded += [
            Skip(take.split, rows.names[i], reason) for i in np.flatnonzero(outside_n).tolist()
        ]
    inside = np.flatnonzero(~outside_n)
    if len(inside):
        inside = inside[checks.check(take.pick(inside))]
    return rows.pick(inside)


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
