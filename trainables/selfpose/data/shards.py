"""Writes and maps the files that hold a store's rows: Arrow IPC, uncompressed, one record batch.

What is mapped is held against what the store's metadata says: which columns, of which type and
width, and how many rows. A column is an array with an entry for each row of the file, or `Blobs`:
byte strings of any length, such as JPEG files. When a file is read, both are views of the mapped
memory.
Shape letters: N rows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from posetune.api import BadInputError
from selfpose.whole_files import writing_whole

__all__ = [
    "SHARD_ROWS",
    "Blobs",
    "Column",
    "Columns",
    "Form",
    "Shard",
    "column_bytes",
    "join_columns",
    "map_shard",
    "write_shard",
]


@dataclass(frozen=True)
class Blobs:
    """Holds a column of byte strings, all in one array."""

    data: NDArray[np.uint8]
    """The bytes of all strings, one string after the other."""
    ends_n: NDArray[np.int32]
    """Byte at which each string begins, and the byte after the last string, (N + 1,)."""

    @classmethod
    def of(cls, strings: Sequence[bytes]) -> Blobs:
        """Put byte strings into a column."""
        ends = np.cumsum([0, *(len(string) for string in strings)])
        return cls(np.frombuffer(b"".join(strings), dtype=np.uint8), ends.astype(np.int32))

    def __len__(self) -> int:
        return len(self.ends_n) - 1

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        return self.data[self.ends_n[row] : self.ends_n[row + 1]]


Column = NDArray[Any] | Blobs
"""Values of one column, one entry per row."""
Columns = Mapping[str, Column]
"""Columns of a file by name; all have the same rows."""


SHARD_ROWS = 4096
"""Number of rows in each file of a split, except the last."""


class Shard(BaseModel):
    """Describes one file of a split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^[a-z]{1,32}/[0-9]{1,9}\.arrow$")
    """Path of the file inside the store: the split and a number."""
    rows: int = Field(ge=1, le=SHARD_ROWS)
    """Number of rows in the file."""
    size: int = Field(ge=1)
    """Size of the file in bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file."""


@dataclass(frozen=True)
class Form:
    """What a column must be."""

    kind: Literal["bytes", "floats", "integers", "files"]
    """`bytes` of one length, `floats` of one number, one `integers` a row, or whole `files`."""
    width: int = 1
    """Number of bytes or floats in a row; 1 where the kind has none."""

    def fits(self, found: pa.DataType) -> bool:
        """Return whether a type of Arrow's is of this form."""
        if self.kind == "floats":
            is_list = pa.types.is_fixed_size_list(found)
            return is_list and found.list_size == self.width and found.value_type == pa.float32()
        wanted = {
            "bytes": pa.binary(self.width),
            "integers": pa.int32(),
            "files": pa.binary(),
        }
        return bool(found == wanted[self.kind])


def write_shard(root: Path, file: str, columns: Columns) -> Shard:
    """Write one file of a split under a temporary name and move it into place.

    Args:
        root: the store's folder.
        file: path of the file inside the store.
        columns: the columns by name; uint8 (N, bytes), float32 (N, numbers), int32 (N,) or `Blobs`.

    Returns:
        The file's description, with its size and digest.
    """
    arrays = {name: _to_arrow(column) for name, column in columns.items()}
    batch = pa.record_batch(list(arrays.values()), names=list(arrays))
    target = root / file
    target.parent.mkdir(parents=True, exist_ok=True)
    with writing_whole(target) as partial, partial.open("wb") as raw:
        hashing = _HashingFile(raw)
        with pa.PythonFile(hashing, mode="w") as sink, pa.ipc.new_file(sink, batch.schema) as out:
            out.write_batch(batch)
        raw.flush()
        os.fsync(raw.fileno())
    return Shard(file=file, rows=len(batch), size=hashing.size, sha256=hashing.sha256.hexdigest())


