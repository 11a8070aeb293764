"""Sweeps of one study that share simulated slots, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import event
from support.shared_cluster import SharedCluster
from support.simulated_driver import happened, open_unsynced, outcome

from posetune.spec.sweep import ClusterRules
from posetune.study.events import Reported, SetAside, TrialEnded
from posetune.study.reading import read_sweep
from posetune.study.sharing.demands import read_demands
from posetune.study.sharing.queue import read_queue
from posetune.study.tables.database import Database


def reports(database: Database) -> list[tuple[str, int, int]]:
    return [
        (name, one.trial, one.epoch)
        for name in ("first", "second", "third")
        for one in happened(database, Reported, name)
    ]


@pytest.mark.parametrize(("share", "expected"), [(1.0, (4, 4)), (3.0, (6, 2))])
def test_a_second_sweep_has_its_share_from_the_second_epoch_on(
    database: Database, share: float, expected: tuple[int, int]
) -> None:
    cluster = SharedCluster(database, slots=8)
    cluster.begin("first", share=share)
    assert cluster.epochs(3)[-1] == {"first": 8}
    cluster.begin("second", seed=1)
    had = cluster.epochs(11)
    assert had[0] == {"first": 8, "second": 0}, "nobody breaks an epoch off"
    first, second = (sum(one[name] for one in had[1:]) for name in ("first", "second"))
    assert first == pytest.approx(10 * expected[0], rel=0.1)
    assert second == pytest.approx(10 * expected[1], rel=0.1)
    given = happened(database, SetAside, "first")
    assert len(given) >= 8 - expected[0]
    assert all("its slot goes to sweep second" in one.why for one in given)
    assert max(Counter(reports(database)).values()) == 1, "an epoch was trained twice"
    cluster.leave(["first", "second"])


def test_slots_that_others_do_not_want_are_taken_again(database: Database) -> None:
    cluster = SharedCluster(database, slots=8)
    cluster.begin("first")
    cluster.epoch()
    cluster.begin("second", trials=2, seed=1)
    had = cluster.epochs(3)
    assert had[-1] == {"first": 6, "second": 2}
    while "second" in cluster.drivers:
        cluster.epoch()
    assert cluster.epoch() == {"first": 8}
    cluster.leave(["first"])


def test_a_third_sweep_of_a_higher_priority_is_served_first(database: Database) -> None:
    cluster = SharedCluster(database, slots=8)
    cluster.begin("first")
    cluster.begin("second", seed=1)
    assert cluster.epoch() == {"first": 4, "second": 4}
    cluster.begin("third", trials=9, seed=2, concurrent=6, priority=5)
    assert cluster.epochs(2)[-1] == {"first": 1, "second": 1, "third": 6}
    while "third" in cluster.drivers:
        cluster.epoch()
    assert read_sweep(database, "third").state == "COMPLETE"
    assert cluster.epoch() == {"first": 4, "second": 4}
    assert max(Counter(reports(database)).values()) == 1, "an epoch was trained twice"
    cluster.leave(["first", "second"])


def test_sweeps_of_one_slot_end_as_they_do_alone(database: Database, tmp_path: Path) -> None:
    """Three of them on two slots: the third, of a higher priority, takes the second one's."""
    cluster = SharedCluster(database, slots=2)
    rules = {"first": 0, "second": 0, "third": 5}

    def begin(on: SharedCluster, name: str) -> None:
        seed = list(rules).index(name)
        on.begin(name, trials=6, seed=seed, concurrent=1, pruner="asha", priority=rules[name])

    begin(cluster, "first")
    begin(cluster, "second")
    cluster.epochs(2)
    begin(cluster, "third")
    cluster.to_the_end()
    assert happened(database, SetAside, "second"), "it has given its slot to the third"
    alone = open_unsynced(tmp_path / "alone.db")
    for name in rules:
        one = SharedCluster(alone, slots=2)
        begin(one, name)
        one.to_the_end()
    assert not happened(alone, SetAside)
    assert outcome(database) == outcome(alone)


def test_sweeps_that_have_shared_end_whole(database: Database) -> None:
    cluster = SharedCluster(database, slots=4)
    cluster.begin("first", trials=12, pruner="asha")
    cluster.epoch()
    cluster.begin("second", trials=8, seed=1, pruner="asha", share=3)
    cluster.to_the_end()
    for name, trials in (("first", 12), ("second", 8)):
        view = read_sweep(database, name)
        assert (view.state, len(view.trials)) == ("COMPLETE", trials)
        assert all(trial.attempts >= 1 for trial in view.trials)
    assert max(Counter(reports(database)).values()) == 1, "an epoch was trained twice"


