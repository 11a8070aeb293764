"""Reads Human3.6M from the folders that h36m-fetch makes.

    processed/S1/Directions-1/annot.h5
    processed/S1/Directions-1/imageSequence/54138969/img_000001.jpg
    processed/S1/MySegmentsMat/ground_truth_bs/Directions 1.54138969.mat     if there are masks
    metadata.xml                                                            they need this

In annot.h5 the rows of all cameras of a sequence stand one camera after the other.
Frames and units: pixels of the full frame; mm in camera axes; video frames are numbered from 1.
Shape letters: N rows of a sequence, J joints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError, Progress, silent
from selfpose.data.formats.human36m_protocol import (
    ACTIVITIES,
    CAMERA_IDS,
    DRIFT,
    DRIFTED,
    FRAME_SIZES,
    JOINTS,
    LICENCE,
    SUBJECTS,
    TEST_SUBJECTS,
    Human36MOptions,
    describe_protocol,
    split_frames,
)
from selfpose.data.hdf5 import UnsafeDatasetError, read_dataset
from selfpose.data.pictures.foreground import MaskPlace
from selfpose.data.pictures.photographs import (
    Photographs,
    add_backdrops,
    join_photographs,
    limit_rows,
    photograph_jobs,
)
from selfpose.data.plausibility import UNITS_MM, Checks, Take, lens_fault
from selfpose.data.sources import BadAnnotationError, Skip, Source

__all__ = ["read_fetch"]

ANNOTATION_FILE = "annot.h5"
DATASET_JOINTS = 32
"""Number of joints in the dataset's annotations."""
FIRST_ACTION = 2
"""Number of the first action; the dataset's action 1 stands for all actions together."""
CORRUPT = {("S11/Directions-2", 54138969)}
"""Sequence and camera of the videos that are corrupt in the dataset itself."""
UNKNOWN_CAMERA = f"unknown camera: Human3.6M has {', '.join(map(str, CAMERA_IDS))}"
MASK_FOLDERS = ("ground_truth_bs", "ground_truth_bb")
"""Folders of silhouettes and of boxes; the first one that has a mask is used."""


def read_fetch(folder: Path, options: Human36MOptions, progress: Progress = silent) -> Source:
    """Read all annotations below a folder.

    Args:
        folder: h36m-fetch's folder, or the folder `processed` in it.
        options: which joints and frames are used.
        progress: hears of every sequence.

    Raises:
        BadInputError: there are no annotations, or most rows of them cannot be right.
    """
    root = folder / "processed" if (folder / "processed").is_dir() else folder
    names = sorted(
        f"{subject}/{place.name}"
        for subject in SUBJECTS
        for place in root.glob(f"{subject}/*-*")
        if _activity(place.name) in ACTIVITIES or (place / ANNOTATION_FILE).is_file()
    )
    if not any((root / name / ANNOTATION_FILE).is_file() for name in names):
        raise BadInputError(
            f"{folder}: does not hold Human3.6M: neither S1/Directions-1/annot.h5 and the like, as "
            "h36m-fetch makes them, nor data_3d_h36m.npz"
        )
    collected = _Collected(root, options)
    digest = hashlib.sha256()
    for i, name in enumerate(names):
        progress(i, len(names), f"reading {name}")
        digest.update(f"{name}\0{_sha256(root / name / ANNOTATION_FILE)}\0".encode())
        collected.add(name)
    collected.checks.finish(folder)
    joined = {split: join_photographs(some) for split, some in collected.parts.items()}
    with_backdrops = add_backdrops(joined, still="subject")
    rows = {split: limit_rows(part, options.limit) for split, part in with_backdrops.items()}
    job, facts = photograph_jobs(rows, options)
    return Source(
        format="human36m",
        layout=JOINTS[options.layout][0],
        licence=LICENCE,
        digest=digest.hexdigest(),
        activities=ACTIVITIES,
        subjects=SUBJECTS,
        motions=tuple(names),
        rows={split: len(part) for split, part in rows.items()},
        job=job,
        facts={**describe_protocol(options), **facts, **collected.checks.facts()},
        skipped=(*collected.skipped, *collected.checks.skipped),
        excluded=tuple(collected.excluded),
    )


def _activity(folder: str) -> str:
    """Return the activity in the name of a sequence's folder: `Directions` of `Directions-1`."""
    return folder.rpartition("-")[0]


