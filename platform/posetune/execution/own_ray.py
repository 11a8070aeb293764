"""Watches the Ray that a driver started on this machine, beside the driver's own thread.

Without its GCS, whatever the driver asks of Ray waits inside Ray for a minute, and then Ray ends
the process without a word. So a thread notices the death, and ends a driver that Ray keeps waiting.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["OwnRayWatch", "died"]

LOOK_S = 1.0
"""Seconds between two looks at Ray's processes."""

LEAVE_S = 10.0
"""Seconds that a driver has to end by itself after Ray has died; without a raylet it needs some."""


def died(processes: Sequence[str]) -> str:
    """Return which of Ray's processes have died, as a sentence for people."""
    return f"Ray on this machine has died ({' and '.join(processes)} is gone)"


class OwnRayWatch:
    """Notices that Ray has died; the block of `leaving` has to end soon after that."""

    def __init__(
        self,
        dead: Callable[[], Sequence[str]],
        *,
        on_death: Callable[[str], None],
        last_words: Callable[[], None],
    ) -> None:
        """Watch nothing yet.

        Args:
            dead: returns which of Ray's processes have died.
            on_death: is called with the sentence that says so, from any thread.
            last_words: is called before the process of a driver is ended that does not end itself.
        """
        self._dead, self._on_death, self._last_words = dead, on_death, last_words
        self._closing, self._left = threading.Event(), threading.Event()
        self._is_dead = False

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Hold a block that ends soon once Ray has died; the process is ended otherwise."""
        try:
            yield
        finally:
            self._left.set()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look at Ray during a block, in which Ray is not shut down."""
        threading.Thread(target=self._watch, name="own-ray", daemon=True).start()
        try:
            yield
        finally:
            self._look()
            self._closing.set()

    def _look(self) -> bool:
        processes = self._dead()
        if processes and not self._is_dead:
            self._is_dead = True
            self._on_death(died(processes))
        return self._is_dead

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_S) and not self._look():
            pass
        if self._is_dead and not self._left.wait(LEAVE_S):
            try:
                self._last_words()
            finally:
                os._exit(1)
