"""After every event of any history a driver stands where a fold of the database stands."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import pytest
from support.simulated_driver import happened, simulated_start

from posetune.spec.sweep import SweepSpec
from posetune.study import events
from posetune.study.acts.act import (
    Act,
    AddNote,
    BranchTrial,
    EditSweep,
    Enqueue,
    ExtendTrial,
    HoldSweep,
    PinTrial,
    ReleaseSweep,
    RetryTrial,
    SetTag,
    StopTrial,
)
from posetune.study.acts.asking import ask
from posetune.study.acts.deciding import ActRefusedError
from posetune.study.decisions.decider import Decider
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.events import Event
from posetune.study.faults import Fault, FaultKind
from posetune.study.records import CheckpointRecord
from posetune.study.search.rungs import Decision
from posetune.study.search.sampler import search_memory
from posetune.study.state import SweepState
from posetune.study.tables import journal, schema
from posetune.study.tables.database import Database
from posetune.study.tables.event_rows import COLUMNS, decode, encode, kind_of
from posetune.study.tables.lease import LeaseLostError

Clock = Callable[[], float]

LONG = pytest.mark.long
EVENTS, SEEDS = 100, range(6)
"""How long each history is, and which are lived; together they hold every kind of event."""
SPEC: dict[str, Any] = {
    "pruner": {"max_epochs": 9, "audit_share": 0.5},
    "resources": {"gpu": 1, "share": True},
    "budget": {"trials": 30, "gpu_hours": 0.04, "wall_hours": 2},
}


FAULT = Fault(FaultKind.STUCK, "stuck", "", "no progress for 600 s")

Look = Callable[[SweepRun], None]


class WatchedRun(SweepRun):
    """A sweep under way that somebody looks at after each of its events."""

    def __init__(self, database: Database, start: SweepStart, clock: Clock, look: Look) -> None:
        self.look = look
        super().__init__(database, start, clock)

    def _commit(self, event: Event, *, request: str | None = None) -> None:
        super()._commit(event, request=request)
        self.look(self)


class History:
    """A driver that does anything a driver may do, in random order."""

    def __init__(
        self,
        database: Database,
        seed: int,
        name: str = "s",
        look: Look = lambda run: None,
        **changes: Any,
    ) -> None:
        self.database, self.random = database, random.Random(seed)
        self.now = 1000.0
        mode = self.random.choice(["min", "max"])
        objective = {"metric": "loss", "mode": mode}
        start = simulated_start(objective=objective, **{**SPEC, **changes})
        self.start: SweepStart = dataclasses.replace(start, name=name)
        self.at_work: dict[int, int] = {}
        """The attempt of each trial that a worker is at."""
        self.saved, self.look = 0, look
        self.run = WatchedRun(database, self.start, self.clock, look)

    def clock(self) -> float:
        return self.now

    def step(self) -> None:
        """Do one thing; time goes on, and now and then back, as on another node."""
        self.now += self.random.choice([0.0, 0.5, 20.0, 20.0, 20.0, -2.0])
        actions: list[tuple[int, Callable[[], object]]] = [
            (3, self.begin),
            (9, self.report),
            (1, self.hand_over),
            (1, self.die),
            (1, self.fail),
            (2, self.attempt_fails),
            (1, self.excuse),
            (1, self.say),
            (4, self.act),
            (1, self.replace_driver),
        ]
        weights = [weight for weight, _ in actions]
        self.random.choices([action for _, action in actions], weights)[0]()

    def begin(self) -> None:
        trial = self.run.next_trial()
        if trial is not None:
            self.attempt(trial.number)

    def attempt(self, number: int) -> None:
        begun = self.run.begin_attempt(number)
        attempt = self.at_work[number] = begun.number
        if self.random.random() < 0.8:
            self.now += 3.0
            facts = {"node": "here", "setup_s": self.random.uniform(1, 3)}
            if begun.checkpoints and attempt % 2:  # the newer ones are damaged
                facts["checkpoint"] = begun.checkpoints[-1].folder
            self.run.started(number, attempt, facts=facts)
            self.run.stage_used(number, "flow", key="k", trained=number == 0)

    def checkpoint(self, number: int, epoch: int, partial_s: float | None) -> CheckpointRecord:
        self.saved += 1
        attempt = self.at_work[number]
        return CheckpointRecord(attempt, epoch, f"{number}/{self.saved}", "d", 1, partial_s)

    def report(self) -> None:
        if not self.at_work:
            return
        number = self.random.choice(list(self.at_work))
        trial = self.run.trials[number]
        is_again = trial.epoch > 0 and self.random.random() < 0.15
        if number % 4 == 1:  # its node counts energy
            self.run.energy_used(number, self.at_work[number], 500.0)
        epoch = trial.epoch if is_again else trial.epoch + 1
        value = self.random.gauss(0, 1) if self.random.random() < 0.9 else float("nan")
        decision = self.run.report(
            number,
            self.at_work[number],
            epoch=epoch,
            metrics={"loss": value, "other": float("inf")},
            seconds=self.random.uniform(10, 30),
            checkpoint=self.checkpoint(number, epoch, None) if self.random.random() < 0.9 else None,
        )
        if decision == Decision.PAUSE:
            del self.at_work[number]
        elif decision != Decision.CONTINUE:
            if self.random.random() < 0.8:  # or the driver dies before it says so
                self.run.finish(number)
                del self.at_work[number]
            else:
                self.replace_driver()
        elif not self.run.goes_on(number):
            del self.at_work[number]

    def hand_over(self) -> None:
        if self.at_work:
            number = self.random.choice(list(self.at_work))
            saved = self.checkpoint(number, self.run.trials[number].epoch, 2.5)
            reached, is_asked = self.random.randrange(3), self.random.random() < 0.5
            goes_on = self.run.hand_over(
                number, self.at_work[number], checkpoint=saved, reached=reached, is_asked=is_asked
            )
            self.try_again(number, goes_on)

    def die(self) -> None:
        if self.at_work:
            self.attempt(self.random.choice(list(self.at_work)))

    def fail(self) -> None:
        if self.at_work:
            number = self.random.choice(list(self.at_work))
            self.run.fail(number, "diverged")
            del self.at_work[number]

    def attempt_fails(self) -> None:
        if self.at_work:
            number = self.random.choice(list(self.at_work))
            kind, place = self.random.choice(list(FaultKind)), self.random.choice(["a", "b"])
            fault = Fault(kind, "Error", place, "what it says", "trace")
            goes_on = self.run.attempt_failed(number, self.at_work[number], fault)
            self.try_again(number, goes_on)

    def try_again(self, number: int, goes_on: bool) -> None:
        if goes_on:
            self.attempt(number)
        else:
            del self.at_work[number]

    def excuse(self) -> None:
        if self.at_work:
            number = self.random.choice(list(self.at_work))
            back = self.random.choice([0, 1])
            attempt = max(1, self.run.trials[number].attempt - back)
            self.run.excuse(number, attempt, "its node left")

    def act(self) -> None:
        """A person does something; what the sweep does not allow is refused and changes nothing."""
        number = self.random.randrange(max(1, len(self.run.trials)))
        low, epochs = self.random.choice([0.01, 0.1]), self.random.randint(1, 12)
        search = {**self.start.spec.canonical()["search"], "x": {"float": [low, 10], "log": True}}
        edited = SweepSpec.model_validate({**self.start.spec.canonical(), "search": search})
        act = self.random.choice(
            [
                AddNote(text="looks flat", trial=self.random.choice([None, number])),
                SetTag(name="a", value=self.random.choice(["b", None])),
                StopTrial(trial=number),
                PinTrial(trial=number),
                RetryTrial(trial=number),
                ExtendTrial(trial=number, epochs=epochs),
                BranchTrial(trial=number, epochs=epochs, params={"depth": 6}),
                Enqueue(params={"x": self.random.uniform(0.1, 10), "depth": 4}),
                EditSweep(spec=edited.canonical(), source="text"),
                HoldSweep(),
            ]
        )
        if not self.asked(act):
            return
        if isinstance(act, EditSweep):
            self.start = dataclasses.replace(self.start, spec=edited)
        if isinstance(act, HoldSweep):
            self.at_work.clear()
            self.asked(ReleaseSweep())
        ended = [n for n in self.at_work if self.run.trials[n].state is not None]
        for one in ended:
            del self.at_work[one]

    def asked(self, act: Act) -> bool:
        try:
            ask(self.database, self.start.name, act, by="ana@laptop", wait_s=0.0)
        except ActRefusedError:
            return False
        self.run.take_up_requests()
        return True

    def say(self) -> None:
        self.random.choice(
            [
                lambda: self.run.wait_for_room(self.random.choice(["a trial waits for gpu", ""])),
                lambda: self.run.peaked(0, 10**9),
                lambda: self.run.baselines({"mean": 5.0}),
                lambda: self.run.share(0.5, peak_bytes=1, context_bytes=2, total_bytes=3),
            ]
        )()

    def replace_driver(self) -> None:
        """The driver stops or dies, and another one begins; its budget may be larger."""
        if self.random.random() < 0.5:
            self.run.close("stopped")
        else:
            self.run.lease.release()
        self.at_work.clear()
        budget = self.run.spec.budget
        grown = budget.model_copy(update={"gpu_hours": (budget.gpu_hours or 0) * 1.2})
        spec = self.start.spec.model_copy(update={"budget": grown})
        self.start = dataclasses.replace(self.start, spec=spec)
        self.run = WatchedRun(self.database, self.start, self.clock, self.look)


def fold(database: Database, name: str) -> SweepState:
    with database.reading() as connection:
        row = journal.find_sweep(connection, name)
        assert row is not None
        return journal.fold_sweep(connection, row)


def fields_of(state: SweepState) -> dict[str, Any]:
    """Every field of a state, down to values that can be compared."""
    found = dict(vars(state))
    found["rungs"] = vars(state.rungs)
    found["trials"] = [dataclasses.asdict(trial) for trial in state.trials]
    return found


def next_decisions(
    state: SweepState, now: float, *, draw: bool, lived: Decider | None = None
) -> list[Any]:
    """What a driver would decide next: one that has lived, or one that begins here."""
    decider = lived or Decider(state, lambda: now)
    budget, trial = decider.budget, decider.open_trial()
    leader = budget.leader
    found: list[Any] = [
        trial and trial.number,
        decider.may_ask(),
        decider.missing_ends(),
        (budget.spent, budget.ends_at, budget.limit_s, leader and leader.number),
    ]
    for number in sorted(state.ledger.open):
        epoch = state.trials[number].epoch + 1
        report = {"metrics": {"loss": 0.1}, "seconds": 1.0, "checkpoint": None}
        found += [decider.begin_attempt(number), decider.report(number, epoch=epoch, **report)]
        found += [decider.set_aside(number), decider.fail(number, "why")]
        found += [decider.give_up(number), decider.fault(number, FAULT)]
    if draw and state.trials:
        memory = decider.curves or search_memory(state)
        found.append(memory.ask(len(state.trials)))
        found.append(decider.pruner.choose())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*SEEDS[:3], *(pytest.param(s, marks=LONG) for s in SEEDS[3:])])
def test_a_driver_always_stands_where_a_fold_of_the_database_stands(
    database: Database, seed: int
) -> None:
    seen: list[int] = []

    def look(run: SweepRun) -> None:
        live, folded = run.state, fold(database, "s")
        assert fields_of(folded) == fields_of(live)
        now, draw = run._clock(), live.seq % 10 == 0
        assert next_decisions(folded, now, draw=draw) == next_decisions(live, now, draw=draw)
        seen.append(live.seq)

    history = History(database, seed, look=look)
    while history.run.state.seq < EVENTS:
        history.step()
    history.run.lease.release()
    assert seen == list(range(2, len(seen) + 2))  # the first is written with the sweep
    with database.reading() as connection:
        table = schema.event
        order = connection.execute(table.select().order_by(table.c.seq)).mappings().all()
    assert [row["seq"] for row in order] == list(range(1, len(order) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=LONG)])
def test_a_driver_that_models_curves_stands_where_one_that_begins_here_stands(
    database: Database, seed: int
) -> None:
    """Its fits and its model were brought up event by event; the other's are made at once."""
    decisions: list[Any] = []

    def look(run: SweepRun) -> None:
        folded = fold(database, "s")
        assert fields_of(folded) == fields_of(run.state)
        if run.state.seq % 8 == 0:
            now = run._clock()
            lived = next_decisions(run.state, now, draw=True, lived=getattr(run, "_decider", None))
            assert next_decisions(folded, now, draw=True) == lived
            decisions.extend(lived)

    pruner = {"name": "thaw", "max_epochs": 9}
    history = History(
        database,
        seed,
        look=look,
        pruner=pruner,
        sampler={"name": "gp"},
        budget={"trials": 12, "gpu_hours": 0.4},
    )
    while history.run.state.seq < 120:
        history.step()
    history.run.lease.release()
    assert any(isinstance(said, events.Reported) and said.decision == "pause" for said in decisions)


