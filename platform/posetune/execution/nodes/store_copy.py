"""Brings a sweep's store to nodes that do not see its folder: they copy it from the driver's node.

Main path: the driver says where the store is, as a `StorePlace`; `store_on_node` gives the address
by which a process of any node reads it. A node that sees the folder, or a store on S3, is left
alone. Any other node copies the files once, through Ray and by the store's digest, into its cache
(`posetune.storage.node`), which all of its processes share.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from posetune.api import BadInputError, Trainable
from posetune.storage import Folder, StorageError, open_storage
from posetune.storage.digest import digest_json
from posetune.storage.fetch_progress import saying_how_far
from posetune.storage.node import bytes_below, cache_folder, fetch_once, make_space
from posetune.storage.store_place import StorePlace

__all__ = ["own_node", "seen_here", "store_on_node"]

PART_BYTES = 8 * 1024**2
"""Bytes of a file that travel at a time."""
PARTS_AHEAD = 4
"""Parts that are read before the first of them was taken; Ray's store of objects is small."""


def own_node() -> str:
    """Return Ray's id of the node that this process is on."""
    node: str = ray.get_runtime_context().get_node_id()
    return node


def seen_here(place: StorePlace) -> StorePlace:
    """Return where a store is, with the node of this process as the one that has it."""
    return replace(place, node=own_node())


def store_on_node(place: StorePlace, trainable: type[Trainable]) -> str:
    """Return the address by which this node reads a store, after copying it if need be.

    Args:
        place: where the store is.
        trainable: tells the digest of a store.

    Raises:
        BadInputError: the store cannot be read on the driver's node, has changed there, or cannot
            be written here.
        StorageError: the driver's node does not answer, or this one has no space now.
    """
    storage = open_storage(place.address)
    if not isinstance(storage, Folder) or _is_seen(storage):
        return place.address
    if not place.node or place.node == own_node():
        return place.address  # whoever reads it says that it is not there
    copy = cache_folder() / "stores" / digest_json([place.digest])
    try:
        fetch_once(copy, partial(_fetch, place, trainable))
    except RayError as error:
        raise _explain(place, error) from error
    except OSError as error:
        kind = StorageError if error.errno == errno.ENOSPC else BadInputError
        raise kind(
            f"store {place.address}: cannot be copied to {cache_folder()} ({error}); make space, "
            "or name another folder of this node in POSETUNE_CACHE"
        ) from error
    return str(copy)


def _explain(place: StorePlace, error: RayError) -> Exception:
    """Return what a fault of the driver's node means for a store."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, OSError):
        return _unreadable(place, error.cause)
    return StorageError(
        f"store {place.address}: this node does not see it, and the driver's node does not give "
        f"it ({str(error).strip().splitlines()[-1]})"
    )


def _unreadable(place: StorePlace, why: object) -> BadInputError:
    return BadInputError(
        f"store {place.address}: cannot be read on the driver's node ({why}); put the data back"
    )


def _is_seen(storage: Folder) -> bool:
    """Whether it is there; an empty folder is where another file system is to be mounted."""
    place = Path(storage.address)
    try:
        return place.is_file() or (place.is_dir() and any(place.iterdir()))
    except OSError:
        return True  # whoever reads it says what is wrong


def _fetch(place: StorePlace, trainable: type[Trainable], folder: Path) -> None:
    """Copy all files from the driver's node, and look whether they are the sweep's store."""
    parts = _parts_from(place)
    try:
        size = ray.get(next(parts))
        make_space(size)
        with saying_how_far(folder, f"{place.address} on the driver's node", size):
            for part in parts:
                name, data = ray.get(part)
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("ab") as out:
                    out.write(data)
    except BaseException:
        ray.cancel(parts)  # or the rest would be read for nobody
        raise
    try:
        digest = trainable.describe_store(folder).digest
    except BadInputError as error:
        raise _unreadable(place, error) from error
    if digest != place.digest:
        raise BadInputError(
            f"store {place.address}: has changed on the driver's node, from digest "
            f"{place.digest[:12]} to {digest[:12]}; put the data back"
        )


def _parts_from(place: StorePlace) -> Any:
    """Let the driver's node read the files; return Ray's generator of what `read_parts` gives."""
    there = NodeAffinitySchedulingStrategy(place.node, soft=False)
    reader: Any = ray.remote(read_parts).options(
        num_cpus=0,
        num_returns="streaming",
        scheduling_strategy=there,
        _generator_backpressure_num_objects=PARTS_AHEAD,
    )
    return reader.remote(place.address)


def read_parts(address: str) -> Iterator[int | tuple[str, bytes]]:
    """Give the size of all files below a folder in bytes, then their names and content, in parts.

    Args:
        address: the folder.

    Raises:
        OSError: it cannot be read, or holds a link to a folder, whose files would be missing.
    """
    root = Path(address)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is no folder")
    found = sorted(root.rglob("*"))
    for path in found:
        if path.is_symlink() and path.is_dir():
            raise OSError(f"{path} is a link to a folder")
    yield bytes_below(root)
    for path in found:
        if not path.is_file():
            continue
        name = path.relative_to(root).as_posix()
        with path.open("rb") as file:
            data = file.read(PART_BYTES)
            yield name, data  # also of an empty file
            while data := file.read(PART_BYTES):
                yield name, data
