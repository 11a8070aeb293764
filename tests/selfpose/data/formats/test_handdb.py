"""HandDB in its three layouts, with every trap that is known of them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from posetune.api import BadInputError, silent
from selfpose.data.formats.handdb import IMPORTER, PARTS, HandDBOptions, read_handdb
from selfpose.data.sources import Skip
from selfpose.data.store import Store, open_store
from selfpose.method.skeleton import HAND_21

SIZE = 64
POINTS = [[60.0 + 10 * i, 300.0 - 8 * i, 1] for i in range(21)]
"""21 annotated points inside a picture of 368 pixels."""


@pytest.fixture
def handdb(tmp_path: Path, handdb_maker: SimpleNamespace) -> Path:
    return handdb_maker.write(tmp_path / "handdb")


@pytest.fixture
def import_it(tmp_path: Path) -> Callable[..., Store]:
    def run(root: Path, **changes: Any) -> Store:
        options = HandDBOptions.model_validate({"image_size": SIZE, "workers": 1, **changes})
        IMPORTER.run(root, tmp_path / "store", options, silent)
        return open_store(tmp_path / "store")

    return run


Import = Callable[..., Store]


def _skipped(store: Store) -> dict[str, str]:
    with (store.root / "skipped.csv").open() as text:
        return {row["item"]: row["reason"] for row in csv.DictReader(text)}


def test_the_default_parts_fill_the_splits(handdb: Path, import_it: Import) -> None:
    store = import_it(handdb)

    assert store.layout is HAND_21
    assert {name: len(store.split(name)) for name in store.metadata.shards} == {
        "train": 12,
        "prior": 12,
        "val": 4,
        "test": 3,
    }
    parts = {
        name: {store.metadata.activities[i] for i in store.split(name).activity}
        for name in ("train", "val", "test")
    }
    assert parts == {
        "train": {"synth2", "synth3", "synth4"},
        "val": {"synth1"},
        "test": {"manual_test"},
    }
    assert not store.split("val").has_3d
    assert store.split("train").masks([0]) is None
    assert store.metadata.skipped == {}


def test_crops_are_the_papers_and_joints_stay_on_their_dots(
    handdb: Path, import_it: Import, handdb_maker: SimpleNamespace
) -> None:
    store = import_it(handdb, image_size=256)
    for name in ("train", "test"):
        split = store.split(name)
        extent = np.ptp(split.joints_2d, axis=1).max(axis=1)
        np.testing.assert_allclose(extent, 2 / 2.2, rtol=1e-4)
        middle = (split.joints_2d.min(axis=1) + split.joints_2d.max(axis=1)) / 2
        np.testing.assert_allclose(middle, 0, atol=1e-4)
        pixels = np.rint((split.joints_2d + 1) * 127.5).astype(int)
        for image, places in zip(split.images(np.arange(len(split))), pixels, strict=True):
            found = image[places[:, 1], places[:, 0]].astype(int)
            assert np.abs(found - handdb_maker.colours).mean() < 40


def test_left_hands_become_right_hands(
    handdb: Path, import_it: Import, handdb_maker: SimpleNamespace
) -> None:
    folder = handdb / "hand_labels_synth" / "synth1"
    handdb_maker.add(folder, "0001", seed=11)
    right = import_it(handdb).split("val")
    joints, image = right.joints_2d[0].copy(), right.images([0])[0]
    assert joints[4, 0] < joints[20, 0]

    entry = json.loads((folder / "0001.json").read_text())
    mirrored = np.asarray(entry["hand_pts"])
    mirrored[:, 0] = 367 - mirrored[:, 0]
    entry |= {"hand_pts": mirrored.tolist(), "is_left": 1}
    entry["hand_box_center"][0] = 367 - entry["hand_box_center"][0]
    (folder / "0001.json").write_text(json.dumps(entry))
    picture = cv2.imread(str(folder / "0001.jpg"))
    cv2.imwrite(str(folder / "0001.jpg"), picture[:, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 97])
    store = handdb.parent / "again"
    IMPORTER.run(handdb, store, HandDBOptions(image_size=SIZE, workers=1), silent)
    left = open_store(store).split("val")

    np.testing.assert_allclose(left.joints_2d[0], joints, atol=1e-4)
    assert np.abs(left.images([0])[0].astype(int) - image).mean() < 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hand_pts": POINTS[:20]}, "the annotation does not have 21 points"),
        ({"hand_pts": []}, "the annotation does not have 21 points"),
        ({"hand_pts": None}, "the annotation does not have 21 points"),
        ({"hand_pts": [["a", "b", 1]] * 21}, "the annotation does not have 21 points"),
        ({"hand_pts": [[1.0, 2.0]] * 21}, "the annotation does not have 21 points"),
        (
            {"hand_pts": [*POINTS[:20], [0, 0, 0]]},
            "not all 21 points are annotated",
        ),
        (
            {"hand_pts": [*POINTS[:20], [float("nan"), 1, 1]]},
            "joints are not numbers",
        ),
        (
            {"hand_pts": [[x + 200, y, flag] for x, y, flag in POINTS]},
            "joints outside the picture",
        ),
        ({"hand_pts": [[5.0, 5.0, 1]] * 21}, "all joints are at one place"),
        ({"hand_box_center": ["x"]}, "hand_box_center is not a point"),
        ({"hand_box_center": [5.0, 5.0]}, "hand_box_center is far from the joints"),
    ],
)
def test_a_bad_entry_is_left_out_named_and_counted(
    handdb: Path, import_it: Import, change: dict[str, Any], reason: str
) -> None:
    file = handdb / "hand_labels_synth" / "synth1" / "0003.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    store = import_it(handdb)

    assert len(store.split("val")) == 3
    assert _skipped(store) == {"hand_labels_synth/synth1/0003.jpg": reason}
    assert store.metadata.skipped == {reason: 1}


def test_bad_files_are_left_out_named_and_counted(handdb: Path, import_it: Import) -> None:
    folder = handdb / "hand_labels_synth" / "synth2"
    whole = (folder / "0001.jpg").read_bytes()
    (folder / "0001.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "0002.jpg").unlink()
    (folder / "0003.json").write_text('{"hand_pts": [[1, 2')
    (folder / "0004.json").unlink()
    (folder / ".DS_Store").write_text("x")
    store = import_it(handdb)

    assert len(store.split("train")) == 8
    assert _skipped(store) == {
        "hand_labels_synth/synth2/0001.jpg": "JPEG cut short",
        "hand_labels_synth/synth2/0002.jpg": "no such picture",
        "hand_labels_synth/synth2/0003.jpg": "no annotation can be read",
        "hand_labels_synth/synth2/0004.jpg": "no annotation can be read",
    }
    options = HandDBOptions(image_size=SIZE, workers=1, strict=True)
    with pytest.raises(BadInputError, match="leave out --strict"):
        IMPORTER.run(handdb, handdb.parent / "strict", options, silent)


def test_pipes_among_the_files_are_not_waited_for(handdb: Path, import_it: Import) -> None:
    folder = handdb / "hand_labels_synth" / "synth2"
    for name in ("0001.jpg", "0003.json"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    store = import_it(handdb)
    assert _skipped(store) == {
        "hand_labels_synth/synth2/0001.jpg": "it is no file",
        "hand_labels_synth/synth2/0003.jpg": "no annotation can be read",
    }


def test_the_prior_needs_no_pictures_but_its_joints_are_checked(
    handdb: Path, import_it: Import
) -> None:
    file = handdb / "hand143_panopticdb" / "hands_v143_14817.json"
    entries = json.loads(file.read_text())["root"]
    entries[3]["joint_self"] = entries[3]["joint_self"][:5]
    entries[5]["joint_self"][0][0] = 2500.0
    file.write_text(json.dumps({"root": entries}))
    store = import_it(handdb)

    assert len(store.split("prior")) == 10
    assert _skipped(store) == {
        "hand143_panopticdb/imgs/00000003.jpg": "the annotation does not have 21 points",
        "hand143_panopticdb/imgs/00000005.jpg": "joints outside the picture",
    }


def test_an_entry_without_a_box_centre_is_cut_around_its_joints(
    handdb: Path, import_it: Import
) -> None:
    file = handdb / "hand_labels_synth" / "synth1" / "0002.json"
    entry = json.loads(file.read_text())
    del entry["hand_box_center"]
    file.write_text(json.dumps(entry))
    joints = import_it(handdb).split("val").joints_2d[1]

    np.testing.assert_allclose((joints.min(0) + joints.max(0)) / 2, 0, atol=1e-4)


def test_frames_of_a_film_and_hands_of_a_picture_belong_together(
    handdb: Path, import_it: Import
) -> None:
    store = import_it(handdb)
    names = [store.metadata.motions[i] for i in store.split("test").motion]

    assert names == [
        "hand_labels/manual_test/000015774",
        "hand_labels/manual_test/ex2_2.flv",
        "hand_labels/manual_test/ex2_2.flv",
    ]
    assert len(set(store.split("val").motion)) == 4


def test_parts_can_be_chosen_but_not_used_twice(handdb: Path, import_it: Import) -> None:
    store = import_it(handdb, train="manual_train, synth2", prior="synth3", limit=3)

    assert len(store.split("train")) == 3
    assert store.metadata.facts["train from"] == "manual_train, synth2"
    with pytest.raises(ValueError, match="synth1 is given twice"):
        HandDBOptions.model_validate({"train": "synth1"})
    with pytest.raises(ValueError, match="'synth9' is no part of HandDB; known are manual_train, "):
        HandDBOptions.model_validate({"train": "synth9"})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: root / "nowhere", "no such folder"),
        (lambda root: root / "hand_labels", "hand_labels_synth/synth2: no such folder"),
        (
            lambda root: _all_empty(root),
            "the first is hand_labels_synth/synth2: holds no NAME.json",
        ),
    ],
)
def test_what_is_bad_as_a_whole_is_one_clear_line(
    handdb: Path, import_it: Import, spoil: Callable[[Path], Path], words: str
) -> None:
    with pytest.raises(BadInputError) as caught:
        import_it(spoil(handdb))

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "item", "reason"),
    [
        (
            lambda root: _empty(root, "hand_labels_synth/synth2"),
            ("train", "hand_labels_synth/synth2"),
            "holds no NAME.json beside NAME.jpg",
        ),
        (
            lambda root: _empty(root, "hand143_panopticdb"),
            ("prior", "hand143_panopticdb"),
            "holds no hands_v143_14817.json",
        ),
        (
            lambda root: _cut(root),
            ("prior", "hand143_panopticdb"),
            "no list of hands can be read from hands_v143_14817.json (JSONDecodeError)",
        ),
    ],
)
def test_a_part_without_annotations_is_left_out_by_name(
    handdb: Path,
    import_it: Import,
    spoil: Callable[[Path], Path],
    item: tuple[str, str],
    reason: str,
) -> None:
    source = read_handdb(spoil(handdb), HandDBOptions())

    assert source.skipped == (Skip(*item, reason),)
    assert source.rows["val"] == 4
    with pytest.raises(BadInputError, match="leave out --strict"):
        import_it(handdb, strict=True)


def test_a_listed_hand_without_a_picture_is_left_out_by_its_number(handdb: Path) -> None:
    file = handdb / "hand143_panopticdb" / "hands_v143_14817.json"
    entries = json.loads(file.read_text())["root"]
    del entries[3]["img_paths"]
    entries[5] = None
    file.write_text(json.dumps({"root": entries}))
    source = read_handdb(handdb, HandDBOptions())

    reason = "no annotation can be read"
    assert source.skipped == (
        Skip("prior", "hand143_panopticdb entry 3", reason),
        Skip("prior", "hand143_panopticdb entry 5", reason),
    )
    assert source.rows["prior"] == 10


def _all_empty(root: Path) -> Path:
    for part in PARTS.values():
        if (root / part).is_dir():
            _empty(root, part)
    return root


def _empty(root: Path, folder: str) -> Path:
    for file in (root / folder).iterdir():
        if file.is_file():
            file.unlink()
    return root


def _cut(root: Path) -> Path:
    file = root / "hand143_panopticdb" / "hands_v143_14817.json"
    file.write_bytes(file.read_bytes()[:-40])
    return root
