from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from posetune.api import BadInputError, silent
from selfpose.data import importing, shards
from selfpose.data.metadata import write_metadata
from selfpose.data.store import Store, open_store
from selfpose.data.synthetic.bodies import procedural
from selfpose.data.synthetic.bodies.procedural import IMPORTER, ProceduralOptions
from selfpose.data.synthetic.cameras import CAMERAS, FOCAL_PX, FRAME_PX
from selfpose.data.synthetic.motions import Corpus

MakeStore = Callable[..., Store]

IMPORT_SCRIPT = """
import signal
import sys
from pathlib import Path
from posetune.api import silent
from selfpose.data import importing
from selfpose.data.synthetic.bodies.procedural import IMPORTER, ProceduralOptions


def wait_in_the_middle(done, total, note=""):
    if done >= 32:
        Path(sys.argv[2]).touch()
        signal.pause()


if __name__ == "__main__":
    importing.SHARD_ROWS = 10
    options = ProceduralOptions(image_size=32, level="plain", limit=32, workers=2)
    progress = wait_in_the_middle if len(sys.argv) > 2 else silent
    IMPORTER.run(None, Path(sys.argv[1]), options, progress)
"""
"""Imports; told of a file, it makes that in the middle, and waits to be killed."""


def _import(out: Path, **changes: Any) -> None:
    settings = {"image_size": 32, "level": "plain", "limit": SMALL, "workers": 1, **changes}
    IMPORTER.run(None, out, ProceduralOptions.model_validate(settings), silent)


SMALL = 40
OTHER_SEED = 3


