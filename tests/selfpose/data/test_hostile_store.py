"""A store whose files and metadata agree with their digests, and are made to do harm."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from posetune.api import BadInputError
from selfpose.data.store import Split, Store, open_store

Look = Callable[[Split], Any]
LOOKS: dict[str, Look] = {
    "image": lambda split: split.images([0]),
    "mask": lambda split: split.masks([0]),
    "joints_2d": lambda split: split.joints_2d,
    "joints_3d": lambda split: split.joints_3d,
    "activity": lambda split: split.activity,
    "motion": lambda split: split.motion,
    "frame": lambda split: split.frame,
}


@pytest.fixture
def store(plain_store: Store, tmp_path: Path) -> Path:
    """A copy of a good store with raw pictures."""
    return Path(shutil.copytree(plain_store.root, tmp_path / "store"))


@pytest.fixture
def jpeg_store(make_store: Callable[..., Store], tmp_path: Path) -> Path:
    return make_store(tmp_path / "jpeg", encoding="jpeg", limit=4).root


def seal(store: Path, change: Callable[[dict[str, Any]], None] = lambda record: None) -> None:
    """Change the metadata, and write the digest that belongs to them, as their maker can."""
    record = json.loads((store / "metadata.json").read_text())
    change(record)
    del record["digest"]
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    (store / "metadata.json").write_text(json.dumps({"digest": digest, **record}))


def replace_column(store: Path, name: str, column: pa.Array) -> None:
    """Put another column into the validation split, with size and digest of the new file."""
    file = store / "val" / "00000.arrow"
    batch = pa.ipc.open_file(file.read_bytes()).get_batch(0)
    columns = {n: batch.column(n) for n in batch.schema.names} | {name: column}
    with pa.OSFile(str(file), "wb") as sink:
        new = pa.record_batch(list(columns.values()), names=list(columns))
        with pa.ipc.new_file(sink, new.schema) as out:
            out.write_batch(new)
    changed = {
        "size": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    seal(store, lambda record: record["shards"]["val"][0].update(changed))


def test_a_store_that_is_sealed_again_unchanged_is_good(store: Path) -> None:
    rows = len(open_store(store).split("val"))
    seal(store)
    replace_column(store, "frame", pa.array(np.arange(rows, dtype=np.int32)))
    split = open_store(store).split("val")
    for look in LOOKS.values():
        look(split)


ROWS = 40


def floats(width: int, kind: pa.DataType, value: float = 0.0) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array([value] * (ROWS * width), kind), width)


@pytest.mark.parametrize(
    ("name", "column", "said"),
    [
        ("frame", pa.array([0] * ROWS, pa.int64()), "column frame is int64, must be integers"),
        ("motion", pa.array([0.5] * ROWS, pa.float32()), "column motion is float, must be"),
        ("frame", pa.array([-1] * ROWS, pa.int32()), "column frame of split val must be within"),
        ("activity", pa.array([999] * ROWS, pa.int32()), "column activity of split val must be"),
        ("frame", pa.array([None] * ROWS, pa.int32()), "column frame has rows without a value"),
        ("joints_2d", floats(34, pa.float64()), "column joints_2d is .*must be floats of 34"),
        ("joints_2d", floats(36, pa.float32()), "column joints_2d is .*must be floats of 34"),
        ("joints_3d", floats(51, pa.float32(), np.nan), "column joints_3d .*must be finite"),
        ("joints_3d", floats(51, pa.float32(), np.inf), "column joints_3d .*must be finite"),
        ("image", pa.array([b"x" * 12] * ROWS, pa.binary(12)), "image is .*must be bytes of 3072"),
        ("image", pa.array([b"x"] * ROWS, pa.binary()), "column image is binary, must be bytes"),
        ("surprise", pa.array([0] * ROWS, pa.int32()), "column 'surprise', which no such split"),
    ],
)
def test_a_column_that_is_not_as_the_metadata_say_is_refused(
    store: Path, name: str, column: pa.Array, said: str
) -> None:
    replace_column(store, name, column)
    with pytest.raises(BadInputError, match=said) as raised:
        LOOKS.get(name, LOOKS["image"])(open_store(store).split("val"))
    assert "\n" not in str(raised.value)


def test_a_file_of_other_rows_is_refused(store: Path) -> None:
    seal(store, lambda record: record["shards"]["val"][0].update(rows=39))
    with pytest.raises(BadInputError, match="40 rows instead of 39"):
        open_store(store).split("val").images([0])


@pytest.mark.parametrize(
    "file",
    ["../outside.arrow", "/etc/passwd", "val/../../x.arrow", "val/00000.arrow\n", "prior/0.arrow"],
)
def test_a_file_outside_of_its_split_is_refused(store: Path, file: str) -> None:
    seal(store, lambda record: record["shards"]["val"][0].update(file=file))
    with pytest.raises(
        BadInputError, match=r"not the metadata of a store: .*(shards|no file of split val)"
    ):
        open_store(store)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_that_a_link_leads_to_is_refused(store: Path, what: str) -> None:
    linked = store / "val" if what == "folder" else store / "val" / "00000.arrow"
    elsewhere = linked.rename(store.parent / "elsewhere")
    linked.symlink_to(elsewhere)
    with pytest.raises(BadInputError, match="is a symbolic link; a store holds its own files"):
        open_store(store)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 0},
        {"image_size": 10**6},
        {"image_size": -32},
        {"joints": ["one"]},
        {"limbs": [[0, 99]]},
        {"layout": "x" * 5000},
        {"encoding": "bmp"},
        {"licence": "x" * 10**6},
        {"surprise": 1},
        {"shards": {"extra": []}},
    ],
)
def test_metadata_that_no_import_writes_are_refused_in_one_line(
    store: Path, changes: dict[str, Any]
) -> None:
    seal(store, lambda record: record.update(changes))
    with pytest.raises(BadInputError, match=r"metadata\.json") as raised:
        open_store(store)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "[1, 2]", "null", '"text"', "3", "", "\x00"]
)
def test_json_that_is_no_metadata_is_refused_in_one_line(store: Path, text: str) -> None:
    (store / "metadata.json").write_text(text)
    with pytest.raises(BadInputError, match="not the metadata of a store") as raised:
        open_store(store)
    assert "\n" not in str(raised.value)


def test_metadata_that_are_a_pipe_are_not_waited_for(store: Path) -> None:
    (store / "metadata.json").unlink()
    os.mkfifo(store / "metadata.json")
    with pytest.raises(BadInputError, match="it is no file"):
        open_store(store)


def large_png() -> bytes:
    """A PNG file of some bytes that says that it has 60,000 x 60,000 pixels."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(head)) + b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", zlib.crc32(b"IHDR" + head))


def small_jpeg() -> bytes:
    return cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("image", large_png(), "60000x60000 px instead of 32x32"),
        ("image", small_jpeg(), "16x16 px instead of 32x32"),
        ("image", b"no picture", "0x0 px instead of 32x32"),
        ("mask", large_png(), "60000x60000 px instead of 32x32"),
    ],
)
def test_a_picture_is_refused_by_its_header(
    jpeg_store: Path, name: str, file: bytes, said: str
) -> None:
    rows = len(open_store(jpeg_store).split("val"))
    replace_column(jpeg_store, name, pa.array([file] * rows, pa.binary()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadInputError, match=said):
        LOOKS[name](open_store(jpeg_store).split("val"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 100_000  # KB