class _Collected:
    """Collects the rows of all sequences, and what is left out of them."""

    def __init__(self, root: Path, options: Human36MOptions):
        self._root, self._options = root, options
        self._stems = _mask_stems(root)
        self._sequences = 0
        self.checks = Checks(JOINTS[options.layout][0])
        self.parts: dict[str, list[Photographs]] = {}
        self.skipped: list[Skip] = []
        self.excluded: list[Skip] = []

    def add(self, name: str) -> None:
        """Read the sequence of this name, e.g. `S1/Directions-1`, and add its rows."""
        subject = name.split("/")[0]
        split = "test" if subject in TEST_SUBJECTS else "train"
        split = "val" if subject == self._options.val else split
        if _activity(name.split("/")[1]) not in ACTIVITIES:
            self.skipped.append(Skip(split, name, "unknown activity"))
            return
        motion, self._sequences = self._sequences, self._sequences + 1
        if name in DRIFTED and self._options.exclude_drift:
            self.excluded.append(Skip(split, name, DRIFT))
            return
        try:
            sequence = self._read(name, split)
        except BadAnnotationError as error:
            self.skipped.append(Skip(split, f"{name}/{ANNOTATION_FILE}", str(error)))
            return
        rows = _rows(self._root, name, sequence=sequence, motion=motion, options=self._options)
        rows = rows.pick(np.flatnonzero(self._good_rows(name, split, sequence=sequence, rows=rows)))
        rows = replace(rows, masks=_place_masks(self._root, name, rows=rows, stems=self._stems))
        for part, chosen_n in split_frames(subject, rows.columns["frame"], self._options).items():
            self.parts.setdefault(part, []).append(rows.pick(np.flatnonzero(chosen_n)))

    def _read(self, name: str, split: str) -> _Sequence:
        """Return what can be used of a sequence's annotations, and write down what cannot.

        Raises:
            BadAnnotationError: nothing of them can be used.
        """
        sequence = _read_arrays(self._root / name / ANNOTATION_FILE, self._options)
        lengths = {key: len(values) for key, values in sequence.arrays.items()}
        if len(set(lengths.values())) > 1:
            words = ", ".join(f"{key} {length}" for key, length in lengths.items())
            skip = Skip(split, f"{name} ({words})", "wrong count: arrays of unequal length")
            self.skipped.append(skip)
            # What all arrays have is kept; rows that do not belong together disagree in 2D and 3D.
            sequence = sequence.pick(slice(min(lengths.values())))
            if not sequence.is_in_order():
                raise BadAnnotationError("frames of a camera are not in order")
        cameras_n = sequence.arrays["camera"]
        known_n = np.isin(cameras_n, CAMERA_IDS)
        for camera in np.unique(cameras_n[~known_n]).tolist():
            item = f"{name} camera {camera} ({np.count_nonzero(cameras_n == camera)} rows)"
            self.skipped.append(Skip(split, item, UNKNOWN_CAMERA))
        return sequence.pick(known_n)

    def _good_rows(
        self, name: str, split: str, *, sequence: _Sequence, rows: Photographs
    ) -> NDArray[np.bool_]:
        """Return which rows of a sequence can be used, (N,), and write down the others."""
        cameras, actions = sequence.arrays["camera"], sequence.arrays["action"]
        for camera in sorted(set(CAMERA_IDS) - set(cameras.tolist())):
            self.skipped.append(Skip(split, f"{name} camera {camera}", "missing camera"))
        known_n = (actions >= FIRST_ACTION) & (actions < FIRST_ACTION + len(ACTIVITIES))
        unknown = [rows.names[i] for i in np.flatnonzero(~known_n).tolist()]
        self.skipped += [Skip(split, item, "unknown action") for item in unknown]
        good_n = known_n & self._mirror_free(name, split, sequence)
        checked = rows.pick(np.flatnonzero(good_n))
        seen_nj2 = sequence.seen_2d_nj2()[good_n][:, JOINTS[self._options.layout][1]]
        take = Take(
            name=name,
            split=split,
            names=checked.names,
            frame_n=checked.columns["frame"],
            joints_3d_nj3=checked.joints_3d_nj3,
            joints_2d_nj2=checked.joints_2d_nj2,
            seen_2d_nj2=seen_nj2,
            camera_n=checked.columns["camera"],
            cameras=CAMERA_IDS,
        )
        if len(take):
            good_n[good_n] = self.checks.check(take)
        for corrupt, camera in CORRUPT:
            if corrupt == name and camera in cameras:
                skip = Skip(split, f"{name} camera {camera}", "corrupt video in the dataset")
                self.excluded.append(skip)
                good_n &= cameras != camera
        return good_n

    def _mirror_free(self, name: str, split: str, sequence: _Sequence) -> NDArray[np.bool_]:
        """Return which rows come from cameras that do not mirror, (N,); write down the others."""
        cameras_n = sequence.arrays["camera"]
        good_n = np.ones(len(cameras_n), dtype=bool)
        for camera, (fx, _, fy, _) in sequence.intrinsics.items():
            fault = lens_fault((fx, fy))
            if fault and camera in cameras_n:
                self.skipped.append(Skip(split, f"{name} camera {camera}", fault))
                good_n &= cameras_n != camera
        return good_n


