"""Ships a sweep to MLflow in a thread beside the sweep's driver.

This module does not import MLflow; the thread does, when the sweep is under way, because the import
takes seconds.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import traceback
from collections.abc import Callable

from posetune.home import Home
from posetune.study.forecasting.forecast import Forecaster
from posetune.study.tables import journal
from posetune.study.tables.database import Database
from posetune.study.tables.shipped import begin_shipping

__all__ = ["Tracker"]

HEAD_START_S = 10.0
"""Seconds for which the thread waits before it imports MLflow: the import takes processor time that
Ray and the first trials need to start."""

PERIOD_S = 2.0
"""Shortest pause between two passes, in seconds."""
SHARE = 0.1
"""Share of the time that the tracker works at most, so that it does not slow a large sweep down."""
LONGEST_PAUSE_S = 30.0
"""Longest pause after a pass that failed, in seconds."""
HANGING_S = 1.0
"""Seconds for which `Tracker.stop` waits if MLflow has been busy with one pass for too long."""

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
        forecaster: Forecaster | None = None,
    ) -> None:
        """Prepare to ship a sweep.

        Args:
            database: the study.
            name: name of the sweep.
            home: where tracking and storage are.
            announce: function that is called once, with the address at which a browser shows the
                sweep.
            forecaster: forecasts the sweep for its run's tag; None ships no forecast.
        """
        self._announce = announce
        self._forecaster = forecaster
        self._announced = False
        self.error = ""
        """Why the last pass failed, in one line; empty if it did not fail."""
        self._database = database
        self._name = name
        self._home = home
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._shipped = threading.Event()
        self._begun = math.inf
        """Monotonic time at which the pass under way began; infinite between passes."""
        # The thread is a daemon, so that the process can end while MLflow hangs.
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)

    def start(self) -> None:
        """Begin to ship the sweep every few seconds."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ship what is left and end; call it after the driver has given its lease back.

        Args:
            timeout_s: seconds to wait for the last pass at most.

        Returns:
            Whether MLflow holds everything. If not, `error` says why, and `projection.ship` can
            ship the rest later.
        """
        self._stopping.set()
        under_way_s = time.monotonic() - self._begun
        if under_way_s > timeout_s:  # MLflow hangs, or has far more to do than there is time for
            self.error = self.error or f"it has been busy for {under_way_s:.0f} s"
            timeout_s = min(timeout_s, HANGING_S)
        self._shipped.wait(timeout_s)
        self._abandoned.set()
        return self._shipped.is_set()

    def _note_begun(self, tracking: str) -> None:
        with self._database.reading() as connection:
            row = journal.find_sweep(connection, self._name)
        if row is not None:
            begin_shipping(self._database, row["id"], tracking)

    def _run(self) -> None:
        pause = PERIOD_S
        self._stopping.wait(HEAD_START_S)
        from posetune.tracking.projection import Projection
        from posetune.tracking.server.connection import explain, public_address

        projection: Projection | None = None
        is_noted = False
        while not self._abandoned.is_set():
            is_last = self._stopping.is_set()
            self._begun = started = time.monotonic()
            try:
                if not is_noted:
                    self._note_begun(public_address(self._home.tracking))
                    is_noted = True
                projection = projection or Projection(
                    self._database, self._name, self._home, self._forecaster
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