@pytest.fixture(autouse=True, scope="module")
def motions_made_once() -> Iterator[None]:
    """Make the motions of small imports beforehand: there most of their time goes."""
    made = {
        seed: procedural.make_corpus(ProceduralOptions(seed=seed, limit=SMALL))
        for seed in (0, OTHER_SEED)
    }
    make_anew = procedural.make_corpus

    def make_corpus(options: ProceduralOptions) -> Corpus:
        return made[options.seed] if options.limit == SMALL else make_anew(options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(procedural, "make_corpus", make_corpus)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("level", ["plain", pytest.param("rooms", marks=pytest.mark.long)])
def test_the_same_seed_gives_the_same_store_whatever_the_workers(
    tmp_path: Path, make_store: MakeStore, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "SHARD_ROWS", 5)  # several shards for each worker
    digests = {
        make_store(tmp_path / f"{workers}", level=level, limit=12, workers=workers).digest
        for workers in (1, 2)
    }
    other = make_store(tmp_path / "other", level=level, limit=12, seed=1)

    assert len(digests) == 1
    assert other.digest not in digests


def test_projected_3d_joints_are_the_2d_joints_up_to_the_crop(plain_store: Store) -> None:
    split = plain_store.split("train")
    frame_nj2 = split.joints_3d[..., :2] / split.joints_3d[..., 2:] * FOCAL_PX + FRAME_PX / 2

    for pixels_j2, crop_j2 in zip(frame_nj2, split.joints_2d, strict=True):
        spread = np.ptp(pixels_j2, axis=0).argmax()  # the crop is a square: one scale, one shift
        scale = np.ptp(crop_j2[:, spread]) / np.ptp(pixels_j2[:, spread])
        shift = crop_j2[0] - scale * pixels_j2[0]
        np.testing.assert_allclose(scale * pixels_j2 + shift, crop_j2, atol=1e-3)
        assert 1.25 <= 2 / (scale * np.ptp(pixels_j2, axis=0).max()) <= 1.45 + 1e-3
        assert np.abs((crop_j2.min(0) + crop_j2.max(0)) / 2).max() <= 2 * 0.04 + 1e-3
    assert np.abs(split.joints_2d).max() < 1


@pytest.mark.slow
def test_lengths_of_limbs_can_be_given_and_are_refused_before_anything_is_made(
    tmp_path: Path, make_store: MakeStore
) -> None:
    usual = make_store(tmp_path / "usual", limit=4, bone_ratios="usual")
    given = make_store(tmp_path / "given", limit=4, bone_ratios=",".join(["3"] * 16))

    assert usual.bone_ratios == usual.layout.bone_ratios
    assert given.bone_ratios == (1.0,) * 16
    ones = "1," * 15
    for wrong in ("1,2", ones + "0", ones + "nan", ones + "1e-5", "1e308," * 15 + "1", "long"):
        with pytest.raises(BadInputError, match="bone-ratios: must be `usual`, or 16 lengths"):
            _import(tmp_path / "wrong", bone_ratios=wrong)
    assert not (tmp_path / "wrong.partial").exists()


def test_a_finished_store_of_before_an_option_was_there_is_left_as_it_is(
    tmp_path: Path, make_store: MakeStore
) -> None:
    store = make_store(tmp_path / "store", limit=4)
    made_from = {k: v for k, v in store.metadata.made_from.items() if k != "masks"}
    write_metadata(store.root, store.metadata.model_copy(update={"made_from": made_from}))

    before = open_store(store.root).digest
    make_store(tmp_path / "store", limit=4)
    assert open_store(store.root).digest == before
    with pytest.raises(BadInputError, match="made with masks = 'exact', asked for 'estimated'"):
        make_store(tmp_path / "store", limit=4, masks="estimated")


def test_3d_joints_are_in_camera_axes_in_front_of_the_camera(plain_store: Store) -> None:
    split = plain_store.split("val")
    heads, ankles = split.joints_3d[:, 10], split.joints_3d[:, 3]

    assert (split.joints_3d[..., 2] > 2500).all()
    assert (heads[:, 1] < ankles[:, 1]).all()  # y points down
    world = split.joints_3d @ CAMERAS[0].world_to_camera_33 + CAMERAS[0].position_mm
    assert world[:, [3, 6], 2].min(axis=1) == pytest.approx(90, abs=0.5)
    assert np.abs(world[:, 0, :2]).max() <= 901


def test_train_and_prior_share_no_motion_and_looks_differ_between_groups(
    plain_store: Store,
) -> None:
    motions = {name: set(plain_store.split(name).motion.tolist()) for name in importing.SPLITS}
    subjects = {
        name: set(plain_store.split(name).subject.tolist()) for name in ("train", "val", "test")
    }

    for first, second in (("train", "prior"), ("train", "val"), ("train", "test"), ("val", "test")):
        assert not motions[first] & motions[second]
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not subjects[first] & subjects[second]


@pytest.mark.slow
def test_views_repeat_each_frame_for_every_camera(tmp_path: Path, make_store: MakeStore) -> None:
    stored = make_store(tmp_path / "views", views=3, limit=8)
    split = stored.split("train")

    assert len(split) == len(stored.split("prior")) == 24
    np.testing.assert_array_equal(split.camera, np.tile([0, 1, 2], 8))
    one_frame = [
        split.joints_3d[i] @ camera.world_to_camera_33 + camera.position_mm
        for i, camera in enumerate(CAMERAS[:3])
    ]
    np.testing.assert_allclose(one_frame[0], one_frame[1], atol=0.1)
    np.testing.assert_allclose(one_frame[0], one_frame[2], atol=0.1)


def test_masks_agree_with_the_picture_on_level_plain(plain_store: Store) -> None:
    split = plain_store.split("train")
    rows = np.arange(len(split))
    masks = split.masks(rows)
    assert masks is not None
    lit = split.images(rows).max(axis=-1) > 8

    assert (lit == (masks > 8)).mean() > 0.99
    assert (lit[masks == 0] == 0).all()
    assert 0.03 < (masks > 127).mean() < 0.5


def test_joints_lie_on_the_drawn_person(plain_store: Store) -> None:
    split = plain_store.split("test")
    masks = split.masks(np.arange(len(split)))
    assert masks is not None
    size = masks.shape[1]
    pixel = np.rint((split.joints_2d + 1) * (size - 1) / 2).astype(int)
    rows = np.arange(len(split))[:, None]

    assert (masks[rows, pixel[..., 1], pixel[..., 0]] > 60).mean() > 0.97


@pytest.mark.slow
def test_a_finished_store_of_the_same_import_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "store"
    _import(out)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    notes: list[str] = []

    options = ProceduralOptions(image_size=32, level="plain", limit=SMALL, workers=2)
    IMPORTER.run(None, out, options, lambda done, total, note="": notes.append(note))

    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before
    assert "already made" in notes[-1]


@pytest.mark.slow
def test_a_store_made_with_other_options_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "store"
    _import(out)
    digest = open_store(out).digest

    with pytest.raises(BadInputError, match=r"made with seed = 0, asked for 3"):
        _import(out, seed=OTHER_SEED)
    assert open_store(out).digest == digest


def test_a_folder_that_is_no_store_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()

    with pytest.raises(BadInputError, match="not a store"):
        _import(tmp_path / "letters")


class _StopError(Exception):
    pass


def _stop_after(rows: int) -> Callable[..., None]:
    def progress(done: int, total: int, note: str = "") -> None:
        if done >= rows:
            raise _StopError

    return progress


@pytest.mark.slow
def test_an_interrupted_import_continues_with_its_whole_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "SHARD_ROWS", 16)
    out, whole = tmp_path / "store", tmp_path / "undisturbed"
    options = ProceduralOptions(image_size=32, level="plain", limit=SMALL, workers=1)
    with pytest.raises(_StopError):
        IMPORTER.run(None, out, options, _stop_after(36))
    assert not out.exists()
    kept = tmp_path / "store.partial" / "train" / "00000.arrow"
    stamp = kept.stat().st_mtime_ns

    notes: list[str] = []
    IMPORTER.run(None, out, options, lambda done, total, note="": notes.append(note))
    IMPORTER.run(None, whole, options, silent)

    assert notes[0].startswith("continuing with 2 whole shards; about 0.")
    assert (out / "train" / "00000.arrow").stat().st_mtime_ns == stamp
    assert open_store(out).digest == open_store(whole).digest
    once = _at_once(tmp_path / "once", monkeypatch)
    rows = np.arange(40)[::-1]
    for name in ("train", "val", "test"):
        in_pieces = open_store(out).split(name)
        np.testing.assert_array_equal(in_pieces.images(rows), once.split(name).images(rows))
        np.testing.assert_array_equal(in_pieces.joints_3d, once.split(name).joints_3d)
    assert sorted(file.name for file in out.iterdir()) == [
        *("metadata.json", "prior", "skipped.csv", "test", "train", "val")
    ]
    assert not (tmp_path / "store.partial").exists()