def _rows(
    root: Path, name: str, *, sequence: _Sequence, motion: int, options: Human36MOptions
) -> Photographs:
    """Return all rows of a sequence, bad ones included and without masks."""
    cameras, frames = (sequence.arrays[key].tolist() for key in ("camera", "frame"))
    camera_n = np.asarray([CAMERA_IDS.index(camera) for camera in cameras], np.int32)
    joints = list(JOINTS[options.layout][1])
    return Photographs(
        names=[
            f"{name}/imageSequence/{camera}/img_{frame:06d}.jpg"
            for camera, frame in zip(cameras, frames, strict=True)
        ],
        joints_2d_nj2=sequence.pose_2d_nj2[:, joints].astype(np.float32),
        joints_3d_nj3=sequence.pose_3d_nj3[:, joints].astype(np.float32)
        * np.float32(UNITS_MM[options.unit or "mm"]),
        columns={
            "activity": (sequence.arrays["action"] - FIRST_ACTION).astype(np.int32),
            "subject": np.full(len(frames), SUBJECTS.index(name.split("/")[0]), np.int32),
            "motion": np.full(len(frames), motion, np.int32),
            "camera": camera_n,
            "frame": np.asarray(frames, np.int32),
        },
        frame_size_n2=np.asarray(FRAME_SIZES, np.int32)[camera_n],
        root=str(root),
        crop_to_masks=True,
    )


@dataclass(frozen=True)
class _Sequence:
    """Holds the annotations of one sequence, as its annot.h5 has them."""

    arrays: Mapping[str, NDArray[Any]]
    """Arrays by their names in the file: `pose/2d`, `pose/3d` or `pose/3d-univ`, `frame`, `camera`
    and `action`."""
    pose: str
    """Name of the array of 3D poses, which depends on the scale."""
    intrinsics: Mapping[int, NDArray[np.float64]]
    """The numbers fx, cx, fy, cy of each camera, (4,), in pixels."""

    @property
    def pose_2d_nj2(self) -> NDArray[Any]:
        return self.arrays["pose/2d"]

    @property
    def pose_3d_nj3(self) -> NDArray[Any]:
        return self.arrays[self.pose]

    def is_in_order(self) -> bool:
        """Return whether the frames of each camera follow one another, as h36m-fetch writes them.

        They do not if a row is missing in the middle of one array.
        """
        camera_n, frame_n = self.arrays["camera"], self.arrays["frame"]
        cameras = np.unique(camera_n).tolist()
        return all((np.diff(frame_n[camera_n == camera]) > 0).all() for camera in cameras)

    def pick(self, rows: slice | NDArray[np.bool_]) -> _Sequence:
        """Return the sequence with some of its rows only."""
        return replace(self, arrays={name: some[rows] for name, some in self.arrays.items()})

    def seen_2d_nj2(self) -> NDArray[np.float64]:
        """Return where the cameras see the 3D joints, (N, 32, 2), in pixels.

        The places are NaN for a camera without intrinsics.
        """
        pose_3d_nj3 = self.pose_3d_nj3.astype(np.float64)
        seen_nj2 = np.full((len(pose_3d_nj3), DATASET_JOINTS, 2), np.nan)
        for camera, (fx, cx, fy, cy) in self.intrinsics.items():
            here = np.flatnonzero(self.arrays["camera"] == camera)
            with np.errstate(divide="ignore", invalid="ignore"):
                plane_nj2 = pose_3d_nj3[here, :, :2] / pose_3d_nj3[here, :, 2:]
                seen_nj2[here] = plane_nj2 * (fx, fy) + (cx, cy)
        return seen_nj2


