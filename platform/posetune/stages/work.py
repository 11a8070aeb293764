"""Keeps how far a stage has come, so that it goes on after its builder was killed.

    stages/<name>/<key>.work/<part>/<number>/   a state: files/ and product.json with their digest

A state is stored whole under a new number, and then those before it are deleted. It lies under the
product's key, so no other code, configuration or data finds it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from posetune.api import StageWork
from posetune.stages.manifest import FILES, MANIFEST, is_intact, write_manifest
from posetune.storage import Storage

__all__ = ["WORK", "KeptWork"]

WORK = ".work"
"""Ending of the name under which the state of an unfinished product is kept."""
EVERY_S = 30.0
"""Seconds between two saved states: the most work that a killed builder loses."""

_log = logging.getLogger(__name__)


class KeptWork(StageWork):
    """Keeps the states of one product in a storage."""

    def __init__(self, storage: Storage, place: str, *, every_s: float = EVERY_S) -> None:
        """Use a place in a storage.

        Args:
            storage: where the states are kept.
            place: name of the folder of all states of the product, in storage.
            every_s: seconds from one state to the next.
        """
        self._storage, self._place, self._every_s = storage, place, every_s
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Return whether the last state was saved so many seconds ago."""
        return time.monotonic() - self._saved >= self._every_s

    def save(self, part: str, write: Callable[[Path], None]) -> None:
        """Store a part's state; one for which there is no space or no network is left out."""
        place = f"{self._place}/{part}"
        try:
            before = self._storage.children(place)
            number = max((int(name) for name in before if name.isdigit()), default=0) + 1
            with self._storage.writing(f"{place}/{number:08d}", last=MANIFEST) as partial:
                (partial / FILES).mkdir()
                write(partial / FILES)
                write_manifest(partial)
            for name in before:
                self._storage.remove(f"{place}/{name}")
        except OSError as error:
            _log.warning("%s: how far the stage is was not saved: %s", place, error)
        self._saved = time.monotonic()

    def load(self, part: str, read: Callable[[Path], None]) -> bool:
        """Read the newest state of a part that is whole."""
        place = f"{self._place}/{part}"
        for name in reversed(self._storage.children(place)):
            with self._storage.reading(f"{place}/{name}") as folder:
                if folder is not None and is_intact(folder):
                    read(folder / FILES)
                    return True
        return False