@pytest.mark.slow
def test_the_histories_hold_every_kind_of_event(database: Database) -> None:
    for seed in SEEDS:
        history = History(database, seed, name=f"s{seed}")
        while history.run.state.seq < EVENTS:
            history.step()
        history.run.lease.release()
    lived = happened(database, object)
    assert {type(event) for event in lived} == set(Event.__args__)
    ended = {event.state for event in lived if isinstance(event, events.TrialEnded)}
    assert ended == {"COMPLETE", "PRUNED", "FAILED", "STOPPED"}
    assert any(event.is_crash for event in lived if isinstance(event, events.AttemptBegun))
    assert any(event.is_audited for event in lived if isinstance(event, events.Reported))


@pytest.mark.parametrize("event", [
    events.SweepStarted(1.0, 1, [{"params": {"x": 1}}], ["note"]),
    events.TrialAsked(1.0, 0, {"x": 0.1, "name": "a", "on": True}, 7),
    events.AttemptPlaced(1.0, 3, 2, {"node": "here"}, passed_over=("a", "b")),
    events.AttemptBegun(1.0, 3, 2, 5, follows_death=True, is_crash=True),
    events.AttemptFailed(1.0, 3, 2, FAULT, is_crash=True),
    events.Reported(1.0, 3, 2, 5, None, Decision.CONTINUE, 2.0, is_audited=True),
    events.Reported(
        1.0, 0, 1, 1, 0.0, Decision.PRUNE, 0.0,
        checkpoint=CheckpointRecord(1, 1, "f", "d", 3, 0.5), released=("a", "b"),
    ),
])  # fmt: skip
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    row = encode(event)
    assert row["kind"] == kind_of(type(event))
    assert row.keys() == {"kind", "data", *COLUMNS}
    assert decode(row["kind"], row["at"], row["trial"], row["epoch"], row["data"]) == event


