"""Holds poses against what a person or a hand can be, before an importer writes them.

One idea, the checks that all importers share with the source of each bound, so it is long. Read
`Checks.check` first. Every importer gives it one `Take` after the other, and uses the rows
that it returns. What is wrong with some rows leaves them out by name; what is wrong with most rows
refuses the whole (`Checks.finish`). `Checks.facts` are the measured numbers, for `data info`.

Checks and the sources of their bounds:
    size        Body height from limb lengths, which are shares of it: thigh 0.245, shin 0.246,
                upper arm 0.186, forearm 0.146 (Drillis and Contini 1966, in Winter, Biomechanics
                and Motor Control of Human Movement). Motion capture has 1,518 to 1,876 mm, and
                procedural people 1,471 to 1,872. 600 mm lies below the length of a child of one
                year (690 mm at -2 SD, WHO Child Growth Standards 2006), 2,500 mm is the tallest
                living man (Guinness World Records 2011: 2,510 mm). A hand's length from its bones
                (Buryanov and Kotiuk 2010): 85 mm is less than a child's of two years, 260 mm more
                than the longest of Greiner's survey of an army (1991: 224 mm).
    2D hands    Without 3D truth: lengths of bones in the picture, each over its usual one. In
                57,600 views of procedural hands the longest is at most 2.5 times the fourth
                longest, and 1.1 times the seventh longest in the median; with noise of 4 % of the
                hand 3.1 and 1.5. Joints in other datasets' orders have 2.4 in the median. Which way
                a hand is turned and whether it is mirrored does not follow from its 2D joints.
    sides       A knee bends forwards, seen from the hips and the spine. Of 53,429 bent knees in
                29,067 frames of motion capture (CMU, HDM05) 99.6 % do, and in each of the 468
                motions with bent knees at least 78 %; of procedural motions 99.8 %.
    upright     The head is above the ankles in most frames of a take. In motion capture its median
                height above them is at least 2 % of the body height in every motion (people lie on
                the floor); a person who sits on the floor upside down has -45 %.
    frozen      Ten equal poses in a row. Motion capture has up to 7, at 10 frames a second.
    2D and 3D   Distances between 2D joints and the projected 3D joints, as a share of the person's
                height in the picture, so that no bound depends on the picture's size. A lens
                without distortion that is fitted to Human3.6M's is off by about 1 %.

No comparison here may be passed by NaN: a bound is written as `~(value <= bound)`.

Frames and units: 3D joints in mm, in camera axes (x right, y down, z forward) or world axes (z up);
2D joints in pixels. Shape letters: N rows of a take, n rows of one camera, J joints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError
from selfpose.data.pose_measures import (
    UNITS_MM,
    Axes,
    BodyPoses,
    Bounds2D,
    Compared2D,
    Rows,
    Unit,
    extent,
    fit_lens,
    frozen_rows,
    is_hand,
    size_of,
    stretch,
)
from selfpose.data.sources import Skip
from selfpose.method.skeleton import Layout

__all__ = [
    "FROZEN",
    "MIRRORING_CAMERA",
    "SHIFTED_2D",
    "UNITS_MM",
    "Checks",
    "Take",
    "Unit",
    "lens_fault",
]

NOT_NUMBERS = "joints are not numbers"
ONE_PLACE = "all joints are at one place"
NO_2D = "2D joints are missing: they are at (0, 0)"
LONG_LIMB = "a limb is longer than any body's"
STRETCHED = "a bone in the picture is longer than any hand's"
OTHER_ORDER = "the joints make no hand: they are in another order"
BEHIND = "behind the camera"
DOUBLED = "the row stands there twice"
FROZEN = "frozen: the same pose for long"
UPSIDE_DOWN = "upside down: the head is below the feet"
EXCHANGED = "left and right are exchanged, or the pose is mirrored: knees bend backwards"
NOT_PIXELS = "2D joints are not in pixels"
DISAGREE = "2D and 3D joints disagree"
SWAPPED_2D = "2D and 3D joints disagree: left and right are exchanged in one of them"
UPSIDE_DOWN_2D = "2D and 3D joints disagree: one of them is upside down"
MIRRORED_2D = "2D and 3D joints disagree: one of them is mirrored"
SHIFTED_2D = "2D and 3D joints disagree: the 2D joints are shifted"
OTHER_LENS = "2D and 3D joints disagree: they were seen through another lens"
MIRRORING_CAMERA = "the camera mirrors: a focal length is not positive, or its axes are left-handed"

_REMEDIES = {
    NOT_NUMBERS: "import data with true poses",
    ONE_PLACE: "import data with true poses, not a file whose poses were left out",
    NO_2D: "import 2D joints of frames in which the person was found",
    OTHER_ORDER: "give the wrist, then each finger from its base to its tip, the thumb first",
    BEHIND: "give joints in camera axes: x right, y down, z forward",
    UPSIDE_DOWN: "turn the axes: cameras have y down, worlds have z up",
    EXCHANGED: "exchange the sides' joints, or negate one axis",
    NOT_PIXELS: "give pixels of the whole frame, not coordinates in [-1, 1]",
}
"""What to do about a fault that most rows have."""

SMALLEST_2D_PX = 3.0
"""Extent in pixels below which 2D joints are coordinates of another kind, or show nobody."""
LONGEST_LIMB = 0.45
"""Largest length of a limb as a share of body height. A thigh has 0.25; MPI-INF-3DHP's trunk, in
two parts, 0.3."""
LONGEST_BONE = 0.75
"""Largest length of a bone as a share of the hand's length. The palm's have 0.5."""
LONGEST_STRETCH = 4.0
"""Largest length of a hand's longest bone in the picture over that of its fourth longest; a joint
has one or two bones of a finger."""
USUAL_STRETCH = 1.9
"""Largest median, over the hands of a take, of the longest bone's length over the seventh's."""
LEAST_HANDS = 8
"""Number of hands in a take below which nothing is said about the order of their joints."""
UPSIDE_DOWN_SHARE = -0.35
"""Median height of the head above the ankles, as a share of body height, below which a take is
upside down."""
FORWARDS_SHARE = 0.3
"""Share of a take's bent knees that bend forwards below which the sides are exchanged."""
LEAST_KNEES = 4
"""Number of bent knees below which nothing is said about the sides."""

