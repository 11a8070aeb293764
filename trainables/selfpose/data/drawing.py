"""Draw rows in worker processes: `draw_chunks` gives them back in order.

A worker ends when this process does, however that ends: an interrupted import leaves none behind.
"""

from __future__ import annotations

import collections
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError
from selfpose.data.cameras import CAMERAS, draw_crop
from selfpose.data.rendering import Level, Scene, draw_frame
from selfpose.data.seeding import generator
from selfpose.skeleton import Layout

__all__ = ["CHUNK_ROWS", "Chunk", "draw_chunk", "draw_chunks"]

CHUNK_ROWS = 64
AHEAD = 4
"""Chunks under way per worker: enough that none waits while a shard is written."""

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Chunk:
    """Some rows of one split, and all that it takes to draw them."""

    layout: Layout
    split: str
    level: Level
    seed: int
    image_size: int
    joints_nj3: NDArray[np.float32]
    """(n, J, 3), mm, world."""
    motion_names: tuple[str, ...]
    subject_names: tuple[str, ...]
    columns: Columns
    """The columns that need no drawing, among them `camera` and `frame`."""


def draw_chunks(chunks: Sequence[Chunk], *, workers: int) -> Generator[Columns]:
    """Draw chunks in this process (one worker) or in several; yield their columns in order.

    Raises:
        BadInputError: a worker was killed, most often because memory ran out.
    """
    workers = min(workers, len(chunks))
    if workers <= 1:
        yield from map(draw_chunk, chunks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    under_way: collections.deque[Future[Columns]] = collections.deque()
    try:
        for chunk in chunks:
            under_way.append(pool.submit(draw_chunk, chunk))
            if len(under_way) >= AHEAD * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except BrokenProcessPool:
        raise BadInputError(
            f"one of {workers} drawing processes was killed, most often for lack of memory; "
            "give the same command again with fewer --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def draw_chunk(chunk: Chunk) -> Columns:
    """Draw the rows of one chunk: the columns of the store, in the same order."""
    images = chunk.split != "prior"
    rows = [_draw_row(chunk, i, images=images) for i in range(len(chunk.joints_nj3))]
    if not images:
        joints_2d = np.stack([row[0] for row in rows])
        return {"joints_2d": joints_2d, "motion": chunk.columns["motion"]}
    joints_2d, joints_3d, pictures, masks = (
        np.stack(parts).reshape(len(rows), -1) for parts in zip(*rows, strict=True)
    )
    return {
        "image": pictures,
        "mask": masks,
        "joints_2d": joints_2d,
        "joints_3d": joints_3d,
        **chunk.columns,
    }


def _draw_row(chunk: Chunk, i: int, *, images: bool) -> tuple[NDArray[Any], ...]:
    """Return one row's flat 2D joints; with `images` also 3D joints, picture and mask."""
    number, frame = int(chunk.columns["camera"][i]), int(chunk.columns["frame"][i])
    camera, motion = CAMERAS[number], chunk.motion_names[i]
    joints_j3 = camera.to_camera(chunk.joints_nj3[i])
    pixels_j2 = camera.project(joints_j3)
    crop = draw_crop(pixels_j2, generator(chunk.seed, "crop", chunk.split, motion, frame, number))
    joints_j2 = crop.from_frame(pixels_j2).astype(np.float32)
    if not images:
        return (joints_j2.reshape(-1),)
    scene = Scene(
        level=chunk.level,
        seed=chunk.seed,
        group=chunk.split,
        subject=chunk.subject_names[i],
        motion=motion,
        camera=number,
    )
    picture, mask = draw_frame(
        joints_j3,
        chunk.layout,
        scene=scene,
        crop=crop,
        size=chunk.image_size,
        rng=generator(chunk.seed, "picture", chunk.split, motion, frame, number),
    )
    return joints_j2, joints_j3.astype(np.float32), picture, mask


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the importing process's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
