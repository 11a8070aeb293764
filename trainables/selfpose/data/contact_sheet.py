"""Shows what is in a store: in words (`describe`) and as one picture (`draw_contact_sheet`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError, StoreSummary
from selfpose.data.metadata import SKIPPED_FILE, SPLITS
from selfpose.data.store import Split, Store, open_store
from selfpose.method.metrics import METRICS, METRICS_2D
from selfpose.method.skeleton import Layout
from selfpose.whole_files import write_whole

__all__ = ["describe", "draw_contact_sheet"]

TILE_PX = 160
"""Side of a tile in pixels."""
COLUMNS = 10
"""Number of tiles in a row."""
ROWS = 2
"""Number of rows of tiles for each split."""
CAPTION_PX = 22
"""Height of the caption below a tile in pixels."""

_MIDDLE = (240, 240, 240)
_COLOURS = {
    "left": (255, 190, 40),
    "right": (60, 150, 255),
    "thumb": (255, 90, 80),
    "index": (255, 200, 40),
    "middle": (90, 220, 90),
    "ring": (70, 200, 235),
    "little": (120, 130, 255),
}
"""Colour (RGB) of the limbs that end at a joint whose name begins with this word."""


def describe(path: Path) -> StoreSummary:
    """Return a description of what is in a store.

    Raises:
        BadInputError: the folder is no store, or is not finished.
    """
    store = open_store(path)
    metadata = store.metadata
    size = sum(shard.size for shards in metadata.shards.values() for shard in shards)
    splits = [store.split(name) for name in SPLITS if name != "prior"]
    has_3d = any(split.has_3d for split in splits)
    empty = [name for name in SPLITS if not len(store.split(name))]
    facts = {
        "format": metadata.format,
        "layout": f"{metadata.layout} ({len(metadata.joints)} joints)",
        "image size": f"{metadata.image_size} px",
        **metadata.facts,
        "encoding": metadata.encoding,
        "seed": str(metadata.seed),
        "motions": str(len(metadata.motions)),
        "subjects": str(len(metadata.subjects)),
        "activities": ", ".join(metadata.activities),
        "units": metadata.units,
        "true 3D poses": "yes" if has_3d else "none: 2D joints only",
        "size": f"{size / 1e6:.1f} MB",
        "licence": metadata.licence,
        "skipped": _describe_skipped(metadata.skipped, path),
    }
    if empty:
        facts["empty splits"] = f"{', '.join(empty)}: all items of theirs were left out"
    rows = {name: len(store.split(name)) for name in metadata.shards}
    quality = {name: text for name, text in facts.items() if name.startswith("check: ")}
    quality["left out"] = _count_skipped(metadata.skipped)
    return StoreSummary(store.digest, rows, facts, unavailable=_unavailable(store), quality=quality)


def _unavailable(store: Store) -> dict[str, str]:
    """Return the metrics that cannot be computed on the store, with the reason."""
    val = store.split("val")
    if not len(val) or val.has_3d:
        return {}
    return {name: "holds no true 3D poses" for name in METRICS if name not in METRICS_2D}


def _describe_skipped(skipped: Mapping[str, int], path: Path) -> str:
    """Return what the import left out, in words, the most frequent reason first."""
    return _count_skipped(skipped, f", named in {path / SKIPPED_FILE}")


def _count_skipped(skipped: Mapping[str, int], where: str = "") -> str:
    """Return the number of items that were left out, by reason, the most frequent first."""
    if not skipped:
        return "nothing"
    reasons = sorted(skipped.items(), key=lambda reason: -reason[1])
    words = "; ".join(f"{count}: {reason}" for reason, count in reasons)
    return f"{sum(skipped.values())} items{where}: {words}"


def draw_contact_sheet(path: Path, out_png: Path) -> None:
    """Write a PNG file with tiles of every split, with limbs and joints drawn over the images.

    Left limbs are orange and right ones blue; each finger has a colour of its own. Poses without an
    image are drawn on black.

    Args:
        path: the store.
        out_png: the file to write; its folder is made if need be.

    Raises:
        BadInputError: the folder is no store, or the file cannot be written.
    """
    store = open_store(path)
    strips = [strip for name in SPLITS for strip in _draw_split(store, name)]
    picture = cv2.cvtColor(np.concatenate(strips), cv2.COLOR_RGB2BGR)
    _, png = cv2.imencode(".png", picture)
    try:
        out_png.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out_png, png.tobytes())
    except OSError as error:
        raise BadInputError(f"{out_png}: cannot be written: {error.strerror}") from None


def _draw_split(store: Store, name: str) -> list[NDArray[np.uint8]]:
    split = store.split(name)
    title = np.full((CAPTION_PX + 8, COLUMNS * TILE_PX, 3), 40, dtype=np.uint8)
    _write(title, f"{name}: {len(split)} rows", size=0.55)
    count = min(len(split), COLUMNS * ROWS)
    chosen = (np.arange(count) * len(split) + len(split) // 2) // max(count, 1)
    tiles = [_draw_tile(store, split, int(row)) for row in chosen]
    blank = np.zeros((TILE_PX + CAPTION_PX, TILE_PX, 3), dtype=np.uint8)
    tiles += [blank] * (-len(tiles) % COLUMNS)
    lines = [tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)]
    return [title, *(np.concatenate(line, axis=1) for line in lines)]


def _draw_tile(store: Store, split: Split, row: int) -> NDArray[np.uint8]:
    tile = np.zeros((TILE_PX + CAPTION_PX, TILE_PX, 3), dtype=np.uint8)
    if split.has_images:
        image = split.images([row])[0]
        tile[:TILE_PX] = cv2.resize(image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_LINEAR)
    if split.name == "prior":
        caption = store.metadata.motions[split.motion[row]]
    else:
        caption = store.metadata.activities[split.activity[row]]
    size = store.metadata.image_size
    # Resizing keeps the edges in place, so that the centre of pixel i goes to (i + 1/2) T/S - 1/2.
    column_row_j2 = (split.joints_2d[row] + 1) * ((size - 1) / 2)
    _draw_skeleton(tile[:TILE_PX], (column_row_j2 + 0.5) * (TILE_PX / size) - 0.5, store.layout)
    _write(tile[TILE_PX:], caption, size=0.38)
    return tile


def _draw_skeleton(tile: NDArray[np.uint8], pixels_j2: NDArray[np.float32], layout: Layout) -> None:
    """Draw limbs and joints, (J, 2) in pixels, into a square picture."""
    # OpenCV takes whole numbers with 4 fractional bits (its argument `shift`), so 1 px is 16.
    pixels = (pixels_j2 * 16).astype(np.int32).tolist()
    for child, parent in layout.limbs:
        colour = _COLOURS.get(layout.joints[child].split("_")[0], _MIDDLE)
        cv2.line(tile, pixels[child], pixels[parent], colour, 1, cv2.LINE_AA, 4)
    for point in pixels:
        cv2.circle(tile, point, 2 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)


def _write(strip: NDArray[np.uint8], text: str, *, size: float) -> None:
    place = (4, strip.shape[0] - 7)
    cv2.putText(strip, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, (230, 230, 230), 1, cv2.LINE_AA)
