"""Reads the test sequences of MPI-INF-3DHP.

    TS1/annot_data.mat                   MATLAB v7.3: HDF5 shows the axes in the opposite order,
                                         (F, 1, 17, 2) for annot2
    TS1/imageSequence/img_000001.jpg     frames from 1
Frames and units: pixels of the frame; mm in camera axes. Shape letters: F frames, J joints.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from selfpose.data.formats.mpi_inf_protocol import (
    OUTDOORS,
    OUTDOORS_SIZE,
    STUDIO_SIZE,
    SUBJECTS,
    TEST_ACTIVITIES,
    TEST_JOINTS,
    TEST_SLACK,
    Gathered,
    MpiInf3dhpOptions,
)
from selfpose.data.hdf5 import UnsafeDatasetError, read_dataset
from selfpose.data.pictures.photographs import Photographs
from selfpose.data.plausibility import UNITS_MM, Checks, Take
from selfpose.data.sources import BadAnnotationError, Skip

__all__ = ["TEST_FILE", "read_test_sequence"]

TEST_FILE = "annot_data.mat"


def read_test_sequence(
    folder: Path, name: str, *, motion: int, options: MpiInf3dhpOptions, checks: Checks
) -> Gathered:
    """Read the valid frames of a test sequence.

    Args:
        folder: the dataset's folder.
        name: path of the sequence below the folder; it ends in the sequence's name, e.g. `TS1`.
        motion: number of the sequence among all motions.
        options: which scale is used.
        checks: what the rows are held against.

    Raises:
        BadAnnotationError: the annotations cannot be read or have another form.
    """
    file, short = folder / name / TEST_FILE, name.split("/")[-1]
    pose = "univ_annot3" if options.scale == "universal" else "annot3"
    arrays, lost = _read_arrays(file, pose)
    with file.open("rb") as raw:
        gathered = Gathered(short, hashlib.file_digest(raw, "sha256").hexdigest())
    if lost:
        skip = Skip("test", f"{short} ({lost})", "wrong count: arrays of unequal length")
        gathered.skipped.append(skip)
    valid_f, activity_f = arrays["valid_frame"] != 0, arrays["activity_annotation"]
    if not valid_f.all():
        item = f"{short} ({(~valid_f).sum()} of {len(valid_f)} frames)"
        gathered.excluded.append(Skip("test", item, "frame not valid for the test"))
    known_f = (activity_f >= 1) & (activity_f <= len(TEST_ACTIVITIES))
    pattern = f"{name}/imageSequence/img_{{:06d}}.jpg"
    gathered.skipped += [
        Skip("test", pattern.format(frame + 1), "unknown activity")
        for frame in np.flatnonzero(valid_f & ~known_f).tolist()
    ]
    frames = np.flatnonzero(valid_f & known_f)
    size = OUTDOORS_SIZE if short in OUTDOORS else STUDIO_SIZE
    columns = {
        "activity": activity_f[frames] - 1,
        "subject": SUBJECTS.index(short),
        "motion": motion,
        "camera": 0,
        "frame": frames,
    }
    rows = Photographs(
        names=[pattern.format(frame + 1) for frame in frames.tolist()],
        joints_2d_nj2=arrays["annot2"][frames][:, TEST_JOINTS].astype(np.float32),
        joints_3d_nj3=arrays[pose][frames][:, TEST_JOINTS].astype(np.float32),
        columns={key: np.full(len(frames), column, np.int32) for key, column in columns.items()},
        frame_size_n2=np.tile(np.asarray(size, np.int32), (len(frames), 1)),
        root=str(folder),
        slack=TEST_SLACK,
    )
    gathered.parts["test"] = [_sound(rows, arrays["annot3"][frames], short, options, checks)]
    return gathered


def _sound(
    rows: Photographs,
    real_nj3: NDArray[Any],
    name: str,
    options: MpiInf3dhpOptions,
    checks: Checks,
) -> Photographs:
    """Return the rows that the checks accept, in mm; `real_nj3` are the joints at real scale."""
    assert rows.joints_3d_nj3 is not None  # test sequences have 3D joints
    unit = np.float32(UNITS_MM[options.unit or "mm"])
    rows = replace(rows, joints_3d_nj3=rows.joints_3d_nj3 * unit)
    if not len(rows):
        return rows
    take = Take(
        name=name,
        split="test",
        names=rows.names,
        frame_n=rows.columns["frame"],
        joints_3d_nj3=rows.joints_3d_nj3,
        projecting_nj3=real_nj3[:, TEST_JOINTS] * unit,
        joints_2d_nj2=rows.joints_2d_nj2,
    )
    return rows.pick(np.flatnonzero(checks.check(take)))


def _read_arrays(file: Path, pose: str) -> tuple[dict[str, NDArray[Any]], str]:
    """Return the joints and two numbers per frame, and in words what the file has too few of.

    The joints are (F, 17, 2) in pixels and (F, 17, 3) in mm. The numbers, (F,) each, say whether
    the frame is valid and which activity it shows. F is the number of frames that have all.

    Raises:
        BadAnnotationError: the file is missing, cannot be read, or has another form.
    """
    try:
        with h5py.File(file, "r") as h5:
            names = ("annot2", pose, "annot3")
            arrays = {name: read_dataset(h5, name) for name in names}
            numbers = {
                name: read_dataset(h5, name).reshape(-1)
                for name in ("valid_frame", "activity_annotation")
            }
    except FileNotFoundError:
        raise BadAnnotationError("no such file of annotations") from None
    except KeyError as error:
        raise BadAnnotationError(f"not in the test set's form: {error.args[0]}") from None
    except UnsafeDatasetError as error:
        raise BadAnnotationError(str(error)) from None
    except (OSError, RuntimeError, ValueError, TypeError):  # h5py's own
        raise BadAnnotationError("not a readable MATLAB v7.3 file, or cut off") from None
    for name, axes in {"annot2": 2, pose: 3, "annot3": 3}.items():
        wanted = (1, len(TEST_JOINTS), axes)
        is_number = np.issubdtype(arrays[name].dtype, np.number)
        if arrays[name].shape[1:] != wanted or not is_number:
            raise BadAnnotationError(
                f"unknown layout: {name} is {arrays[name].dtype} of shape {arrays[name].shape}, "
                f"must be numbers of shape (F, {', '.join(map(str, wanted))})"
            )
        arrays[name] = arrays[name][:, 0]
    for name, values in numbers.items():
        if not np.issubdtype(values.dtype, np.number):
            raise BadAnnotationError(f"unknown layout: {name} is {values.dtype}, must be numbers")
        # What is no number is no activity, and not valid.
        arrays[name] = np.nan_to_num(values, nan=0, posinf=0, neginf=0).astype(np.int64)
    lengths = {name: len(values) for name, values in arrays.items()}
    frames = min(lengths.values())
    lost = ", ".join(f"{name} {length}" for name, length in lengths.items())
    equal = frames == max(lengths.values())
    return {name: values[:frames] for name, values in arrays.items()}, "" if equal else lost