def _read_arrays(file: Path, options: Human36MOptions) -> _Sequence:
    """Read an annot.h5 and check its form.

    Raises:
        BadAnnotationError: the file is missing, cannot be read, or has another form.
    """
    real = options.scale == "real"
    poses = {"pose/2d": 2, "pose/3d" if real else "pose/3d-univ": 3}
    try:
        with h5py.File(file, "r") as h5:
            names = (*poses, "frame", "camera", "action")
            arrays = {name: read_dataset(h5, name) for name in names}
            lenses = "intrinsics" if real else "intrinsics-univ"
            intrinsics = {
                int(camera): read_dataset(h5, f"{lenses}/{camera}").astype(np.float64).reshape(4)
                for camera in h5.get(lenses, {})
            }
    except FileNotFoundError:
        raise BadAnnotationError("no such file of annotations") from None
    except KeyError as error:
        raise BadAnnotationError(f"not in h36m-fetch's form: {error.args[0]}") from None
    except UnsafeDatasetError as error:
        raise BadAnnotationError(str(error)) from None
    except (OSError, RuntimeError, ValueError, TypeError):  # h5py's own
        raise BadAnnotationError("not a readable HDF5 file, or cut off") from None
    for name, values in arrays.items():
        row = (DATASET_JOINTS, poses[name]) if name in poses else ()
        is_kind = np.issubdtype(values.dtype, np.floating if name in poses else np.integer)
        if values.ndim != 1 + len(row) or values.shape[1:] != row or not is_kind:
            raise BadAnnotationError(
                f"unknown layout: {name} is {values.dtype} of shape {values.shape}, must be "
                f"numbers of shape ({', '.join(map(str, ('N', *row)))})"
            )
    return _Sequence(arrays, list(poses)[1], intrinsics)


def _mask_stems(root: Path) -> Mapping[str, str]:
    """Return how the dataset names the mask files of each sequence; empty if there are no masks.

    Raises:
        BadInputError: there are masks, but metadata.xml is missing or has no table of names.
    """
    if not any(next(root.glob(f"*/MySegmentsMat/{kind}/*.mat"), None) for kind in MASK_FOLDERS):
        return {}
    file = next(
        (f for f in (root / "metadata.xml", root.parent / "metadata.xml") if f.is_file()), None
    )
    if file is None:
        raise BadInputError(
            f"{root}: there are masks in MySegmentsMat, but no metadata.xml, which says which "
            "belongs to which sequence; put it beside the folder of the subjects"
        )
    try:
        return dict(_read_mapping(file))
    except (OSError, ElementTree.ParseError, AttributeError, ValueError, IndexError) as error:
        raise BadInputError(f"{file}: no table of sequences can be read: {error}") from None


def _read_mapping(file: Path) -> Iterator[tuple[str, str]]:
    """Yield pairs such as (`S1/Directions-1`, `Directions 1`) from the dataset's table of names."""
    table = ElementTree.parse(file).getroot().find("mapping")
    if table is None:
        raise ValueError("there is no element mapping")
    header, *rows = [[cell.text or "" for cell in row] for row in table]
    for action, subaction, *own in rows:
        if not action.isdigit() or not 0 <= int(action) - FIRST_ACTION < len(ACTIVITIES):
            continue
        for subject, stem in zip(header[2:], own, strict=False):
            yield f"{subject}/{ACTIVITIES[int(action) - FIRST_ACTION]}-{subaction}", stem


def _place_masks(
    root: Path, name: str, *, rows: Photographs, stems: Mapping[str, str]
) -> list[MaskPlace | None]:
    """Return where each row's mask lies; empty if the sequence has no masks."""
    if name not in stems:
        return []
    folder = root / name.split("/")[0] / "MySegmentsMat"
    files: dict[int, str | None] = {}
    for i, camera in enumerate(CAMERA_IDS):
        possible = [folder / kind / f"{stems[name]}.{camera}.mat" for kind in MASK_FOLDERS]
        files[i] = next((str(file) for file in possible if file.is_file()), None)
    return [
        None if files[camera] is None else MaskPlace(str(files[camera]), frame - 1)
        for camera, frame in zip(
            rows.columns["camera"].tolist(), rows.columns["frame"].tolist(), strict=True
        )
    ]


def _sha256(file: Path) -> str:
    """Return the SHA-256 of a file; empty if it cannot be read."""
    try:
        with file.open("rb") as raw:
            return hashlib.file_digest(raw, "sha256").hexdigest()
    except OSError:
        return ""
