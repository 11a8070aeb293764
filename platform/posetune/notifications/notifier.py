"""Sends the messages of a study from a thread, beside a driver or whatever else is under way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from posetune.api import BadInputError
from posetune.home import Home
from posetune.notifications.delivery import Sender, record_destinations
from posetune.notifications.outbox import WaitingCount
from posetune.spec.notify import Destination
from posetune.study.forecasting.forecast import Forecaster
from posetune.study.tables.database import Database

__all__ = ["Notifier", "sending"]

PERIOD_S = 2.0
"""Pause between two passes beside a driver, in seconds."""
IDLE_PERIOD_S = 20.0
"""Pause between two passes where no driver is, in seconds."""
STOP_S = 8.0
"""Seconds for which the end of a sweep waits for the last pass."""

_log = logging.getLogger(__name__)


class Notifier:
    """Sends messages from a thread that nobody waits for."""

    def __init__(
        self,
        database: Database,
        home: Home,
        *,
        period_s: float | None = None,
    ) -> None:
        """Prepare to send what waits in a study.

        Args:
            database: the study.
            home: whose `posetune.yaml` has destinations for all sweeps.
            period_s: pause between two passes, in seconds.
        """
        self._database, self._home = database, home
        self._period_s = IDLE_PERIOD_S if period_s is None else period_s
        self._sender: Sender | None = None
        self._stopping = threading.Event()
        self._done = threading.Event()
        self.waiting: dict[str, WaitingCount] = {}
        """How many messages waited after the last pass, by destination."""
        self.error = ""
        """Why the last pass failed, in one line; empty where it did not."""
        # The thread is a daemon, so that the process can end while a server hangs.
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    def follow(
        self,
        sweep_id: int,
        destinations: Sequence[Destination],
        forecaster: Forecaster | None = None,
    ) -> None:
        """Tell of a sweep that this process drives, from now on; call it before `start`.

        Args:
            sweep_id: the sweep.
            destinations: those of its file.
            forecaster: forecasts it.
        """
        if record_destinations(self._database, self._home, sweep_id, destinations):
            self._period_s = PERIOD_S
            self._sender = Sender(self._database, self._home, own=sweep_id, forecaster=forecaster)

    def start(self) -> None:
        """Begin to send what waits, again and again."""
        self._thread.start()

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """Send what is left and end; call it after the driver has given its lease back.

        Args:
            timeout_s: seconds to wait for the last pass at most.

        Returns:
            Whether nothing waits any more. If something does, `waiting` and `error` say why, and
            `send_waiting` can send it later.
        """
        self._stopping.set()
        self._done.wait(timeout_s)
        return self._done.is_set() and not self.waiting and not self.error

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.is_set()
            try:
                self._sender = self._sender or Sender(self._database, self._home)
                report = self._sender.advance(is_last=is_last)
            except Exception as error:  # noqa: BLE001 - whatever it is, the sweep goes on
                _log.debug("notifications failed: %s", type(error).__name__)
                known = isinstance(error, BadInputError)
                self.error = str(error) if known else f"the study is away ({type(error).__name__})"
            else:
                self.error = ""
                if report is not None:
                    self.waiting = report.waiting
                elif is_last:  # another process sends; what it leaves, the next one sends
                    self.error = "another process is sending"
            if not is_last:
                self._stopping.wait(self._period_s)
        self._done.set()


@contextmanager
def sending(database: Database, home: Home) -> Iterator[None]:
    """Send what waits in a study during a block, from a thread."""
    notifier = Notifier(database, home)
    notifier.start()
    try:
        yield
    finally:
        notifier.stop()