_PROJECTED = Bounds2D(row=0.08, take=0.04, shift=0.03, scale=0.04)
"""Bounds for 2D joints that are projections."""
_DETECTED = Bounds2D(row=0.5, take=0.06, shift=0.03, scale=0.05)
"""Bounds for 2D joints that a detector found. It misses single joints, and its noise enlarges poses
a little; good ones are off by 1 to 3 % of a person's height."""


@dataclass(frozen=True)
class Take:
    """Holds what an importer read of one recording, one row for each frame and camera."""

    name: str
    """Name of the recording, by which the owner of the data finds it."""
    split: str
    """Name of the split for which bad rows are written down."""
    names: Sequence[str]
    """Name of each row."""
    frame_n: NDArray[Any]
    """Number of each row's frame, (N,)."""
    joints_3d_nj3: NDArray[Any] | None = None
    """3D joints, (N, J, 3), in mm; None if they are not known."""
    axes: Axes = "camera"
    """Axes of the 3D joints."""
    joints_2d_nj2: NDArray[Any] | None = None
    """2D joints, (N, J, 2), in pixels; None for a drawn take, whose 2D joints follow from 3D."""
    seen_2d_nj2: NDArray[Any] | None = None
    """Where the 2D joints should be, (N, J, 2), in pixels: the 3D joints through a lens that is
    known, or the true 2D joints. NaN in rows for which it is not known; a lens is fitted then."""
    projecting_nj3: NDArray[Any] | None = None
    """3D joints that project to the 2D joints, (N, J, 3), in mm in camera axes, where
    `joints_3d_nj3` do not: those of a universal skeleton."""
    camera_n: NDArray[Any] | None = None
    """Index of each row's camera, (N,); None if there is one."""
    cameras: Sequence[object] = ()
    """Names of the cameras, by their index."""
    detected: bool = False
    """Whether the 2D joints come from a detector, which is less exact."""

    def __len__(self) -> int:
        return len(self.names)

    def pick(self, rows: NDArray[np.int64]) -> Take:
        """Return some of the rows, by indices (n,)."""

        def some(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if array is None else array[rows]

        return replace(
            self,
            names=[self.names[row] for row in rows.tolist()],
            frame_n=np.asarray(self.frame_n)[rows],
            joints_3d_nj3=some(self.joints_3d_nj3),
            projecting_nj3=some(self.projecting_nj3),
            joints_2d_nj2=some(self.joints_2d_nj2),
            seen_2d_nj2=some(self.seen_2d_nj2),
            camera_n=some(self.camera_n),
        )


class Checks:
    """Checks the recordings of one import and remembers what it measured."""

    def __init__(self, layout: Layout) -> None:
        """Prepare for takes with the joints of `layout`."""
        self.skipped: list[Skip] = []
        """Rows that were left out; rows of a take that share a fault stand together."""
        self._layout = layout
        self._size = size_of(layout)
        self._rows = 0
        self._faults: dict[str, int] = {}
        self._numbers: dict[str, list[NDArray[np.float64]]] = {}
        self._impossible: dict[str, float] = {}
        self._pieces = {True: 0, False: 0}

    def check(self, take: Take) -> Rows:
        """Return which rows of a take can be used, (N,), and write down the others."""
        good_n = np.ones(len(take), dtype=bool)
        bad: dict[str, Rows] = {}

        def leave_out(faults: Iterator[tuple[str, Rows]]) -> None:
            for reason, rows_n in faults:
                rows_n = rows_n & good_n  # a row is left out for its first fault
                if rows_n.any():
                    bad[reason] = bad.get(reason, False) | rows_n
                    good_n[rows_n] = False

        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # of broken poses
            leave_out(self._row_faults(take))
        leave_out(self._take_faults(take, good_n.copy()))
        leave_out(self._faults_2d(take, good_n.copy()))
        self._write_down(take, bad)
        self._measure(take, good_n)
        return good_n

    def finish(self, where: object) -> None:
        """Refuse data of which most rows are bad for one reason.

        Args:
            where: the file or folder that is imported.

        Raises:
            BadInputError: names the reason, the first item and what to do.
        """
        if not self._faults:
            return
        reason, count = max(self._faults.items(), key=lambda entry: entry[1])
        if count * 2 > self._rows or sum(self._faults.values()) == self._rows:
            remedy = _REMEDIES.get(reason, "mend the data")
            if reason in self._impossible:
                reason += f" (it is {self._impossible[reason]:.4g})"
                remedy = "give --unit m, cm, mm or inch, or mend the data"
            first = next(skip.item for skip in self.skipped if reason.startswith(skip.reason))
            raise BadInputError(
                f"{where}: {reason}, in {count} of {self._rows} rows; the first is {first}; "
                f"{remedy}"
            )

    def facts(self) -> dict[str, str]:
        """Return what was measured, in words, for the store's facts."""
        if not self._rows:
            return {}
        bad = sum(self._faults.values())
        facts = {"check: rows": f"{self._rows} checked, {bad} left out for what follows"}
        if size_n := self._joined("size"):
            facts["check: size"] = (
                f"{self._size.what} {_spread(size_n, '.0f')} mm (must be "
                f"{self._size.low_mm:.0f} to {self._size.high_mm:.0f})"
            )
        named = {NOT_NUMBERS: "not numbers", ONE_PLACE: "at one place", FROZEN: "frozen"}
        named[DOUBLED] = "doubled"
        found = (f"{self._faults.get(reason, 0)} {words}" for reason, words in named.items())
        facts["check: missing truth"] = ", ".join(found)
        if up_n := self._joined("up"):
            facts["check: upright"] = (
                f"head above the ankles by {_spread(up_n, '.2f')} of the height"
            )
        facts["check: left and right"] = "joint angles do not tell: look at the contact sheet"
        if forwards_n := self._joined("forwards"):
            silent, total = self._pieces[False], sum(self._pieces.values())
            facts["check: left and right"] = (
                f"knees bend forwards in {np.mean(forwards_n[0]):.1%} of {len(forwards_n[0])}"
            )
            if silent:
                facts["check: left and right"] += (
                    f"; {silent} of {total} takes do not tell: look at the contact sheet"
                )
        if stretch_n := self._joined("stretch"):
            facts["check: bones in the picture"] = (
                f"longest over seventh longest {_spread(stretch_n, '.2f')} (the median must be "
                f"below {USUAL_STRETCH})"
            )
        if depth_n := self._joined("depth"):
            facts["check: depth"] = f"nearest joints {_spread(depth_n, '.0f')} mm before the camera"
        if distance_n := self._joined("distance"):
            facts["check: 2D against 3D"] = (
                f"median distance {np.median(distance_n[0]):.4f} of a person's height, 95 % below "
                f"{np.quantile(distance_n[0], 0.95):.4f}"
            )
        return facts

    def _row_faults(self, take: Take) -> Iterator[tuple[str, Rows]]:
        """Yield what is wrong with single rows."""
        given = [part for part in (take.joints_3d_nj3, take.joints_2d_nj2) if part is not None]
        for part in given:
            yield NOT_NUMBERS, ~np.isfinite(part).all(axis=(1, 2))
        for part in given:
            yield ONE_PLACE, ~(extent(part) > 1e-3)
        yield DOUBLED, _doubled(take)
        if take.joints_2d_nj2 is not None:
            yield NO_2D, (take.joints_2d_nj2 == 0).all(axis=2).any(axis=1)
            yield NOT_PIXELS, ~(extent(take.joints_2d_nj2) > SMALLEST_2D_PX)
            if self._is_flat_hand(take):
                stretch_n = stretch(self._layout, take.joints_2d_nj2, 4)
                yield STRETCHED, ~(stretch_n <= LONGEST_STRETCH)
        if take.joints_3d_nj3 is not None:
            body = BodyPoses(self._layout, take.joints_3d_nj3, take.axes)
            yield from self._size_faults(body)
            if take.axes == "camera":
                yield BEHIND, ~(take.joints_3d_nj3[..., 2].min(axis=1) > 0)

    def _is_flat_hand(self, take: Take) -> bool:
        """Return whether nothing but 2D joints of hands is known."""
        return is_hand(self._layout) and take.joints_3d_nj3 is None

    def _size_faults(self, body: BodyPoses) -> Iterator[tuple[str, Rows]]:
        """Yield which bodies have an impossible size, with the unit that they are likely in."""
        size, size_n = self._size, body.size_n
        wrong_n = ~((size_n >= size.low_mm) & (size_n <= size.high_mm))
        wrong = np.flatnonzero(wrong_n)
        units = np.asarray([size.likely_unit(value) for value in size_n[wrong].tolist()])
        for unit in sorted(set(units.tolist())):
            likely = "in no known unit" if unit == "mm" else f"likely in {unit}"
            reason = f"the {size.what} is not {size.low_mm:.0f} to {size.high_mm:.0f} mm: {likely}"
            rows = wrong[units == unit]
            self._impossible.setdefault(reason, float(np.median(size_n[rows])))
            yield reason, _at(rows, len(size_n))
        longest = LONGEST_BONE if is_hand(self._layout) else LONGEST_LIMB
        yield LONG_LIMB, ~(body.longest_limb_n() <= longest * size_n)

    def _take_faults(self, take: Take, good_n: Rows) -> Iterator[tuple[str, Rows]]:
        """Yield what is wrong with poses in a row, of which each alone could be right."""
        poses = take.joints_2d_nj2 if take.joints_3d_nj3 is None else take.joints_3d_nj3
        if poses is None or not good_n.any():
            return
        if self._is_flat_hand(take):
            stretch_n = stretch(self._layout, poses[good_n], 7)
            if len(stretch_n) >= LEAST_HANDS and not np.median(stretch_n) <= USUAL_STRETCH:
                yield OTHER_ORDER, good_n
        body = None
        if take.joints_3d_nj3 is not None and not is_hand(self._layout):
            body = BodyPoses(self._layout, take.joints_3d_nj3, take.axes)
            if not np.median(body.up_n[good_n]) >= UPSIDE_DOWN_SHARE:
                yield UPSIDE_DOWN, good_n
        for here in _by_camera(take, good_n):
            yield FROZEN, _at(here[frozen_rows(poses[here])], len(take))
            if body is not None:
                yield EXCHANGED, _at(here[self._exchanged(body.pick(here))], len(take))

    def _exchanged(self, body: BodyPoses) -> Rows:
        """Return in which poses, in the order of time, left and right are exchanged, (n,).

        A take is cut where the sides jump, and every piece is judged by its knees.
        """
        forwards_n2, bent_n2 = body.knees
        piece_n = body.pieces_n()
        exchanged_n = np.zeros(len(piece_n), dtype=bool)
        for piece in range(int(piece_n[-1]) + 1):
            rows_n = piece_n == piece
            forwards_m = forwards_n2[rows_n][bent_n2[rows_n]]
            told = len(forwards_m) >= LEAST_KNEES
            self._pieces[told] += 1
            if told and not (forwards_m > 0).mean() >= FORWARDS_SHARE:
                exchanged_n |= rows_n
        return exchanged_n

    def _faults_2d(self, take: Take, good_n: Rows) -> Iterator[tuple[str, Rows]]:
        """Yield where the 2D joints are not those of the 3D joints, camera by camera."""
        if take.joints_2d_nj2 is None or take.joints_3d_nj3 is None:
            return
        bounds = _DETECTED if take.detected else _PROJECTED
        for here in _by_camera(take, good_n):
            given_nj2 = take.joints_2d_nj2[here].astype(np.float64)
            seen = take.joints_3d_nj3 if take.projecting_nj3 is None else take.projecting_nj3
            body = BodyPoses(self._layout, seen[here].astype(np.float64), take.axes)
            fault, seen_nj2 = _where_seen(take, here, given_nj2, body)
            compared = Compared2D(given_nj2, seen_nj2, body.height_px_n(seen_nj2))
            bad_n = ~compared.is_near_n(bounds)
            fault = fault or self._fault_2d(compared, bounds)
            if fault:
                bad_n[:] = True
            self._note("distance", compared.distance_n[~bad_n])
            yield fault or DISAGREE, _at(here[bad_n], len(take))

    def _fault_2d(self, compared: Compared2D, bounds: Bounds2D) -> str:
        """Return what is wrong with the 2D joints of a camera as a whole; empty if nothing is."""
        if compared.is_within(bounds):
            return ""
        own = compared.centred_distance()
        others = {
            SWAPPED_2D: compared.centred_distance(order=list(self._layout.mirror)),
            UPSIDE_DOWN_2D: compared.centred_distance(change=(1.0, -1.0)),
            MIRRORED_2D: compared.centred_distance(change=(-1.0, 1.0)),
        }
        reason, nearest = min(others.items(), key=lambda other: other[1])
        if nearest < own / 2:
            return reason
        if own <= bounds.take:
            return SHIFTED_2D if compared.shift > bounds.shift else OTHER_LENS
        return DISAGREE

    def _write_down(self, take: Take, bad: Mapping[str, Rows]) -> None:
        """Add what was left out: by rows, or as a whole camera or take that shares a fault."""
        self._rows += len(take)
        for reason, bad_n in bad.items():
            self._faults[reason] = self._faults.get(reason, 0) + int(bad_n.sum())
            self.skipped += [Skip(take.split, item, reason) for item in _items(take, bad_n)]

    def _measure(self, take: Take, good_n: Rows) -> None:
        """Remember the numbers of good rows."""
        if self._is_flat_hand(take) and take.joints_2d_nj2 is not None:
            self._note("stretch", stretch(self._layout, take.joints_2d_nj2[good_n], 7))
        if take.joints_3d_nj3 is None or not good_n.any():
            return
        body = BodyPoses(self._layout, take.joints_3d_nj3[good_n], take.axes)
        self._note("size", body.size_n)
        if take.axes == "camera":
            self._note("depth", body.joints_nj3[..., 2].min(axis=1))
        if not is_hand(self._layout):
            self._note("up", body.up_n)
            forwards_n2, bent_n2 = body.knees
            self._note("forwards", forwards_n2[bent_n2] > 0)

    def _note(self, name: str, values: NDArray[Any]) -> None:
        if len(values):
            self._numbers.setdefault(name, []).append(values)

    def _joined(self, name: str) -> list[NDArray[np.float64]]:
        parts = self._numbers.get(name)
        return [np.concatenate(parts)] if parts else []


def lens_fault(focal_px: Sequence[float], rotation_33: NDArray[Any] | None = None) -> str:
    """Return what is wrong with a camera; empty if nothing is.

    Args:
        focal_px: focal lengths in x and y, in pixels.
        rotation_33: rotation from world axes to camera axes, (3, 3); None if it is not known.
    """
    mirrors = not all(focal > 0 for focal in focal_px)
    if rotation_33 is not None and not np.linalg.det(rotation_33) > 0:
        mirrors = True
    return MIRRORING_CAMERA if mirrors else ""


def _where_seen(
    take: Take, here: NDArray[np.int64], given_nj2: NDArray[np.float64], body: BodyPoses
) -> tuple[str, NDArray[np.float64]]:
    """Return a fault of the lens, and where the 2D joints should be, (n, J, 2), in pixels.

    Where the lens is not known, it is fitted to the 2D joints themselves.
    """
    if take.seen_2d_nj2 is not None:
        seen_nj2 = take.seen_2d_nj2[here].astype(np.float64)
        if np.isfinite(seen_nj2).all():
            return "", seen_nj2
    focal_2, centre_2 = fit_lens(body.plane_nj2, given_nj2)
    seen_nj2 = body.plane_nj2 * focal_2 + centre_2
    if not focal_2[1] > 0:
        return UPSIDE_DOWN_2D, seen_nj2
    return "" if focal_2[0] > 0 else MIRRORED_2D, seen_nj2


def _items(take: Take, bad_n: Rows) -> list[str]:
    """Return the names of bad rows; a take or a camera of several rows is one item."""
    if bad_n.all() and len(take) > 1:
        return [f"{take.name} ({len(take)} rows)"]
    items, camera_n = [], _cameras(take)
    for camera in np.unique(camera_n).tolist():
        here_n = camera_n == camera
        rows = np.flatnonzero(bad_n & here_n).tolist()
        if len(rows) == here_n.sum() and len(rows) > 1:
            number = take.cameras[camera] if camera < len(take.cameras) else camera
            items.append(f"{take.name} camera {number} ({len(rows)} rows)")
        else:
            items += [take.names[row] for row in rows]
    return items


def _by_camera(take: Take, good_n: Rows) -> Iterator[NDArray[np.int64]]:
    """Yield the good rows of each camera, as indices (n,) in the order of time."""
    camera_n = _cameras(take)
    for camera in np.unique(camera_n[good_n]):
        here = np.flatnonzero(good_n & (camera_n == camera))
        yield here[np.argsort(np.asarray(take.frame_n)[here], kind="stable")]


def _doubled(take: Take) -> Rows:
    """Return which rows repeat a frame of a camera that stands before them, (N,)."""
    keys = np.stack([_cameras(take), np.asarray(take.frame_n)])
    _, first = np.unique(keys, axis=1, return_index=True)
    doubled_n = np.ones(len(take), dtype=bool)
    doubled_n[first] = False
    return doubled_n


def _cameras(take: Take) -> NDArray[Any]:
    return np.zeros(len(take), np.int64) if take.camera_n is None else np.asarray(take.camera_n)


def _at(rows: NDArray[np.int64], count: int) -> Rows:
    rows_n = np.zeros(count, dtype=bool)
    rows_n[rows] = True
    return rows_n


def _spread(values: list[NDArray[np.float64]], form: str) -> str:
    """Return lowest, median and highest value in words."""
    low, middle, high = np.quantile(values[0], (0.0, 0.5, 1.0))
    return f"{low:{form}} to {high:{form}}, median {middle:{form}}"
