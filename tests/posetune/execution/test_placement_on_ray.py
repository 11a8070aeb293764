"""Sweeps that share a real Ray of several nodes, which come, leave and die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2
from sqlalchemy import select

from posetune.home import Home
from posetune.study import schema
from posetune.study.database import Database, open_database
from posetune.study.view import SweepView, read_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STORE_BYTES = 100 * 1024**2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head with one core; nodes are added by the tests."""
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    started = Cluster(initialize_head=True, head_node_args=head)
    yield started
    started.shutdown()


class Sweeps:
    """Drivers of sweeps on a cluster, with one home."""

    def __init__(self, folder: Path, cluster: Cluster, file: Callable[..., Path]) -> None:
        self._folder, self._file, self._cluster = folder, file, cluster
        self._drivers: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, resources: str, *, fixed: str = "", **sizes: Any) -> None:
        """Start a driver; `resources` stands in the sweep file, `fixed` among the fixed fields."""
        text = self._file(**sizes).read_text()
        text = text.replace("{cpu: 1}", f"{{cpu: 1, {resources}}}")
        text = text.replace("fixed: {", f"fixed: {{{fixed}")
        file = self._folder / f"{name}.yaml"
        file.write_text(text)
        command = [sys.executable, "-m", "posetune.cli", "sweep", str(file), "--name", name]
        self._drivers[name] = subprocess.Popen(
            [*command, "--address", self._cluster.address],
            env={
                **os.environ,
                "POSETUNE_HOME": str(self._folder / "home"),
                "RAY_AUTH_TOKEN_PATH": str(self._folder / "none"),
                "COLUMNS": "200",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def database(self) -> Database:
        return open_database(Home.resolve(self._folder / "home").database)

    def wait(
        self, name: str, until: Callable[[SweepView], bool], *, limit: float = 240
    ) -> SweepView:
        """Return the sweep as soon as something holds of it."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            assert self._drivers[name].poll() in (None, 0), self._drivers[name].communicate()[0]
            if (self._folder / "home" / "study.db").exists():
                database = self.database
                with database.reading() as connection:
                    known = connection.execute(select(schema.sweep.c.name)).scalars().all()
                if name in known and until(view := read_sweep(database, name)):
                    database.close()
                    return view
                database.close()
            time.sleep(0.2)
        raise AssertionError(f"{name}: not within {limit} s; {json.dumps(self.events(name))}")

    def interrupt(self, name: str) -> None:
        self._drivers[name].send_signal(signal.SIGINT)
        self._drivers.pop(name).communicate(timeout=120)

    def finish(self, name: str) -> tuple[SweepView, str]:
        """Wait for a driver's end; return its sweep and what it printed."""
        output, _ = self._drivers.pop(name).communicate(timeout=240)
        return read_sweep(self.database, name), output

    def events(self, name: str) -> list[dict[str, Any]]:
        table = schema.sweep_event
        query = select(table.c.kind, table.c.data).join(schema.sweep)
        with self.database.reading() as connection:
            rows = connection.execute(query.where(schema.sweep.c.name == name)).all()
        return [{"kind": row.kind, **row.data} for row in rows]

    def rows(self, name: str, table: Any) -> list[dict[str, Any]]:
        """Return the rows of a table of trials, with the trial's number, in order."""
        query = select(table, schema.trial.c.number.label("trial")).select_from(
            table.join(schema.trial, schema.trial.c.id == table.c.trial_id).join(schema.sweep)
        )
        query = query.where(schema.sweep.c.name == name).order_by(table.c.at)
        with self.database.reading() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def stop(self) -> None:
        for driver in self._drivers.values():
            driver.kill()


@pytest.fixture
def sweeps(tmp_path: Path, cluster: Cluster, toy_sweep: Callable[..., Path]) -> Iterator[Sweeps]:
    started = Sweeps(tmp_path, cluster, toy_sweep)
    yield started
    started.stop()


def test_sweeps_on_one_cluster_say_what_they_wait_for_and_use_a_node_that_joins(
    sweeps: Sweeps, cluster: Cluster
) -> None:
    sweeps.start("first", "concurrent: 1", trials=99, max_epochs=2, epoch_s=1.0)
    sweeps.wait("first", lambda view: any(t.placement for t in view.trials))
    sweeps.start("second", "", trials=2, max_epochs=2, epoch_s=0.2)
    sweeps.start("big", "labels: {kind: big}", trials=2, max_epochs=2, epoch_s=0.2)
    waits = sweeps.wait("second", lambda view: bool(view.waits_for)).waits_for
    assert waits == "a trial waits for cpu 1; of cpu 1 that may be used sweep first holds cpu 1"
    waits = sweeps.wait("big", lambda view: bool(view.waits_for)).waits_for
    assert waits == "a trial waits for a node with labels {kind: big}; there is 1 with {kind: -}"
    joined = cluster.add_node(num_cpus=4, labels={"kind": "big"}, object_store_memory=STORE_BYTES)
    for name in ("second", "big"):
        view, output = sweeps.finish(name)
        assert view.state == "COMPLETE", output
        assert "a trial waits for" in output
        assert view.waits_for == ""
        told = [event for event in sweeps.events(name) if event["kind"] == "waits"]
        assert [bool(event["for"]) for event in told] == [True, False]
        assert {t.placement["ray_node"] for t in view.trials} == {joined.node_id}
    sweeps.interrupt("first")
    placed = sweeps.rows("first", schema.placement)
    ends = {row["trial_id"]: row["at"] for row in sweeps.rows("first", schema.told)}
    assert len(ends) > 2
    for before, after in pairwise(placed):
        assert after["at"] > ends[before["trial_id"]]  # one at a time, though there was room


def drain(cluster: Cluster, node: str) -> None:
    """Tell Ray that a node is about to be taken away, as `ray drain-node` and autoscalers do."""
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int(1000 * (time.time() + 60))
    accepted, why = GcsClient(cluster.address).drain_node(node, reason, "spot", deadline_ms)
    assert accepted, why


def test_nodes_that_are_drained_or_die_hand_their_trials_over(
    sweeps: Sweeps, cluster: Cluster
) -> None:
    leaving = cluster.add_node(num_cpus=1, labels={"kind": "spot"}, object_store_memory=STORE_BYTES)
    sweeps.start("spot", "labels: {kind: spot}", trials=1, max_epochs=8, epoch_s=2.0)
    sweeps.wait("spot", lambda view: bool(view.reports))
    drain(cluster, leaving.node_id)
    waits = sweeps.wait("spot", lambda view: bool(view.waits_for)).waits_for
    assert waits.startswith("a trial waits for a node with labels {kind: spot}; ")
    saved = [row for row in sweeps.rows("spot", schema.checkpoint) if row["partial_s"]]
    assert len(saved) == 1
    dying = cluster.add_node(num_cpus=1, labels={"kind": "spot"}, object_store_memory=STORE_BYTES)
    sweeps.wait("spot", lambda view: view.trials[0].attempts == 2 and len(view.reports) > 1)
    cluster.remove_node(dying, allow_graceful=False)
    last = cluster.add_node(num_cpus=1, labels={"kind": "spot"}, object_store_memory=STORE_BYTES)
    view, output = sweeps.finish("spot")
    assert view.state == "COMPLETE", output
    assert view.trials[0].epochs == 8
    placed = [row["facts"]["ray_node"] for row in sweeps.rows("spot", schema.placement)]
    assert placed == [leaving.node_id, dying.node_id, last.node_id]
    (excused,) = [event for event in sweeps.events("spot") if event["kind"] == "excused"]
    assert (excused["attempt"], excused["why"]) == (2, f"its node {dying.node_id[:8]} left")


def test_trials_share_a_gpu_by_what_was_measured_and_get_more_when_they_outgrow_it(
    sweeps: Sweeps, cluster: Cluster
) -> None:
    # The GPU is declared, not there: the toy measures main memory as if it were one of 1 GB.
    node = {"num_cpus": 4, "num_gpus": 1, "labels": {"kind": "gpu"}}
    cluster.add_node(**node, object_store_memory=STORE_BYTES)
    sweeps.start(
        "shared",
        "gpu: 1, share: true, labels: {kind: gpu}",
        fixed="hold_mb: 100, hold_later_mb: 300, ",
        trials=20,
        max_epochs=3,
        epoch_s=0.3,
    )
    view, output = sweeps.finish("shared")
    assert view.state == "COMPLETE", output
    (measured,) = [event for event in sweeps.events("shared") if event["kind"] == "share"]
    assert 100e6 < measured["peak_bytes"] < 105e6
    assert (measured["total_bytes"], measured["gpu"]) == (10**9, 0.125)
    assert view.spec.resources.gpu == 0.125
    peaks = [event["peak_bytes"] for event in sweeps.events("shared") if event["kind"] == "peak"]
    assert 300e6 < max(peaks) < 410e6  # while it grows it holds both
    given = [row["facts"]["gpu"] for row in sweeps.rows("shared", schema.placement)]
    assert given[0] == 0.125
    assert given[-1] in (0.3333, 0.5)


def test_a_trial_that_runs_out_of_memory_gets_twice_its_part_of_the_gpu_next_time(
    sweeps: Sweeps, cluster: Cluster, tmp_path: Path
) -> None:
    node = {"num_cpus": 1, "num_gpus": 1, "labels": {"kind": "small"}}
    cluster.add_node(**node, object_store_memory=STORE_BYTES)
    death = tmp_path / "death"  # in the middle of the first epoch
    death.write_text("OutOfMemoryError")
    sweeps.start(
        "outgrown",
        "gpu: 1, share: true, labels: {kind: small}",
        fixed=f"hold_mb: 100, die_at: {death}, ",
        trials=1,
        max_epochs=2,
    )
    view, output = sweeps.finish("outgrown")
    assert view.state == "COMPLETE", output
    assert not death.exists()
    given = [row["facts"]["gpu"] for row in sweeps.rows("outgrown", schema.placement)]
    assert given == [0.125, 0.25]
