"""Turns the journals of a study into messages and delivers them, a pass at a time.

One pass reads what is new in the journal, puts its messages into the outbox, and sends what waits
there, each destination's messages in their order. A destination that is away keeps its messages and
is tried again later; the others do not wait for it. One process of a host sends at a time, and a
sweep with a live driver is left to it.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, select

from posetune.api import BadInputError
from posetune.home import Home
from posetune.notifications import outbox
from posetune.notifications.messages import Message, Narrator
from posetune.notifications.outbox import Cursor, Waiting, WaitingCount
from posetune.notifications.senders import NotSentError, check_secrets, send
from posetune.spec.home_file import read_home_destinations
from posetune.spec.notify import Destination
from posetune.spec.sweep import SweepSpec
from posetune.study.forecasting.forecast import Forecaster
from posetune.study.reading import read_sweep
from posetune.study.tables import journal, schema
from posetune.study.tables.database import Database
from posetune.study.tables.lease import is_live

__all__ = [
    "SendReport",
    "Sender",
    "check_destinations",
    "count_waiting",
    "merged",
    "record_destinations",
    "send_waiting",
]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
"""First and longest pause after which a destination that was away is tried again, in seconds."""
TURN_S = 60.0
"""Seconds for which `send_waiting` waits for another process that is sending."""


@dataclass(frozen=True)
class SendReport:
    """Says what one pass did."""

    sent: int
    """Number of messages that it sent."""
    waiting: dict[str, WaitingCount]
    """How many messages still wait, by destination."""


def merged(
    of_sweep: Sequence[Destination], of_home: Sequence[Destination]
) -> tuple[Destination, ...]:
    """Return the destinations of a sweep: its own, and those of the home with other names."""
    own = {destination.key for destination in of_sweep}
    return (*of_sweep, *(d for d in of_home if d.key not in own))


def record_destinations(
    database: Database, home: Home, sweep_id: int, destinations: Sequence[Destination]
) -> bool:
    """Record who is told of a sweep from now on; call it before the sweep goes on.

    Args:
        database: the study.
        home: whose `posetune.yaml` has destinations for all sweeps.
        sweep_id: the sweep.
        destinations: those of its file.

    Returns:
        Whether there is anything to do: a study in which nobody was ever told anything stays as it
        is.
    """
    of_home = read_home_destinations(home.folder)
    with database.reading() as connection:
        has_tables = outbox.has_tables(connection)
    if not has_tables and not destinations and not of_home:
        return False
    if not has_tables:
        outbox.make_tables(database)
    outbox.set_destinations(database, sweep_id, destinations, of_home)
    return True


def send_waiting(database: Database, home: Home) -> SendReport:
    """Send what waits in a study once, but for what a live driver will send.

    Raises:
        BadInputError: another process of this host has been sending for too long.
    """
    sender = Sender(database, home)
    deadline = time.monotonic() + TURN_S
    while True:
        report = sender.advance()
        if report is not None:
            return report
        if time.monotonic() > deadline:
            raise BadInputError(
                f"{home.folder}: another process has been sending messages for {TURN_S:.0f} s; "
                "wait for it, or end it"
            )
        time.sleep(0.1)


def count_waiting(database: Database, name: str | None = None) -> dict[str, WaitingCount]:
    """Return how many messages wait for each destination, of one sweep or of the whole study.

    Messages of events that nobody has read yet are counted too, as those of a driver that died.
    """
    with database.reading() as connection:
        row = None if name is None else journal.find_sweep(connection, name)
        sweep_id = None if row is None else int(row["id"])
        counts = outbox.count_waiting(connection, sweep_id)
        if not outbox.has_tables(connection):
            return counts
        for cursor in outbox.cursors(connection):
            if sweep_id in (None, cursor.sweep_id):
                _, messages = _Reader(cursor.sweep_id).read(connection, cursor)
                _count(messages, merged(cursor.destinations, cursor.of_home), counts)
    return counts


def _count(
    messages: Sequence[Message],
    destinations: Sequence[Destination],
    counts: dict[str, WaitingCount],
) -> None:
    for message in messages:
        for destination in destinations:
            if destination.wants(message.event):
                before = counts.get(destination.key, WaitingCount(0, "", message.at))
                counts[destination.key] = before.and_one_of(message.at)


class _Reader:
    """Reads the journal of one sweep, and remembers what the messages to come depend on."""

    def __init__(self, sweep_id: int) -> None:
        self._sweep_id = sweep_id
        self.narrator: Narrator | None = None

    def read(self, connection: Connection, cursor: Cursor) -> tuple[int, list[Message]]:
        """Return the number of the last event, and the messages of those behind a cursor.

        Args:
            connection: a consistent view.
            cursor: how far the sweep was read, as this view has it.
        """
        last = outbox.last_seq(connection, self._sweep_id)
        if last <= cursor.seq and self.narrator is None:
            return last, []  # nothing is new, and nobody follows the sweep
        if self.narrator is None:
            self.narrator = _new_narrator(connection, self._sweep_id)
        messages = []
        after = self.narrator.seq
        for event in journal.read_events(connection, self._sweep_id, after=after):
            found = self.narrator.take(event)
            if self.narrator.seq > cursor.seq:
                messages += found
        return last, messages


def _new_narrator(connection: Connection, sweep_id: int) -> Narrator:
    query = select(schema.sweep).where(schema.sweep.c.id == sweep_id)
    row = connection.execute(query).mappings().one()
    return Narrator(row["name"], row["at"], SweepSpec.model_validate(row["spec"]))


class _Patience:
    """Says when a destination that was away is tried again."""

    def __init__(self) -> None:
        self.pause = 0.0
        self.due = 0.0

    def failed(self) -> None:
        """Double the pause."""
        self.pause = min(2 * self.pause or FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self.due = time.monotonic() + self.pause


class Sender:
    """Turns journals into messages and sends them, a pass at a time."""

    def __init__(
        self,
        database: Database,
        home: Home,
        *,
        own: int | None = None,
        forecaster: Forecaster | None = None,
    ) -> None:
        """Prepare to send.

        Args:
            database: the study.
            home: whose `posetune.yaml` has destinations for all sweeps.
            own: id of the sweep that this process drives; None where it drives none.
            forecaster: forecasts that sweep.

        Raises:
            BadInputError: something in `posetune.yaml` is wrong.
        """
        self._database, self._home, self._own = database, home, own
        self._forecaster = forecaster
        self._of_home = read_home_destinations(home.folder)
        self._readers: dict[int, _Reader] = {}
        self._patience: dict[str, _Patience] = {}
        self._told: set[str] = set()
        """The messages that no event says and that are put, so that they are put once."""

    def advance(self, *, is_last: bool = False) -> SendReport | None:
        """Put what is new and send what waits; None if another process is sending.

        Args:
            is_last: try every destination, also one that was away a moment ago.
        """
        with _turn(self._home) as is_ours:
            if not is_ours:
                return None
            with self._database.reading() as connection:
                if not outbox.has_tables(connection):
                    return SendReport(0, {})
                cursors = outbox.cursors(connection)
                driven = _driven(connection)
            mine = [c for c in cursors if c.sweep_id == self._own or c.sweep_id not in driven]
            for cursor in mine:
                self._collect(cursor)
            sent = self._send(mine, driven - {self._own}, is_last=is_last)
            with self._database.reading() as connection:
                return SendReport(sent, outbox.count_waiting(connection))

    def _collect(self, cursor: Cursor) -> None:
        """Put the messages of a sweep's new events into the outbox."""
        # The reader is kept only if all that it read is put, since it reads every event once.
        reader = self._readers.pop(cursor.sweep_id, None) or _Reader(cursor.sweep_id)
        with self._database.reading() as connection:
            last, messages = reader.read(connection, cursor)
        if cursor.sweep_id == self._own and reader.narrator is not None:
            destinations = merged(cursor.destinations, cursor.of_home)
            messages += self._by_the_clock(reader.narrator, destinations)
        is_put = last == cursor.seq and not messages

        def change(connection: Connection) -> bool:
            if not outbox.move_cursor(connection, cursor.sweep_id, seq=cursor.seq, to=last):
                return False
            destinations = merged(cursor.destinations, cursor.of_home)
            outbox.put(connection, cursor.sweep_id, messages, destinations)
            return True

        if is_put or self._database.write(change):
            self._told |= {message.id for message in messages}
            self._readers[cursor.sweep_id] = reader

    def _by_the_clock(
        self, narrator: Narrator, destinations: Sequence[Destination]
    ) -> list[Message]:
        """Return the new messages about this process's sweep that follow from no event."""
        now = time.time()
        found = narrator.overdue(now)
        is_wanted = narrator.has_hours and any(d.wants("budget") for d in destinations)
        if is_wanted and self._forecaster is not None:
            expected = self._forecaster.latest(lambda: read_sweep(self._database, narrator.name))
            found += [] if expected is None else narrator.over_budget(expected, now)
        return [message for message in found if message.id not in self._told]

    def _send(self, mine: Sequence[Cursor], others: set[int], *, is_last: bool) -> int:
        """Send what waits and is not for another process; return how many were sent."""
        # The home's file may have been corrected since the driver read it.
        known: dict[int | None, tuple[Destination, ...]] = {
            c.sweep_id: merged(c.destinations, merged(self._of_home, c.of_home)) for c in mine
        }
        with self._database.reading() as connection:
            rows = outbox.waiting(connection)
        sent, away = 0, set[str]()
        for row in rows:
            if row.sweep_id in others or row.destination in away:
                continue
            destinations = known.get(row.sweep_id, self._of_home)
            destination = next((d for d in destinations if d.key == row.destination), None)
            if destination is None:  # it is another home's, or of a file of before
                continue
            patience = self._patience.setdefault(row.destination, _Patience())
            if not is_last and time.monotonic() < patience.due:
                continue
            if self._send_one(row, destination):
                sent += 1
                self._patience.pop(row.destination, None)
            else:
                patience.failed()
                away.add(row.destination)
        return sent

    def _send_one(self, row: Waiting, destination: Destination) -> bool:
        try:
            send(destination, row.message)
        except NotSentError as error:
            if str(error) != row.error:
                outbox.mark_failed(self._database, row.id, str(error))
            return False
        outbox.mark_sent(self._database, row.id)
        return True


def _driven(connection: Connection) -> set[int]:
    """Return the sweeps that have a live driver."""
    rows = connection.execute(select(schema.lease)).all()
    return {r.sweep_id for r in rows if is_live(connection, r)}


@contextmanager
def _turn(home: Home) -> Iterator[bool]:
    """Say whether this process is the one of its host that sends during a block."""
    home.folder.mkdir(parents=True, exist_ok=True)
    with (home.folder / ".notifications.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def check_destinations(destinations: Sequence[Destination]) -> None:
    """Make sure that the secrets of destinations can be read, before anything is spent.

    Raises:
        BadInputError: says which one cannot.
    """
    for destination in destinations:
        check_secrets(destination)
