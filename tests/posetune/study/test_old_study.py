"""A study of the tables before, made by commit bd32879, is read, upgraded and continued.

`before/study_v2.db` has eight sweeps. `before/study_v2.json` holds what that code said of them
(`says`), what its next driver held in memory (`continues`), how it ended those that were half done
(`ends`), and what it told people of them (`history`).
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, select, text
from support.recording import Recording, World, record
from support.simulated_driver import drive, open_unsynced

from posetune.api import BadInputError
from posetune.spec.sweep import SweepSpec
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.events import SEMANTICS, DriverOpened, Reported, SweepStarted
from posetune.study.history import read_history
from posetune.study.old import old_events, old_tables
from posetune.study.old.upgrade import needs_upgrade, upgrade
from posetune.study.reading import list_sweeps, read_sweep
from posetune.study.tables import journal, schema
from posetune.study.tables.database import Database, open_database
from posetune.study.view import SweepView

BEFORE = Path(__file__).parent / "before"
RECORDED = json.loads((BEFORE / "study_v2.json").read_text(encoding="utf-8"))
NAMES = sorted(RECORDED["says"])
HALF_DONE = sorted(RECORDED["ends"])


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    return Path(shutil.copy(BEFORE / "study_v2.db", tmp_path / "study.db"))


@pytest.fixture
def old(old_file: Path) -> Database:
    return open_unsynced(old_file)


@pytest.fixture
def old_postgres(old: Database, postgres_database: str) -> Database:
    """The same study on PostgreSQL, copied row by row."""
    engine = create_engine(postgres_database)
    shared = [schema.about, schema.sweep, schema.opening, schema.lease]
    kept = {table.name for table in shared}
    gone = [t for t in old_tables.metadata.sorted_tables if t.name not in kept]
    with old.engine.connect() as source, engine.begin() as target:
        schema.metadata.create_all(target, tables=shared)
        old_tables.metadata.create_all(target, tables=gone)
        for table in [*shared, *gone]:
            rows = [dict(row) for row in source.execute(select(table)).mappings()]
            if rows:
                target.execute(table.insert(), rows)
    engine.dispose()
    return open_database(postgres_database)


def start_of(database: Database, name: str) -> SweepStart:
    """What the sweep was started with."""
    with database.reading() as connection:
        row = journal.find_sweep(connection, name)
    assert row is not None
    return SweepStart(
        name=name,
        spec=SweepSpec.model_validate(row["spec"]),
        source=row["source"],
        store=row["store"],
        store_digest=row["store_digest"],
        provenance=row["provenance"],
        defaults=RECORDED["defaults"][name],
    )


LATER = (
    *("standing", "stages", "chosen", "improvements", "last_epoch", "parent"),
    *("chosen_by", "stopped_by", "is_pinned", "remarks", "tags", "energy_j"),
)
"""What was said of no trial then."""


def as_said(view: SweepView) -> dict[str, Any]:
    """What is read of a sweep, as the code before would have said it."""
    trials = []
    for trial in view.trials:
        said = dataclasses.asdict(trial)
        for later in LATER:
            del said[later]
        kept = said.pop("checkpoints")
        said["checkpoint"] = kept[-1] if kept else None
        said["told"] = said.pop("ended")
        trials.append(said)
    return {
        "state": view.state,
        "stopped": view.stopped,
        "waits_for": view.waits_for,
        "baselines": view.baselines,
        "stages": {name: [use.trained, use.reused] for name, use in view.stages.items()},
        "gpu": view.spec.resources.gpu,
        "audited": {str(number): epoch for number, epoch in view.audited.items()},
        "best_metrics": view.best_metrics,
        "ranked": [trial.number for trial in view.ranked],
        "reports": [list(report) for report in view.reports],
        "trials": trials,
    }


def expected(name: str) -> dict[str, Any]:
    """What the code before said, but for two things that it said wrongly.

    Of trials that keep no checkpoint it named one all the same; and it said why an older driver had
    stopped where the newest one had died.
    """
    said: dict[str, Any] = json.loads(json.dumps(RECORDED["says"][name]))
    if name == "events":
        said["stopped"] = "the driver died"
    for trial in said["trials"]:
        if trial["state"] in ("PRUNED", "FAILED"):
            trial["checkpoint"] = None
        trial["held_s"] = pytest.approx(trial["held_s"])
    return said


@pytest.mark.parametrize("name", [name for name in NAMES if name != "behind"])
def test_it_is_read_as_the_code_before_read_it(old: Database, name: str) -> None:
    assert as_said(read_sweep(old, name)) == expected(name)
    assert needs_upgrade(old), "reading never upgrades"


def test_what_follows_from_something_comes_after_it_whatever_the_clocks_said(
    old: Database,
) -> None:
    """The second driver's clock was behind, so times alone would put it into the first's life."""
    with old.reading() as connection:
        events = list(journal.read_events(connection, read_sweep(old, "behind").id))
    assert [type(event) for event in events[:2]] == [SweepStarted, DriverOpened]
    for trial in (0, 1):
        mine = [event for event in events if getattr(event, "trial", None) == trial]
        said = [(type(e).__name__, getattr(e, "attempt", 0)) for e in mine]
        for attempt in (1, 2):
            begun = said.index(("AttemptBegun", attempt))
            assert (
                begun < said.index(("AttemptPlaced", attempt)) < said.index(("Reported", attempt))
            )
        assert [e.epoch for e in mine if isinstance(e, Reported)] == [1, 2, 3, 4]
        assert [e.checkpoint is not None for e in mine if isinstance(e, Reported)] == [True] * 4
    arrived = [[r[0], r[1], r[2]] for r in read_sweep(old, "behind").reports]
    assert arrived == [report[:3] for report in RECORDED["says"]["behind"]["reports"]]
    assert [trial.attempts for trial in read_sweep(old, "behind").trials] == [2, 2]


@pytest.mark.parametrize("name", sorted(RECORDED["history"]))
def test_people_are_told_the_same_of_it(old: Database, name: str) -> None:
    found = [[h.trial, h.text] for h in read_history(old, read_sweep(old, name).id)]
    texts = Counter(text for _, text in found)
    assert Counter(text for _, text in RECORDED["history"][name]) <= texts
    new = texts - Counter(text for _, text in RECORDED["history"][name])
    assert all("was trained again" in text for text in new)
    for trial in {trial for trial, _ in found} - {None}:
        mine = [text for number, text in found if number == trial]
        assert mine[0].startswith("asked")
        assert not any(" ended" in text for text in mine[:-1])


@pytest.mark.parametrize("name", sorted(RECORDED["continues"]))
def test_the_next_driver_stands_where_that_of_the_code_before_stood(
    old: Database, name: str
) -> None:
    now = {"capped": RECORDED["now_capped"] + 1.0, "events": 1190.0}.get(name, 1e10)
    run = SweepRun(old, start_of(old, name), clock=lambda: now)
    held = RECORDED["continues"][name]
    assert run.state.waiting == held["waiting"]
    assert (run.left, run.may_start) == (held["left"], held["may_start"])
    assert run.state.ledger.held_s == pytest.approx(held["held_s"])
    leader = run.budget.leader
    assert (leader and leader.number) == held["leader"]
    rungs = {str(epoch): list(found) for epoch, found in run.state.rungs.records.items()}
    assert rungs == {epoch: sorted(found) for epoch, found in held["rungs"].items()}
    for trial, then in zip(run.trials, held["trials"], strict=True):
        names = ("attempt", "crashes", "set_aside", "epoch", "value", "state", "placement")
        assert {n: getattr(trial, n) for n in names} == {n: then[n] for n in names}
        assert trial.seconds == pytest.approx(then["seconds"])
        assert [dataclasses.asdict(c) for c in trial.checkpoints] == then["checkpoints"]
        assert {str(e): trial.decided(e) for e in trial.values} == then["decisions"]
    run.lease.release()


def as_ended(view: SweepView) -> dict[str, Any]:
    trials = [
        [t.number, t.params, t.seed, t.state, t.epochs, t.value, t.reason] for t in view.trials
    ]
    reports = [[r.trial, r.epoch, r.value, r.decision] for r in view.reports]
    ranked = [trial.number for trial in view.ranked]
    return {"state": view.state, "trials": trials, "reports": reports, "ranked": ranked}


def nearly(recorded: Any) -> Any:
    """What was recorded, to the last digits: numpy's logarithm hangs on the processor's kind."""
    match recorded:
        case float():
            return pytest.approx(recorded, rel=1e-12, abs=0)
        case dict():
            return {key: nearly(value) for key, value in recorded.items()}
        case list():
            return [nearly(value) for value in recorded]
    return recorded


@pytest.mark.parametrize("name", HALF_DONE)
def test_a_half_done_sweep_ends_trial_for_trial_as_the_code_before_ends_it(
    old: Database, name: str
) -> None:
    if name == "capped":
        world = World(**RECORDED["world_capped"])
        recording = Recording(now=RECORDED["now_capped"])
        slots = RECORDED["slots_capped"]
        record(old, start_of(old, name), world, slots=slots, recording=recording)
    else:
        drive(old, start_of(old, name))
    assert as_ended(read_sweep(old, name)) == nearly(RECORDED["ends"][name])
    with old.reading() as connection:
        first = next(iter(journal.read_events(connection, read_sweep(old, name).id)))
    assert isinstance(first, SweepStarted)
    assert first.semantics == old_events.SEMANTICS


def everything(database: Database) -> list[Any]:
    """All that is read of a study."""
    with database.reading() as connection:
        metrics = [
            journal.read_metrics(connection, view.id, number=trial.number)
            for view in list_sweeps(database)
            for trial in view.trials
        ]
    bare = [[dataclasses.replace(r, checkpoint=None, released=()) for r in m] for m in metrics]
    audits = [[dataclasses.replace(r, is_audited=False) for r in m] for m in bare]
    return [[as_said(view) for view in list_sweeps(database)], audits]


@pytest.mark.slow
def test_the_first_driver_upgrades_a_sqlite_study_after_a_copy_of_it(
    old: Database, old_file: Path
) -> None:
    before = everything(old)
    with old.engine.begin() as connection:
        connection.execute(text("INSERT INTO tracked_run VALUES (1, 1, NULL, 'there', 'a', 1.0)"))
        connection.execute(text("INSERT INTO tracked_run VALUES (2, 1, 1, 'there', 'b', 1.0)"))
    SweepRun(old, start_of(old, "half")).lease.release()
    assert not needs_upgrade(old)
    assert inspect(old.engine).get_table_names() == sorted(schema.metadata.tables)
    with old.reading() as connection:
        assert journal.read_tracked(connection, 1, "there") == {None: "a", 0: "b"}
    copy = old_file.with_name("study.db.v2")
    with sqlite3.connect(copy) as connected:
        assert connected.execute("SELECT version FROM posetune").fetchone() == (2,)
        assert connected.execute("SELECT count(*) FROM tracked_run").fetchone() == (2,)
    assert upgrade(old) is None, "a second call changes nothing"
    copied = open_database(f"sqlite:///{copy}")
    assert everything(copied)[1] == before[1]
    driven = [view for view in everything(old)[0] if view["trials"]]
    assert [v["reports"] for v in driven] == [v["reports"] for v in before[0]]


def test_an_upgrade_leaves_all_that_is_read_as_it_was(old: Database) -> None:
    before = everything(old)
    upgrade(old)
    assert everything(old) == before


@pytest.mark.slow
def test_a_shared_study_is_upgraded_by_a_command_only(old_postgres: Database) -> None:
    before = everything(old_postgres)
    with pytest.raises(BadInputError, match="posetune upgrade brings it"):
        SweepRun(old_postgres, start_of(old_postgres, "half"))
    result = subprocess.run(
        [sys.executable, "-m", "posetune.cli", "upgrade"],
        env={"POSETUNE_DATABASE": old_postgres.engine.url.render_as_string(hide_password=False)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert everything(old_postgres) == before
    drive(old_postgres, start_of(old_postgres, "half"))
    assert as_ended(read_sweep(old_postgres, "half")) == nearly(RECORDED["ends"]["half"])


def test_a_study_with_a_live_driver_is_not_upgraded(old: Database, old_file: Path) -> None:
    with old.engine.begin() as connection:
        row = {"sweep_id": 1, "holder": "x", "host": "elsewhere", "pid": 1, "pid_started": "1"}
        connection.execute(schema.lease.insert().values(**row, expires=1e12))
    with pytest.raises(BadInputError, match="sweep done: is being driven by process 1"):
        SweepRun(old, start_of(old, "half"))
    assert needs_upgrade(old)
    assert not old_file.with_name("study.db.v2").exists()


def test_a_run_is_recorded_in_a_study_that_is_not_upgraded(old: Database) -> None:
    def note(connection: Any) -> None:
        for number, run_id in ((None, "a"), (3, "b"), (3, "c")):
            journal.record_tracked(connection, 1, number=number, tracking="t", run_id=run_id)

    old.write(note)
    with old.reading() as connection:
        assert journal.read_tracked(connection, 1, "t") == {None: "a", 3: "c"}
    assert needs_upgrade(old)


@pytest.mark.parametrize("version", [1, schema.VERSION + 1])
def test_a_study_of_another_version_is_refused_by_name(old_file: Path, version: int) -> None:
    with sqlite3.connect(old_file) as connected:
        connected.execute("UPDATE posetune SET version = ?", (version,))
    with pytest.raises(BadInputError, match=f"study.db: has tables of version {version}"):
        open_database(f"sqlite:///{old_file}")


def test_a_sweep_that_a_newer_posetune_began_is_refused_by_name(old: Database) -> None:
    upgrade(old)
    with old.engine.begin() as connection:
        data = {"semantics": SEMANTICS + 1}
        table = schema.event
        first = table.update().where(table.c.sweep_id == 2, table.c.seq == 1)
        connection.execute(first.values(data=data))
    with pytest.raises(BadInputError, match="sweep half: was begun by a newer posetune"):
        SweepRun(old, start_of(old, "half"))
    SweepRun(old, start_of(old, "audited")).lease.release()