def _at_once(out: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(importing, "SHARD_ROWS", 4096)
    _import(out)
    return open_store(out)


@pytest.mark.slow
def test_left_overs_of_other_options_are_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "SHARD_ROWS", 16)
    out = tmp_path / "store"
    options = ProceduralOptions(image_size=32, level="plain", limit=SMALL, workers=1)
    with pytest.raises(_StopError):
        IMPORTER.run(None, out, options, _stop_after(36))

    notes: list[str] = []
    other = options.model_copy(update={"seed": OTHER_SEED})
    IMPORTER.run(None, out, other, lambda done, total, note="": notes.append(note))

    assert notes[0].startswith("left-overs of a different import removed; about ")
    assert open_store(out).metadata.seed == OTHER_SEED


@pytest.mark.long
@pytest.mark.slow
def test_an_import_killed_in_the_middle_ends_as_if_undisturbed(tmp_path: Path) -> None:
    script = tmp_path / "import_store.py"
    script.write_text(IMPORT_SCRIPT, encoding="utf-8")
    out, whole, told = tmp_path / "store", tmp_path / "undisturbed", tmp_path / "told"
    killed = subprocess.Popen([sys.executable, str(script), str(out), str(told)])
    journal = tmp_path / "store.partial" / "import.json"
    while not told.exists():
        assert killed.poll() is None, "the import has ended"
        time.sleep(0.05)
    children = _children(killed.pid)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not out.exists()
    assert 2 <= len(_whole_shards(journal)) < 16
    assert _all_end(children)

    for store in (out, whole):
        subprocess.run([sys.executable, str(script), str(store)], check=True)

    assert open_store(out).digest == open_store(whole).digest
    for file in (file for file in whole.rglob("*.arrow")):
        assert (out / file.relative_to(whole)).read_bytes() == file.read_bytes()


def _whole_shards(journal: Path) -> dict[str, Any]:
    try:
        shards: dict[str, Any] = json.loads(journal.read_text(encoding="utf-8"))["parts"]
    except (OSError, ValueError):
        return {}
    return shards


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return [int(child) for child in text.split()]


def _all_end(pids: list[int]) -> bool:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}/exe").exists() for pid in pids):
            return True
        time.sleep(0.1)
    return False


def test_two_imports_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with (
        importing._exclusive(tmp_path / "store.partial"),
        pytest.raises(BadInputError, match="another import writes to this folder"),
    ):
        _import(tmp_path / "store")


def test_too_small_a_disk_is_told_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))

    with pytest.raises(BadInputError, match="MB are free; make space, or give --limit"):
        _import(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("shards_before", [0, 2])
def test_a_disk_that_fills_up_leaves_nothing_usable_and_can_be_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards_before: int
) -> None:
    monkeypatch.setattr(importing, "SHARD_ROWS", 16)
    real, calls = shards._HashingFile.write, 0

    def write(self: Any, data: Any) -> int:
        nonlocal calls
        calls += self.size == 0
        if calls > shards_before:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, data)

    with monkeypatch.context() as full:
        full.setattr(shards._HashingFile, "write", write)
        with pytest.raises(BadInputError, match="no space left on the disk") as caught:
            _import(tmp_path / "store")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()
    assert (tmp_path / "store.partial").exists() == (shards_before > 0)

    _import(tmp_path / "store")
    assert len(open_store(tmp_path / "store").split("train")) == 40


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(BadInputError, match=r"file/store.partial: cannot be written"):
        _import(tmp_path / "file" / "store")


@pytest.mark.parametrize("wrong", [{"image_size": 50}, {"views": 5}, {"level": "x"}, {"size": 1}])
def test_options_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ProceduralOptions.model_validate(wrong)
