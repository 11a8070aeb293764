"""The cache of stage products below the storage folder.

    stages/<name>/<key>/            a finished product: files/ and product.json with their digest
    stages/<name>/<key>.claim       somebody builds it now; its holder touches it every few seconds
    stages/<name>/<key>.<id>.partial  a product in the making

A product is moved into place whole, so a reader finds all of it or nothing. It is verified when it
is obtained; one that does not match its digest is moved aside and built again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from posetune.api import Progress, Stage, silent
from posetune.digest import digest_folder, digest_json

__all__ = ["Entry", "Product", "StageCache", "stage_key"]

CLAIM_S = 30.0
"""A claim that was not touched for so long belongs to a dead builder."""

POLL_S = 0.2

FRESH_S = 3600.0
"""A younger product may belong to a trial that has not reported yet; pruning spares it."""

MANIFEST = "product.json"
FILES = "files"


@dataclass(frozen=True)
class Product:
    """A verified stage product."""

    folder: Path
    """What `Stage.build` filled."""
    trained: bool
    """Whether the one that asks built it: now, or before it was killed and asked again."""


@dataclass(frozen=True)
class Entry:
    """Something in the cache."""

    name: str
    key: str
    state: Literal["whole", "broken", "partial"]
    folder: Path
    bytes: int
    built: float
    """Seconds since the epoch."""
    reads: Mapping[str, Any]
    seconds: float
    """How long it took to build."""


def _entry(folder: Path) -> Entry:
    key, _, rest = folder.name.partition(".")
    manifest: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    state: Literal["whole", "broken", "partial"] = "whole" if manifest else "broken"
    if rest:
        state = "broken" if rest.endswith("broken") else "partial"
    return Entry(
        name=folder.parent.name,
        key=key,
        state=state,
        folder=folder,
        bytes=sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()),
        built=folder.stat().st_mtime,
        reads=manifest.get("reads", {}),
        seconds=manifest.get("seconds", 0.0),
    )


def stage_key(stage: Stage, store_digest: str) -> str:
    """Return the key under which a stage's product is shared."""
    sources = {name: _source_digest(name) for name in sorted(stage.sources)}
    return digest_json(
        {
            "name": stage.name,
            "reads": dict(stage.reads),
            "seed": stage.seed,
            "store": store_digest,
            "sources": sources,
        }
    )


def _source_digest(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"stage source {module}: no such module")
    if spec.submodule_search_locations:  # a package counts with all of its files
        files = sorted(Path(spec.submodule_search_locations[0]).rglob("*.py"))
    else:
        files = [Path(spec.origin)]
    return digest_json([path.read_text(encoding="utf-8") for path in files])


class StageCache:
    """Obtains products by key, building each once."""

    def __init__(self, storage: Path, builder: str = "") -> None:
        """Use the cache below a storage folder; `builder` names the one that asks."""
        self.root = storage / "stages"
        self.builder = builder

    def path(self, name: str, key: str) -> Path:
        """Return where a finished product lies."""
        return self.root / name / key

    def obtain(self, stage: Stage, key: str, progress: Progress = silent) -> Product:
        """Return the verified product, building it if nobody has; waits while another builds it.

        A builder that dies leaves a claim that expires; the next in line builds then.
        """
        return self.obtain_all([(stage, key)], progress)[stage.name]

    def try_obtain(self, stage: Stage, key: str, progress: Progress = silent) -> Product | None:
        """Return the verified product, building it if nobody has; None while another builds it."""
        target = self.path(stage.name, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.verify(target):
            return Product(target / FILES, trained=self._is_ours(target))
        with _claim(target.with_suffix(".claim")) as ours:
            if ours and not self.verify(target):
                self._build(stage, target, progress)
                return Product(target / FILES, trained=True)
        return None

    def obtain_all(
        self, wanted: Sequence[tuple[Stage, str]], progress: Progress = silent
    ) -> dict[str, Product]:
        """Return several products by stage name.

        While somebody else builds one, the others are obtained first, so that processes which
        need the same stages share the work.
        """
        products: dict[str, Product] = {}
        while len(products) < len(wanted):
            waiting = True
            for stage, key in wanted:
                if stage.name in products:
                    continue
                product = self.try_obtain(stage, key, progress)
                if product is not None:
                    products[stage.name] = product
                    waiting = False
            if waiting and len(products) < len(wanted):
                time.sleep(POLL_S)
        return products

    def verify(self, target: Path) -> bool:
        """Whether a whole product lies there; a broken one is moved aside."""
        if not target.exists():
            return False
        try:
            manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
            intact = bool(manifest["digest"] == digest_folder(target / FILES))
        except (OSError, ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            target.rename(target.with_suffix(f".{uuid.uuid4().hex[:8]}.broken"))
        return intact

    def entries(self) -> list[Entry]:
        """Return everything in the cache: products, broken ones, and what dead builders left."""
        found = [
            _entry(path) for path in self.root.glob("*/*") if path.suffix not in (".claim", ".dead")
        ]
        return sorted(found, key=lambda entry: (entry.name, -entry.built))

    def prune(self, needed: Collection[str]) -> list[Entry]:
        """Delete broken products, dead builders' leavings, and older products of other keys.

        Args:
            needed: keys to keep.
        """
        pruned = []
        for entry in self.entries():
            claim = self.path(entry.name, entry.key).with_suffix(".claim")
            if claim.exists() and not _is_dead(claim):
                continue  # somebody builds it now
            fresh = time.time() - entry.built < FRESH_S
            if entry.state != "whole" or (entry.key not in needed and not fresh):
                shutil.rmtree(entry.folder, ignore_errors=True)
                pruned.append(entry)
        return pruned

    def _is_ours(self, target: Path) -> bool:
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        return bool(self.builder) and manifest.get("builder") == self.builder

    def _build(self, stage: Stage, target: Path, progress: Progress) -> None:
        partial = target.with_suffix(f".{uuid.uuid4().hex[:8]}.partial")
        files = partial / FILES
        files.mkdir(parents=True)
        started = time.monotonic()
        try:
            stage.build(
                files,
                lambda done, total, note="": progress(done, total, f"stage {stage.name} {note}"),
            )
            manifest = {
                "name": stage.name,
                "reads": dict(stage.reads),
                "seed": stage.seed,
                "builder": self.builder,
                "digest": digest_folder(files),
                "seconds": round(time.monotonic() - started, 3),
            }
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _claim(path: Path) -> Iterator[bool]:
    """Hold the claim if it can be had; touch it meanwhile, so that others see we live."""
    if not _take(path):
        yield False
        return
    released = threading.Event()

    def touch() -> None:
        while not released.wait(CLAIM_S / 6):
            try:
                os.utime(path)
            except FileNotFoundError:
                return

    thread = threading.Thread(target=touch, name="stage-claim", daemon=True)
    thread.start()
    try:
        yield True
    finally:
        released.set()
        thread.join()
        path.unlink(missing_ok=True)


def _take(path: Path) -> bool:
    content = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        if _is_dead(path):
            # The first to rename a dead claim away may try for it; the others find it gone.
            try:
                path.rename(path.with_suffix(f".{uuid.uuid4().hex[:8]}.dead"))
            except FileNotFoundError:
                return False
            for left in path.parent.glob(f"{path.stem}.*.dead"):
                left.unlink(missing_ok=True)
        return False
    return True


def _is_dead(path: Path) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
        holder = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        return age > CLAIM_S
    if holder["host"] == socket.gethostname() and not Path(f"/proc/{holder['pid']}").exists():
        return True
    return age > CLAIM_S