def test_priority_and_share_change_while_sweeps_run(database: Database) -> None:
    cluster = SharedCluster(database, slots=8)
    first, second = cluster.begin("first"), cluster.begin("second", seed=1)
    assert cluster.epoch() == {"first": 4, "second": 4}
    first.rules = ClusterRules(share=3)
    assert cluster.epochs(2)[-1] == {"first": 6, "second": 2}
    second.rules = ClusterRules(priority=1)
    assert cluster.epochs(2)[-1] == {"first": 0, "second": 8}
    cluster.leave(["first", "second"])


def test_a_driver_that_is_gone_claims_nothing(database: Database) -> None:
    cluster = SharedCluster(database, slots=8)
    cluster.begin("first")
    cluster.begin("second", seed=1)
    assert cluster.epoch() == {"first": 4, "second": 4}
    cluster.leave(["second"])
    assert cluster.epochs(2)[-1] == {"first": 8}
    cluster.begin("second", seed=1)
    assert cluster.epochs(2)[-1] == {"first": 4, "second": 4}
    cluster.leave(["first", "second"])


def test_sweeps_on_two_clusters_share_nothing(database: Database) -> None:
    here, there = SharedCluster(database, slots=4), SharedCluster(database, slots=4)
    here.begin("first")
    other = there.begin("second", seed=1)
    other.turn._cluster = "another"
    assert here.epoch() == {"first": 4}
    assert there.epoch() == {"second": 4}
    assert here.epoch() == {"first": 4}
    here.leave(["first"])
    there.leave(["second"])


def test_the_queue_says_who_holds_what_and_who_waits(database: Database) -> None:
    cluster = SharedCluster(database, slots=8)
    cluster.begin("first", share=3)
    (alone,) = read_queue(database)
    assert (alone.sweep, alone.entitled, alone.wants) == ("first", None, None)
    cluster.epoch()
    cluster.begin("second", seed=1, priority=2, concurrent=3)
    cluster.epoch()
    second, first = read_queue(database)
    assert (first.sweep, second.sweep) == ("first", "second"), "a higher priority comes first"
    assert (first.priority, first.share, first.entitled, first.wants) == (0, 3.0, 5, 8)
    assert (second.priority, second.entitled, second.wants, second.holds) == (2, 3, 3, 0)
    assert second.waits_for == "slots that others give back when their epochs end"
    assert first.waits_for.startswith("a larger part of the cluster")
    cluster.epochs(2)
    second, first = read_queue(database)
    assert second.waits_for == ""
    assert first.open + first.holds + len(happened(database, TrialEnded, "first")) == 200
    cluster.leave(["first", "second"])
    assert read_queue(database) == []


def test_a_sweep_that_is_alone_asks_the_study_nothing(database: Database) -> None:
    cluster = SharedCluster(database, slots=4)
    driver = cluster.begin("first")
    cluster.epoch()
    asked, here = [], threading.get_ident()

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        if threading.get_ident() == here:  # the lease is renewed beside
            asked.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    for _ in range(10):
        driver.turn.look(fits=4, room=4)
        assert driver.turn.may_start
    assert asked == []
    event.remove(database.engine, "before_cursor_execute", note)
    with database.reading() as connection:
        assert read_demands(connection) == []
    cluster.leave(["first"])


def test_a_sweep_whose_trials_have_ended_waits_for_nothing(database: Database) -> None:
    cluster = SharedCluster(database, slots=2)
    cluster.begin("first")
    last = cluster.begin("second", trials=1, seed=1)
    cluster.epoch()
    assert last.at_work
    while last.at_work:
        last.train()
    last.look()
    assert last.turn.entitled == 0
    assert last.turn.waits_for == ""
    cluster.leave(["first", "second"])


def test_a_sweep_on_gpus_and_one_without_leave_each_other_alone(database: Database) -> None:
    cluster = SharedCluster(database, slots=8)
    processors = cluster.begin("first")
    cluster.epoch()
    gpus = cluster.begin("second", seed=1, gpu=1.0)
    cluster.epochs(2)
    assert processors.turn.entitled is None
    assert gpus.turn.entitled is None
    assert gpus.turn.may_start
    cluster.leave(["first", "second"])


def test_a_trial_may_be_asked_for_where_no_node_is_there_yet(database: Database) -> None:
    """Nodes of a cluster that scales come once a trial waits for one."""
    cluster = SharedCluster(database, slots=0)
    drivers = [cluster.begin("first", concurrent=0), cluster.begin("second", seed=1, concurrent=0)]
    cluster.epochs(2)
    assert all(driver.run.lease.has_company for driver in drivers)
    assert all(driver.turn.may_start for driver in drivers)
    cluster.leave(["first", "second"])
