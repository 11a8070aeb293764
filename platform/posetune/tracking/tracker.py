"""Ships a sweep to MLflow beside its driver.

Importing this imports no MLflow: the tracker's thread does, when the sweep is under way.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import traceback
from collections.abc import Callable

from posetune.home import Home
from posetune.study.database import Database
from posetune.study.forecast import Foresight

__all__ = ["Tracker"]

HEAD_START_S = 10.0
"""For the sweep: MLflow takes seconds to import, in which Ray and the first trials start."""

PERIOD_S = 2.0
SHARE = 0.1
"""The tracker is at work for at most this share of the time: a large sweep is not slowed down."""
LONGEST_PAUSE_S = 30.0
HANGING_S = 1.0
"""How long the end waits where MLflow has been at one pass for too long already."""

_log = logging.getLogger(__name__)


class Tracker:
    """Ships a sweep beside its driver, from a thread that the driver never waits for."""

    def __init__(
        self,
        database: Database,
        name: str,
        home: Home,
        *,
        announce: Callable[[str], None] = lambda page: None,
        foresight: Foresight | None = None,
    ) -> None:
        """Prepare to ship.

        Args:
            database: the study's.
            name: of the sweep.
            home: where things live.
            announce: is told once where a browser shows the sweep.
            foresight: forecasts it.
        """
        self._announce = announce
        self._foresight = foresight
        self._announced = False
        self.error = ""
        """Why the last pass failed, in one line; empty when it did not."""
        self._database = database
        self._name = name
        self._home = home
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._shipped = threading.Event()
        # A daemon: the process can end while MLflow hangs.
        self._begun = math.inf
        """When the pass under way began."""
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)

    def start(self) -> None:
        """Begin shipping, every few seconds."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ship what is left and end; call it when the driver has given its lease back.

        Returns:
            Whether MLflow holds everything. If not, `error` says why, and `ship` can do it later.
        """
        self._stopping.set()
        under_way_s = time.monotonic() - self._begun
        if under_way_s > timeout_s:  # MLflow hangs, or has far more to do than there is time for
            self.error = self.error or f"it has been busy for {under_way_s:.0f} s"
            timeout_s = min(timeout_s, HANGING_S)
        self._shipped.wait(timeout_s)
        self._abandoned.set()
        return self._shipped.is_set()

    def _run(self) -> None:
        pause = PERIOD_S
        self._stopping.wait(HEAD_START_S)
        from posetune.tracking.connection import explain, public_address
        from posetune.tracking.projection import Projection

        projection: Projection | None = None
        while not self._abandoned.is_set():
            is_last = self._stopping.is_set()
            self._begun = started = time.monotonic()
            try:
                projection = projection or Projection(
                    self._database, self._name, self._home, self._foresight
                )
                page = projection.advance().page
                if not self._announced:
                    self._announced = True
                    self._announce(page)
            except Exception as error:  # noqa: BLE001 - whatever it is, the sweep goes on
                _log.debug("tracking failed: %s", public_address(traceback.format_exc()))
                self.error = explain(error)
                projection = None
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                self.error = ""
                pause = max(PERIOD_S, (time.monotonic() - started) / SHARE)
                if is_last:
                    self._shipped.set()
                    return
            self._begun = math.inf
            if is_last:
                self._abandoned.wait(0.5)
            else:
                self._stopping.wait(pause)