def map_shard(path: Path, shard: Shard, forms: Mapping[str, Form]) -> Columns:
    """Return the columns of a file as views of its mapped memory.

    Args:
        path: the file.
        shard: the file's description in the metadata.
        forms: what each column must be, by name; the file may lack some.

    Raises:
        BadInputError: the file is damaged, or its columns or rows are not those that the metadata
            say.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        _check_schema(reader.schema, forms)
        if reader.num_record_batches != 1:
            raise ValueError(f"{reader.num_record_batches} parts instead of 1")
        batch = reader.get_batch(0)
        if len(batch) != shard.rows:
            raise ValueError(f"{len(batch)} rows instead of {shard.rows}")
        batch.validate(full=True)  # every buffer is as long, and every string ends, as it must
        empty = [name for name in batch.schema.names if batch.column(name).null_count]
        if empty:
            raise ValueError(f"column {empty[0]} has rows without a value")
        return {name: _from_arrow(batch.column(name)) for name in batch.schema.names}
    except (OSError, ValueError, IndexError) as error:  # Arrow's errors derive from these
        raise BadInputError(f"{path}: damaged ({error}); import the data again") from None


def _check_schema(schema: pa.Schema, forms: Mapping[str, Form]) -> None:
    if len(set(schema.names)) != len(schema.names):
        raise ValueError("two columns of one name")
    for field in schema:
        form = forms.get(field.name)
        if form is None:
            raise ValueError(f"column {field.name[:40]!r}, which no such split has")
        if not form.fits(field.type):
            wide = f" of {form.width}" if form.width > 1 else ""
            raise ValueError(f"column {field.name} is {field.type}, must be {form.kind}{wide}")


def join_columns(parts: Sequence[Columns]) -> Columns:
    """Return columns with the rows of several parts, which must have the same columns, in order."""
    return {name: _join([part[name] for part in parts]) for name in parts[0]}


def column_bytes(columns: Columns) -> int:
    """Return the number of bytes that columns take on disk, without the file's small header."""
    return sum(
        column.data.nbytes + column.ends_n.nbytes if isinstance(column, Blobs) else column.nbytes
        for column in columns.values()
    )


class _HashingFile:
    """Is a file for Arrow to write to; it computes the digest of everything that is written."""

    closed = False

    def __init__(self, raw: Any):
        self._raw = raw
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._raw.write(view)
        self.sha256.update(view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._raw.flush()

    def close(self) -> None:
        """Leave the file open, because its owner must flush it to disk."""


def _to_arrow(column: Column) -> pa.Array:
    if isinstance(column, Blobs):
        buffers = [None, pa.py_buffer(column.ends_n), pa.py_buffer(column.data)]
        return pa.Array.from_buffers(pa.binary(), len(column), buffers)
    column = np.ascontiguousarray(column)
    if column.dtype == np.uint8:
        kind = pa.binary(column.shape[1])
        return pa.FixedSizeBinaryArray.from_buffers(
            kind, len(column), [None, pa.py_buffer(column.reshape(-1))]
        )
    flat = pa.array(column.reshape(-1))
    return flat if column.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, column.shape[1])


def _from_arrow(array: pa.Array) -> Column:
    """Return the view of one column: an array (N, bytes), (N, numbers) or (N,), or `Blobs`."""
    data = array.buffers()[-1]
    if pa.types.is_fixed_size_binary(array.type):
        return np.frombuffer(data, dtype=np.uint8).reshape(len(array), array.type.byte_width)
    if pa.types.is_binary(array.type):
        ends_n = np.frombuffer(array.buffers()[1], dtype=np.int32)[: len(array) + 1]
        return Blobs(np.frombuffer(data, dtype=np.uint8), ends_n)
    if pa.types.is_fixed_size_list(array.type):
        return np.frombuffer(data, dtype=np.float32).reshape(len(array), array.type.list_size)
    return np.frombuffer(data, dtype=np.int32)


def _join(parts: Sequence[Column]) -> Column:
    blobs = [part for part in parts if isinstance(part, Blobs)]
    if blobs:
        starts = np.cumsum([0, *(int(part.ends_n[-1]) for part in blobs)])
        ends = [part.ends_n[1:] + start for part, start in zip(blobs, starts, strict=False)]
        data = np.concatenate([part.data for part in blobs])
        return Blobs(data, np.concatenate([[0], *ends]).astype(np.int32))
    return np.concatenate([part for part in parts if not isinstance(part, Blobs)])