def test_no_two_drivers_write_the_same_place(database: Database) -> None:
    """An older driver that slept and one that took over: what the older one says is refused."""
    first = SweepRun(database, simulated_start())
    database.write(lambda connection: connection.execute(schema.lease.delete()))
    second = SweepRun(database, simulated_start())
    with pytest.raises(LeaseLostError):
        first.next_trial()
    second.next_trial()
    second.lease.release()
    assert [event.trial for event in happened(database, events.TrialAsked)] == [0]


class Forgetful(Database):
    """Commits a transaction and tries it again, as where the answer to the commit is lost."""

    def write(self, change: Callable[[Any], Any]) -> Any:
        super().write(change)
        return super().write(change)


def test_an_event_that_was_committed_before_its_connection_broke_is_there_once(
    database: Database,
) -> None:
    run = SweepRun(database, simulated_start())
    run.database = Forgetful(database.engine)
    for _ in range(2):
        run.next_trial()
    run.begin_attempt(0)
    saved = CheckpointRecord(1, 1, "f", "d", 1)
    report = {"epoch": 1, "metrics": {"loss": 1.0}, "seconds": 1.0, "checkpoint": saved}
    run.report(0, 1, **report)
    assert fields_of(fold(database, "s")) == fields_of(run.state)
    run.lease.release()
