"""Builds the products of stages, keeps them in storage and finds them by their key.

    stages/<name>/<key>/            a finished product: files/ and product.json with their digest
    stages/<name>/<key>.claim       somebody builds it now; its holder touches it every few seconds
    stages/<name>/<key>.<id>.partial  a product in the making (in a folder; in a bucket, one without
                                      its product.json, which is uploaded last)
    stages/<name>/<key>.failed/     failed.json: why the product cannot be built
    stages/<name>/<key>.work/       how far a product has come (`stages.work`)

A product is looked at and moved to its place when it is finished, so a reader finds all of it or
nothing. It is verified when it is obtained; a product that does not match its digest is set aside
and built again. A stage that fails, or whose product is not finite, is built once: all trials that
need it fail with the same words.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from posetune.api import BadInputError, Progress, Stage, TrialFailedError, silent
from posetune.stages.finite import ProductFaultError, check_product
from posetune.stages.manifest import FILES, MANIFEST, is_intact, write_manifest
from posetune.stages.sources import source_digest
from posetune.stages.work import WORK, KeptWork
from posetune.storage import Storage
from posetune.storage.digest import digest_json

__all__ = ["Entry", "Product", "StageCache", "StageFailedError", "stage_key"]

FAILED = ".failed"
"""What the folder is named with that says why a product cannot be built."""
_REASON = "failed.json"

FRESH_S = 3600.0
"""Age in seconds below which pruning spares a product, and how far one has come: it may belong to a
trial that has not reported yet, so the study does not say that it is needed."""


class StageFailedError(TrialFailedError):
    """A shared stage cannot be built; no trial that needs it can train."""


@dataclass(frozen=True)
class Product:
    """Holds a verified stage product."""

    folder: Path
    """Folder of this node with the files that `Stage.build` wrote."""
    trained: bool
    """Whether the builder that asks for the product built it, now or in an attempt that was killed
    later."""


@dataclass(frozen=True)
class Entry:
    """Describes one product in the cache, or the remains of one."""

    name: str
    """Name of the stage."""
    key: str
    """Key of the product, see `stage_key`."""
    state: Literal["whole", "broken", "partial", "failed"]
    """Whether the product is `whole`, was found `broken`, was left `partial` by its builder, or
    `failed` to be built."""
    place: str
    """Name of the product in storage."""
    bytes: int
    """Size of all files of the product, in bytes."""
    built: float
    """Time at which the product was built, in seconds since the epoch."""
    reads: Mapping[str, Any]
    """Configuration fields that the product depends on, with their values."""
    seconds: float
    """Seconds that it took to build the product."""


def _entry(storage: Storage, name: str, child: str) -> Entry:
    place = f"stages/{name}/{child}"
    key, _, rest = child.partition(".")
    manifest: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        manifest = json.loads(storage.read(f"{place}/{MANIFEST}"))
    state: Literal["whole", "broken", "partial", "failed"] = "whole" if manifest else "broken"
    if rest:
        state = "broken" if rest.endswith("broken") else "partial"
        state = "failed" if child.endswith(FAILED) else state
    size, built = storage.measure(place)
    return Entry(
        name=name,
        key=key,
        state=state,
        place=place,
        bytes=size,
        built=built,
        reads=manifest.get("reads", {}),
        seconds=manifest.get("seconds", 0.0),
    )


def stage_key(stage: Stage, store_digest: str) -> str:
    """Return the key under which a stage's product is shared: equal keys mean equal products.

    Raises:
        ValueError: a module of `stage.sources` does not exist.
    """
    sources = {name: source_digest(name) for name in sorted(stage.sources)}
    return digest_json(
        {
            "name": stage.name,
            "reads": dict(stage.reads),
            "seed": stage.seed,
            "store": store_digest,
            "sources": sources,
        }
    )


class StageCache:
    """Obtains products by their key and builds each one once."""

    def __init__(self, storage: Storage, builder: str = "") -> None:
        """Use the cache in a storage.

        Args:
            storage: where the products are kept.
            builder: name of who asks, e.g. a trial; it is written into the products that it builds,
                see `Product.trained`.
        """
        self.storage = storage
        self.builder = builder

    def place(self, name: str, key: str) -> str:
        """Return the name in storage of a stage's finished product."""
        return f"stages/{name}/{key}"

    def find(self, name: str, key: str) -> Path | None:
        """Return this node's folder with a product's files; None if nobody has built it."""
        folder = self._verified(self.place(name, key))
        return folder and folder / FILES

    def find_equal(self, stage: Stage, keys: Iterable[str]) -> str | None:
        """Return the first key whose product was built from what the stage reads and its seed.

        The code that built it may be another one than today's. None if there is no such product.
        """
        wanted = digest_json({"reads": dict(stage.reads), "seed": stage.seed})
        for key in keys:
            manifest = self._manifest(stage.name, key)
            built_from = {"reads": manifest.get("reads"), "seed": manifest.get("seed")}
            if digest_json(built_from) == wanted and self.find(stage.name, key):
                return key
        return None

    def obtain(self, stage: Stage, key: str, progress: Progress = silent) -> Product:
        """Return the verified product; build it if nobody has, wait while another builds it.

        A builder that dies leaves a claim that expires; another one that waits builds it then.
        """
        return self.obtain_all([(stage, key)], progress)[stage.name]

    def try_obtain(self, stage: Stage, key: str, progress: Progress = silent) -> Product | None:
        """Return the verified product; build it if nobody has. None while another builds it.

        Raises:
            StageFailedError: it cannot be built, as was found now or before.
        """
        place = self.place(stage.name, key)
        if found := self._verified(place):
            return Product(found / FILES, trained=self._is_ours(found))
        with self.storage.claim(f"{place}.claim") as ours:
            if ours and self._verified(place) is None:
                self._raise_failure(stage, place)
                self._build(stage, place, progress)
                if found := self._verified(place):
                    return Product(found / FILES, trained=True)
        return None

    def obtain_all(
        self, wanted: Sequence[tuple[Stage, str]], progress: Progress = silent
    ) -> dict[str, Product]:
        """Return several verified products by the name of their stage.

        While another process builds one of them, the others are obtained first, so that processes
        which need the same stages share the work.
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
                time.sleep(self.storage.poll_s)
        return products

    def _verified(self, place: str) -> Path | None:
        """Return the folder of a whole product; set a broken one aside and return None.

        It may be that only this node's copy is broken, so a fresh copy decides.
        """
        for again in (False, True):
            folder = self.storage.obtain(place, marker=MANIFEST, again=again)
            if folder is None or is_intact(folder):
                return folder
        self.storage.set_aside(place, marker=MANIFEST)
        return None

    def entries(self) -> list[Entry]:
        """Return all products in the cache: whole and broken ones, and what dead builders left."""
        found = [
            _entry(self.storage, name, child)
            for name in self.storage.children("stages")
            for child in self.storage.children(f"stages/{name}")
            if not child.endswith((".claim", ".dead"))
        ]
        return sorted(found, key=lambda entry: (entry.name, -entry.built))

    def prune(self, needed: Collection[str]) -> list[Entry]:
        """Delete broken and unfinished products, and products older than `FRESH_S` of other keys.

        Args:
            needed: keys of the products to keep.

        Returns:
            The products that were deleted.
        """
        pruned = []
        entries = self.entries()
        built = {entry.key for entry in entries if entry.state == "whole"}
        for entry in entries:
            if self.storage.is_claimed(f"{self.place(entry.name, entry.key)}.claim"):
                continue  # somebody builds it now
            fresh = time.time() - entry.built < FRESH_S
            is_work = entry.place.endswith(WORK)  # left over where the product was published
            worn = entry.key in built if is_work else entry.state != "whole"
            if worn or (entry.key not in needed and not fresh):
                self.storage.remove(entry.place)
                pruned.append(entry)
        return pruned

    def _manifest(self, name: str, key: str) -> dict[str, Any]:
        """Return what a product says of itself; nothing if there is no such product."""
        try:
            manifest: dict[str, Any] = json.loads(
                self.storage.read(f"{self.place(name, key)}/{MANIFEST}")
            )
        except (OSError, ValueError):
            return {}
        return manifest

    def _is_ours(self, folder: Path) -> bool:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(self.builder) and manifest.get("builder") == self.builder

    def _build(self, stage: Stage, place: str, progress: Progress) -> None:
        try:
            with self.storage.writing(place, last=MANIFEST) as partial:
                self._write(stage, partial, KeptWork(self.storage, f"{place}{WORK}"), progress)
        except (TrialFailedError, BadInputError, ProductFaultError) as error:
            with self.storage.writing(f"{place}{FAILED}") as failed:
                (failed / _REASON).write_text(json.dumps(str(error)), encoding="utf-8")
            self._raise_failure(stage, place)
        with contextlib.suppress(OSError):  # remains, then: pruning deletes them
            self.storage.remove(f"{place}{WORK}")

    def _write(self, stage: Stage, folder: Path, work: KeptWork, progress: Progress) -> None:
        """Build a product into a folder, look at it, and write what it is beside it."""
        files = folder / FILES
        files.mkdir()
        started = time.monotonic()
        stage.build(
            files,
            lambda done, total, note="": progress(done, total, f"stage {stage.name} {note}"),
            work,
        )
        check_product(files)
        write_manifest(
            folder,
            name=stage.name,
            reads=dict(stage.reads),
            seed=stage.seed,
            builder=self.builder,
            seconds=round(time.monotonic() - started, 3),
        )

    def _raise_failure(self, stage: Stage, place: str) -> None:
        """Raise what a builder of the product found before; nothing if it can be built.

        The key holds all that the product depends on, so it would fail again.
        """
        found = self.storage.read(f"{place}{FAILED}/{_REASON}")
        if found:
            raise StageFailedError(
                f"stage {stage.name} cannot be built: {json.loads(found)}. All trials that need it "
                "fail; it is built again after posetune stages --prune"
            )
