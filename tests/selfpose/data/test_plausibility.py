"""Data that cannot be right does not get in, and data that can be right does.

A seeded mutator spoils one recording of a good folder in one way; readers of every format refuse
the folder, or leave the recording out by name. Variants that people do have are read whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.pose_faults import (
    CASES,
    HAND_KINDS,
    KINDS_2D,
    KINDS_3D,
    NAMES,
    OF_A_FEW,
    SLOW_CASES,
    SPOILT,
    draw_hands,
    good,
    scaled,
)
from support.pose_folders import (
    PLACES,
    Recording,
    film,
    person,
    write_fetch,
    write_hands,
    write_mocap17,
    write_mpi_inf,
    write_videopose3d,
)

from posetune.api import BadInputError
from selfpose.data.formats import recovered_cameras
from selfpose.data.formats.handdb import HandDBOptions, read_handdb
from selfpose.data.formats.human36m_images import read_fetch
from selfpose.data.formats.human36m_protocol import ACTIVITIES, Human36MOptions
from selfpose.data.formats.mocap17 import read_mocap17
from selfpose.data.formats.mpi_inf_3dhp import read_mpi_inf_3dhp
from selfpose.data.formats.mpi_inf_protocol import MpiInf3dhpOptions
from selfpose.data.formats.videopose3d import read_videopose3d
from selfpose.data.plausibility import Checks, Take, lens_fault
from selfpose.data.sources import Skip
from selfpose.method.skeleton import H36M_17, HAND_21, KEYPOINTGAN_17

SEEDS = 20
SLOW = pytest.mark.slow
LONG = pytest.mark.long
Found = tuple[list[Skip], int]
"""What was left out, and the number of rows that were not."""


def read(form: str, root: Path, recordings: Mapping[str, Recording]) -> Found:
    """Write a folder and read it."""
    if form == "mocap17":
        corpus = read_mocap17(write_mocap17(root, recordings), seed=0)
        return [*corpus.skipped], sum(len(motion.frame_f) for motion in corpus.motions)
    if form == "fetch":
        source = read_fetch(write_fetch(root, recordings), Human36MOptions(frames="all"))
    elif form == "videopose3d":
        # Fitting a camera to what no camera sees takes long, so there is one.
        folder = write_videopose3d(root, recordings, cameras=1)
        source = read_videopose3d(folder, Human36MOptions(frames="all"))
    else:
        source = read_mpi_inf_3dhp(write_mpi_inf(root, recordings), MpiInf3dhpOptions())
    # A user may have some of the cameras only.
    # Whoever walks out of its pictures is left out from every copy; here nobody does.
    found = (*source.skipped, *source.excluded)
    skipped = [skip for skip in found if skip.reason != "missing camera"]
    return skipped, sum(source.rows.values())


def _spoil_and_read(form: str, kind: str, seed: int, folder: Path) -> None:
    change, reason = {**KINDS_3D, **KINDS_2D}[kind]
    rng = np.random.default_rng(seed)
    recordings = good(form, rng)
    name = SPOILT[form]
    recordings[name] = change(recordings[name], rng)

    skipped, rows = read(form, folder / str(seed), recordings)

    named = [skip for skip in skipped if name in skip.item]
    assert named, f"seed {seed}: nothing of {name} was left out; {skipped}"
    assert {skip.item for skip in skipped} == {skip.item for skip in named}
    if form != "videopose3d":
        assert all(re.search(reason, skip.reason) for skip in named), (seed, named)
    assert rows > 0


@pytest.mark.parametrize(("form", "kind"), CASES)
def test_a_spoilt_recording_is_left_out_by_name_and_the_others_stay(
    form: str, kind: str, tmp_path: Path
) -> None:
    _spoil_and_read(form, kind, 0, tmp_path)


MANY = {
    "fetch": [f"S1/{action}-{i}" for action in ACTIVITIES[1:] for i in (1, 2)],
    "mpi_inf": ["S1/Seq2", *(f"S{subject}/Seq{i}" for subject in (2, 3, 4, 5, 7) for i in (1, 2))],
    "mocap17": [f"train/{letter}" for letter in "ghijklmnopqrs"],
}
"""Names of recordings beside those of `NAMES`."""


@LONG
@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("form", MANY)
def test_recordings_of_every_kind_of_fault_are_left_out_of_one_folder(
    form: str, part: int, tmp_path: Path
) -> None:
    kinds = {**KINDS_3D, **KINDS_2D}
    mine = [kind for case, kind in CASES if case == form][part::2]
    spoilt = dict(zip(mine, MANY[form], strict=False))
    assert len(spoilt) == len(mine)
    for seed in range(1, SEEDS):
        rng = np.random.default_rng(seed)
        recordings = good(form, rng)
        for kind, name in spoilt.items():
            recordings[name] = kinds[kind][0](good(form, rng, names=(name,))[name], rng)
        skipped, rows = read(form, tmp_path / str(seed), recordings)

        for kind, name in spoilt.items():
            named = [skip for skip in skipped if re.search(rf"{name}\b", skip.item)]
            assert named, f"seed {seed}: nothing of {kind} was left out"
            assert all(re.search(kinds[kind][1], skip.reason) for skip in named), (seed, named)
        pattern = "|".join(rf"{name}\b" for name in spoilt.values())
        assert [skip for skip in skipped if not re.search(pattern, skip.item)] == []
        assert rows > 0


@pytest.mark.parametrize(
    "seeds", [pytest.param(range(1), marks=SLOW), pytest.param(range(1, SEEDS), marks=LONG)]
)
@pytest.mark.parametrize(("form", "kind"), SLOW_CASES)
def test_a_spoilt_recording_of_videopose3d_is_left_out_by_name(
    seeds: range, form: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovered_cameras, "FIT_FRAMES", 20)
    for seed in seeds:
        _spoil_and_read(form, kind, seed, tmp_path)


WHOLE_CASES = [case for case in CASES if case[1] not in OF_A_FEW]


def _spoil_all_and_read(form: str, kind: str, seed: int, folder: Path) -> None:
    change, reason = {**KINDS_3D, **KINDS_2D}[kind]
    rng = np.random.default_rng(seed)
    # A folder of two recordings is quicker; a file of motion capture has three groups.
    names = NAMES[form][-2:] if seed and form != "mocap17" else NAMES[form]
    recordings = {n: change(seen, rng) for n, seen in good(form, rng, names=names).items()}

    with pytest.raises(BadInputError) as caught:
        read(form, folder / str(seed), recordings)

    message = str(caught.value)
    assert re.search(reason.removesuffix("$"), message), (seed, message)
    assert "\n" not in message
    assert str(folder) in message
    assert re.search(r"in \d+ of \d+ rows; the first is ", message)


@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, SEEDS), marks=LONG)])
@pytest.mark.parametrize(("form", "kind"), WHOLE_CASES)
def test_what_all_recordings_share_refuses_the_whole_in_one_line(
    form: str, kind: str, seeds: range, tmp_path: Path
) -> None:
    for seed in seeds:
        _spoil_all_and_read(form, kind, seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("count", [6, pytest.param(66, marks=LONG)])
@pytest.mark.parametrize("form", ["mocap17", "fetch", "mpi_inf"])
def test_valid_variants_are_read_whole(form: str, count: int, tmp_path: Path) -> None:
    """Children, tall people, seated, lying, other cameras and frame rates, cropped pictures.

    What is cut off a picture at the left and at the top moves the middle of the lens with it.
    Joints that stood there have negative pixels; the pelvis is always in the picture.
    """
    rng = np.random.default_rng(11)
    for number in range(count):
        height = (850.0, 1100.0, 1400.0, 1700.0, 2100.0, 2250.0)[number % 6]
        posture = ("walking", "seated", "lying")[number % 3]
        focal = min(2300.0, rng.uniform(0.7, 1.6) * (2250 if form == "mpi_inf" else 1145))
        middle = 1024.0 if form == "mpi_inf" else 510.0
        cut_2 = rng.uniform(0.05, 0.9, 2) * middle if number % 4 == 3 else np.zeros(2)
        places = tuple(
            tuple(np.asarray(place) * rng.uniform(0.8, 1.1, 3)) if form != "mpi_inf" else place
            for place in PLACES
        )
        people = {
            name: (person(rng, height_mm=height, posture=posture), int(rng.integers(1, 7)))
            for name in NAMES[form]
        }
        for _ in range(2):  # with all of the cut, then with what leaves the pelvis in the picture
            lens = (focal, middle - cut_2[0], focal, middle - cut_2[1])
            recordings = {
                name: film(world, lens=lens, places=places, stride=stride)
                for name, (world, stride) in people.items()
            }
            seen = [pixels[:, 0].min(0) for one in recordings.values() for pixels in one.pixels]
            cut_2 += np.minimum(0, np.min(seen, axis=0))
        skipped, rows = read(form, tmp_path / str(number), recordings)
        assert skipped == [], (number, height, posture)
        assert rows > 0


@pytest.mark.slow
def test_valid_variants_of_videopose3d_are_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovered_cameras, "FIT_FRAMES", 40)
    rng = np.random.default_rng(11)
    for number in range(10):
        height, posture = rng.uniform(850, 2250), ("walking", "seated", "lying")[number % 3]
        recordings = {
            name: film(person(rng, height_mm=height, posture=posture))
            for name in NAMES["videopose3d"]
        }
        assert read("videopose3d", tmp_path / str(number), recordings)[0] == []


def test_joints_that_a_layout_does_not_use_may_be_missing(tmp_path: Path) -> None:
    recordings = good("fetch", np.random.default_rng(0))
    folder = write_fetch(tmp_path / "folder", recordings)
    for file in folder.glob("*/*/annot.h5"):
        with h5py.File(file, "r+") as h5:
            h5["pose/3d"][:, 28:] = np.nan
            h5["pose/2d"][:, 28:] = np.nan

    assert read_fetch(folder, Human36MOptions(frames="all")).skipped == ()


@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(2, SEEDS), marks=SLOW)])
@pytest.mark.parametrize("kind", HAND_KINDS)
def test_hands_that_cannot_be_right_are_left_out_by_name(
    kind: str, seeds: range, tmp_path: Path
) -> None:
    change, reason = HAND_KINDS[kind]
    options = HandDBOptions(train="synth2", prior="synth3", val="synth1", test="manual_test")
    for seed in seeds:
        rng = np.random.default_rng(seed)
        parts = {part: draw_hands(rng) for part in ("synth1", "synth2", "synth3", "manual_test")}
        assert read_handdb(write_hands(tmp_path / f"{seed}", parts), options).skipped == ()
        parts["synth2"] = change(parts["synth2"])
        source = read_handdb(write_hands(tmp_path / f"{seed}x", parts), options)

        assert source.skipped
        assert all("synth2" in skip.item for skip in source.skipped)
        assert all(reason in skip.reason for skip in source.skipped)
        assert source.rows["train"] == 0
        assert source.rows["val"] == 12


def test_a_hand_that_stands_there_twice_is_left_out_once() -> None:
    hands = draw_hands(np.random.default_rng(0), 3)[[0, 1, 1, 2]]
    checks = Checks(HAND_21)
    take = Take("hands", "train", ["a", "b", "b", "c"], np.array([0, 1, 1, 2]), joints_2d_nj2=hands)

    assert checks.check(take).tolist() == [True, True, False, True]
    assert checks.skipped == [Skip("train", "b", "the row stands there twice")]


def test_no_number_that_is_none_passes_any_check() -> None:
    """NaN and infinity in any place of a good take, in 3D or in 2D, are found."""
    seen = film(person(np.random.default_rng(0)))
    for bad in (np.nan, np.inf, -np.inf):
        for place in ("joints", "pixels"):
            arrays = {"joints": seen.joints[0].copy(), "pixels": seen.pixels[0].copy()}
            arrays[place][4, 3, 1] = bad
            take = Take(
                "take",
                "test",
                [str(i) for i in seen.frame],
                seen.frame,
                joints_3d_nj3=arrays["joints"],
                joints_2d_nj2=arrays["pixels"],
            )
            good_n = Checks(H36M_17).check(take)
            assert np.flatnonzero(~good_n).tolist() == [4]


@pytest.mark.parametrize("focal", [(-1145, 1145), (1145, -1145), (0, 1145), (np.nan, 1145)])
def test_a_lens_that_mirrors_is_found(focal: tuple[float, float]) -> None:
    assert "mirrors" in lens_fault(focal)
    assert lens_fault((1145, 1145), np.eye(3)) == ""
    assert "mirrors" in lens_fault((1145, 1145), np.diag([-1.0, 1, 1]))
    assert "mirrors" in lens_fault((1145, 1145), np.full((3, 3), np.nan))


def test_camera_of_fetch_with_a_negative_focal_length_is_left_out(tmp_path: Path) -> None:
    folder = write_fetch(tmp_path / "folder", good("fetch", np.random.default_rng(0)))
    with h5py.File(folder / "S1/Directions-1/annot.h5", "r+") as h5:
        h5["intrinsics/55011271"][0] *= -1
    source = read_fetch(folder, Human36MOptions(frames="all"))

    assert [skip.item for skip in source.skipped] == ["S1/Directions-1 camera 55011271"]
    assert "mirrors" in source.skipped[0].reason


def test_a_person_of_another_layout_is_measured_by_the_same_limbs() -> None:
    world = person(np.random.default_rng(0))
    names = {name: i for i, name in enumerate(H36M_17.joints)}
    ankles = {"right_toe": "right_ankle", "left_toe": "left_ankle"}
    other = np.stack(
        [world[:, names[ankles.get(n, n)]] + 100 * (n in ankles) for n in KEYPOINTGAN_17.joints], 1
    )
    checks = Checks(KEYPOINTGAN_17)
    frames = np.arange(len(world))
    take = Take("a", "train", [*map(str, frames)], frames, joints_3d_nj3=other, axes="world")

    assert checks.check(take).all()
    wrong = replace(take, joints_3d_nj3=other * (1, 1, -1))
    assert not checks.check(wrong).any()


def test_the_unit_that_somebody_knows_is_taken(tmp_path: Path) -> None:
    for unit, factor in {"m": 0.001, "cm": 0.1, "inch": 1 / 25.4, "mm": 1.0}.items():
        rng = np.random.default_rng(3)
        recordings = {
            name: scaled(factor)(seen, rng) for name, seen in good("mocap17", rng).items()
        }
        file = write_mocap17(tmp_path / f"{unit}.h5", recordings)
        corpus = read_mocap17(file, seed=0, unit=unit)

        assert corpus.skipped == ()
        low, high = re.findall(r"(\d+) to (\d+), median", corpus.facts["check: size"])[0]
        assert 1300 < int(low) <= int(high) < 2100
        if unit != "mm":
            with pytest.raises(BadInputError, match=rf"likely in {unit}.*give --unit m, cm, mm"):
                read_mocap17(file, seed=0)


def test_the_unit_changes_nothing_of_what_projects(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    made = {name: scaled(0.1)(seen, rng) for name, seen in good("fetch", rng).items()}
    folder = write_fetch(tmp_path / "folder", made)
    assert read_fetch(folder, Human36MOptions(frames="all", unit="cm")).skipped == ()


@pytest.mark.slow
def test_every_real_motion_passes(mocap_file: Path) -> None:
    corpus = read_mocap17(mocap_file, seed=0)

    assert corpus.skipped == ()
    assert len(corpus.motions) == 469
    assert corpus.facts["check: rows"].startswith("29067 checked, 0 left out")


def test_every_real_motion_that_is_mirrored_or_turned_over_is_found(mocap_file: Path) -> None:
    """Of 469 motions, those whose knees tell: nearly all."""
    with h5py.File(mocap_file) as h5:
        joints, motion = h5["test/positions"][()].astype(np.float64), h5["test/motion"][()]
    found = {"mirrored": 0, "upside down": 0}
    changes = {"mirrored": (1, -1, 1), "upside down": (1, -1, -1)}
    for number in np.unique(motion):
        some = joints[motion == number]
        frames = np.arange(len(some))
        for kind, change in changes.items():
            take = Take(
                "m", "test", [""] * len(some), frames, joints_3d_nj3=some * change, axes="world"
            )
            found[kind] += not Checks(H36M_17).check(take).any()

    motions = len(np.unique(motion))
    assert found["mirrored"] >= 0.95 * motions
    assert found["upside down"] >= 0.9 * motions  # not those of people on the floor


def test_shifted_sequences_of_human36m_are_left_out_when_asked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ("S1/Directions-1", "S8/Walking-1", "S9/Greeting-2", "S9/SittingDown-2", "S9/Waiting-1")
    made = {name: film(person(rng)) for name in (*names, "S9/Waiting-2")}
    folder = write_fetch(tmp_path / "folder", made)
    kept = read_fetch(folder, Human36MOptions(frames="all"))
    left_out = read_fetch(folder, Human36MOptions(frames="all", exclude_drift=True))

    assert (kept.rows["test"], left_out.rows["test"]) == (4 * 4 * 12, 4 * 12)
    assert [skip.item for skip in left_out.excluded] == [*names[2:]]
    assert left_out.facts["drift"] != kept.facts["drift"]


def test_videopose3d_keeps_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No camera, no 2D poses, longer 2D poses and a shifted sequence, each by its name."""
    monkeypatch.setattr(recovered_cameras, "FIT_FRAMES", 60)
    rng = np.random.default_rng(0)
    names = [f"S1/{name}" for name in ("Directions", "Eating", "Greeting", "Photo", "Posing")]
    made = {name: film(person(rng)) for name in (*names, "S8/Walking", "S9/Waiting", "S9/Sitting")}
    made["S1/Photo"] = replace(made["S1/Photo"], pixels=made["S1/Photo"].pixels + 40)
    folder = write_videopose3d(tmp_path / "folder", made)
    file = folder / "data_2d_h36m_gt.npz"
    with np.load(file, allow_pickle=True) as stored:
        pixels, about = stored["positions_2d"].item(), stored["metadata"].item()
    pixels["S1"]["Directions"][2] = None
    del pixels["S1"]["Eating"]
    pixels["S9"]["Sitting"] = [np.concatenate([p, p]) for p in pixels["S9"]["Sitting"]]
    np.savez(file, positions_2d=np.array(pixels, object), metadata=np.array(about, object))
    source = read_videopose3d(folder, Human36MOptions(frames="all"))

    reasons = {(skip.item.split(" ")[0], skip.reason) for skip in source.skipped}
    assert reasons == {
        ("S1/Directions", "missing camera"),
        ("S1/Eating", "no 2D poses"),
        ("S1/Photo", "2D and 3D joints disagree: the 2D joints are shifted"),
        ("S9/Sitting", "wrong count: arrays of unequal length"),
    }
    assert source.rows["test"] == 2 * 4 * 12


def test_checks_of_drawn_people_stand_on_the_store(plain_store: object) -> None:
    facts = plain_store.metadata.facts

    assert "knees bend forwards in" in facts["check: left and right"]
