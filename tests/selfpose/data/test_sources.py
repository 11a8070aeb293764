"""What the shared path does with what importers hand over, on a small source of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from posetune.api import BadInputError, silent
from selfpose import data
from selfpose.data import importing
from selfpose.data.importing import run_import
from selfpose.data.metadata import SPLITS
from selfpose.data.sources import ImportOptions, Made, Skip, Source
from selfpose.data.store import open_store
from selfpose.method.skeleton import H36M_17

SIZE = 32
ROWS = 100


@dataclass(frozen=True)
class GradientJob:
    """Rows whose pictures are gradients; every tenth row is bad, and all of the split `bad`."""

    split: str
    start: int
    end: int
    bad: str = ""

    def __call__(self) -> Made:
        rows = np.arange(self.start, self.end, dtype=np.int32)
        good = rows[(rows % 10 != 3) & (self.split != self.bad)]
        skipped = [
            Skip(self.split, f"{self.split}/{row}.jpg", "JPEG cut short" if row % 20 == 3 else "x")
            for row in sorted({*rows.tolist()} - {*good.tolist()})
        ]
        joints = np.tile(good[:, None].astype(np.float32) / ROWS, 17 * 2)
        if self.split == "prior":
            return Made({"joints_2d": joints, "motion": good * 0}, tuple(skipped))
        ramp = np.linspace(0, 255, SIZE * SIZE * 3).astype(np.uint8)
        return Made(
            {
                "image": np.minimum(ramp, (good[:, None] * 2).astype(np.uint8)),
                "mask": np.tile((np.arange(SIZE * SIZE) % 7 == 0) * np.uint8(255), (len(good), 1)),
                "joints_2d": joints,
                "joints_3d": np.tile(joints, (1, 2))[:, : 17 * 3],
                **{name: good * 0 for name in ("activity", "subject", "motion", "camera")},
                "frame": good,
            },
            tuple(skipped),
        )


def _source(bad: str = "", **changes: object) -> Source:
    settings = {
        "format": "gradients",
        "layout": H36M_17,
        "licence": "none",
        "digest": "",
        "activities": ("Walking",),
        "subjects": ("s",),
        "motions": ("m",),
        "rows": dict.fromkeys(SPLITS, ROWS),
        "job": lambda split, start, end: GradientJob(split, start, end, bad),
        "facts": {"scale": "real"},
        "skipped": (Skip("train", "s/camera 7", "missing camera"),),
        **changes,
    }
    return Source(**settings)  # type: ignore[arg-type]


def _options(**changes: object) -> ImportOptions:
    return ImportOptions.model_validate({"image_size": SIZE, "workers": 1, **changes})


def test_bad_rows_are_left_out_counted_and_named(tmp_path: Path) -> None:
    out = tmp_path / "store"
    run_import(_source(), out, _options(), silent)
    stored = open_store(out)

    for name in SPLITS:
        assert len(stored.split(name)) == 90
    frames = stored.split("val").frame
    assert not (frames % 10 == 3).any()
    np.testing.assert_allclose(stored.split("val").joints_2d[:, 0, 0], frames / ROWS)
    assert stored.metadata.skipped == {"JPEG cut short": 20, "missing camera": 1, "x": 20}
    account = (out / "skipped.csv").read_text(encoding="utf-8").splitlines()
    assert account[:3] == [
        "split,item,reason",
        "train,s/camera 7,missing camera",
        "train,train/3.jpg,JPEG cut short",
    ]
    assert len(account) == 42
    shown = data.describe(out).facts["skipped"]
    assert shown.startswith("41 items, named in ")
    assert "20: JPEG cut short" in shown


def test_an_interruption_forgets_nothing_that_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "SHARD_ROWS", 64)
    first: list[int] = []

    def stop(done: int, total: int, note: str = "") -> None:
        if done > 150:
            raise KeyboardInterrupt

    def remember(done: int, total: int, note: str = "") -> None:
        first.append(done)

    with pytest.raises(KeyboardInterrupt):
        run_import(_source(), tmp_path / "store", _options(), stop)
    run_import(_source(), tmp_path / "store", _options(), remember)
    run_import(_source(), tmp_path / "whole", _options(), silent)

    assert first[0] == 100  # what was there before counts for no rate
    assert open_store(tmp_path / "store").digest == open_store(tmp_path / "whole").digest
    accounts = [(tmp_path / name / "skipped.csv").read_bytes() for name in ("store", "whole")]
    assert accounts[0] == accounts[1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [({}, "s/camera 7: missing camera"), ({"skipped": ()}, "train/3.jpg: JPEG cut short")],
)
def test_a_strict_import_refuses_the_first_bad_item(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(BadInputError, match=named):
        run_import(_source(**changes), tmp_path / "store", _options(strict=True), silent)
    assert list(tmp_path.iterdir()) == []


def test_what_is_excluded_from_every_copy_is_named_and_does_not_trouble_a_strict_import(
    tmp_path: Path,
) -> None:
    excluded = (Skip("test", "s11/film", "corrupt in the dataset"),)
    source = _source(skipped=(), excluded=excluded, rows=dict.fromkeys(SPLITS, 3))
    run_import(source, tmp_path / "store", _options(strict=True), silent)

    assert open_store(tmp_path / "store").metadata.skipped == {"corrupt in the dataset": 1}


def test_a_split_without_any_good_row_is_empty_and_said_to_be(tmp_path: Path) -> None:
    run_import(_source("val"), tmp_path / "store", _options(), silent)

    summary = data.describe(tmp_path / "store")
    assert summary.rows["val"] == 0
    assert summary.rows["test"] > 0
    assert summary.facts["empty splits"].startswith("val")
    assert summary.facts["true 3D poses"] == "yes"
    data.draw_contact_sheet(tmp_path / "store", tmp_path / "sheet.png")
    with pytest.raises(BadInputError, match=r"leave out --strict"):
        run_import(_source("val"), tmp_path / "other", _options(strict=True), silent)


@pytest.mark.parametrize("bad", ["val", "train"])
def test_a_split_that_lost_its_rows_while_reading_is_empty_too(tmp_path: Path, bad: str) -> None:
    rows = {**dict.fromkeys(SPLITS, ROWS), bad: 0}
    source = _source(rows=rows, skipped=(Skip(bad, "film", "upside down"),))
    run_import(source, tmp_path / "store", _options(), silent)

    assert len(open_store(tmp_path / "store").split(bad)) == 0


def test_an_import_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    source = _source(rows=dict.fromkeys(SPLITS, 0), skipped=(Skip("val", "film", "frozen"),))
    with pytest.raises(BadInputError, match="nothing can be imported; the first is film: frozen"):
        run_import(source, tmp_path / "store", _options(), silent)
    assert list(tmp_path.iterdir()) == []


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    rows = {**dict.fromkeys(SPLITS, ROWS), "test": 0}

    with pytest.raises(BadInputError, match="no row belongs to split test"):
        run_import(_source(rows=rows), tmp_path / "store", _options(), silent)


def test_jpeg_stores_give_nearly_the_same_pictures_and_exactly_the_same_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "SHARD_ROWS", 64)
    for encoding in ("raw", "jpeg"):
        run_import(_source(), tmp_path / encoding, _options(encoding=encoding), silent)
    raw, jpeg = open_store(tmp_path / "raw"), open_store(tmp_path / "jpeg")
    rows = np.array([89, 0, 57, 58])

    for name in ("train", "val", "test"):
        first, second = raw.split(name), jpeg.split(name)
        difference = np.abs(first.images(rows).astype(int) - second.images(rows))
        assert 0 < difference.mean() < 3
        np.testing.assert_array_equal(first.masks(rows), second.masks(rows))
        np.testing.assert_array_equal(first.joints_3d, second.joints_3d)
        np.testing.assert_array_equal(first.frame, second.frame)
    assert data.describe(tmp_path / "jpeg").facts["encoding"] == "jpeg"
    assert data.describe(tmp_path / "jpeg").rows == data.describe(tmp_path / "raw").rows
    sheet = tmp_path / "sheet.png"
    data.draw_contact_sheet(tmp_path / "jpeg", sheet)
    assert sheet.stat().st_size > 1000


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_the_size_that_is_forecast_is_the_size_that_is_written(
    tmp_path: Path, encoding: str
) -> None:
    notes: list[str] = []
    out = tmp_path / "store"
    run_import(
        _source(), out, _options(encoding=encoding), lambda d, t, note="": notes.append(note)
    )

    forecast = float(notes[0].removeprefix("about ").removesuffix(" MB")) * 1e6
    written = sum(file.stat().st_size for file in out.rglob("*.arrow"))
    assert 0.9 * written < forecast < 1.35 * written  # a tenth of the rows are bad


def test_a_damaged_jpeg_store_is_named(tmp_path: Path) -> None:
    run_import(_source(), tmp_path / "store", _options(encoding="jpeg"), silent)
    file = tmp_path / "store" / "val" / "00000.arrow"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"\xff\xd8", b"\x00\x00"))

    with pytest.raises(BadInputError, match=r"val/00000\.arrow: damaged"):
        open_store(tmp_path / "store").split("val").images([5])


def test_a_store_of_another_version_is_refused_in_words(
    tmp_path: Path, edit_metadata: Callable[..., None]
) -> None:
    run_import(_source(), tmp_path / "store", _options(), silent)
    edit_metadata(tmp_path / "store", version=1)

    with pytest.raises(
        BadInputError, match="version 1, and this posetune reads version 2; import the data again"
    ):
        open_store(tmp_path / "store")
