"""A study as metrics, in each way in which a scraper gets them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine
from support.commands import command_environment
from support.shared_cluster import SharedCluster
from support.worlds import World

from posetune.notifications import outbox
from posetune.notifications.messages import Message
from posetune.spec.notify import EVENTS, parse_destinations
from posetune.study.events import RoomAwaited
from posetune.study.tables import journal
from posetune.study.tables.database import Database
from posetune.study.tables.lease import Lease
from posetune.study.tables.shipped import begin_shipping, note_shipped
from posetune.workflow.exporter import METRICS, StudyMetrics, registry_of

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, tmp_path: Path, toy_store: Path) -> Iterator[World]:
    """A study with a sweep at its end and one that is not, and a message that waits."""
    address = f"sqlite:///{tmp_path / 'home' / 'study.db'}"
    if request.param == "postgres":
        address = request.getfixturevalue("postgres_database")
    made = World(tmp_path, address, toy_store)
    made.sweep("done", gpu=2.0)
    made.sweep("open", epochs=3, seed=4)
    destination = parse_destinations([{"name": "team", "webhook": "http://127.0.0.1:9/nobody"}])
    outbox.make_tables(made.database)
    message = Message("m", EVENTS[0], 1234.5, "", "what a driver left", {})
    made.database.write(lambda c: outbox.put(c, None, [message], destination))
    yield made
    made.database.close()


def parsed(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def test_who_holds_what_of_a_shared_cluster_is_measured_while_there_are_two(
    database: Database,
) -> None:
    cluster = SharedCluster(database, slots=8)
    cluster.begin("first", share=3.0)
    cluster.epoch()
    alone = {name for name, *_ in StudyMetrics(database).samples()}
    cluster.begin("second", seed=1)
    cluster.epochs(3)
    samples = parsed(generate_latest(registry_of(database)).decode())
    cluster.leave(["first", "second"])

    assert not {name for name in alone if "slots" in name}
    for sweep, slots in (("first", 6), ("second", 2)):
        assert of(samples, "posetune_slots_held", sweep=sweep) == slots
        assert of(samples, "posetune_slots_entitled", sweep=sweep) == slots
        assert of(samples, "posetune_slots_wanted", sweep=sweep) == 8


def test_the_metrics_are_what_the_study_says(world: World) -> None:
    samples = parsed(world.command("metrics").stdout)

    assert {name for name, _ in samples} <= set(METRICS)
    assert of(samples, "posetune_study_reachable") == 1
    for name, is_open in (("done", 0), ("open", 1)):
        view = world.view(name)
        states = Counter(trial.state.lower() for trial in view.trials)
        assert of(samples, "posetune_sweep_open", sweep=name, owner="ana@laptop") == is_open
        assert of(samples, "posetune_sweep_driver", sweep=name, owner="ana@laptop") == 0
        assert of(samples, "posetune_epochs_total", sweep=name) == len(view.reports)
        for state in ("complete", "pruned", "failed", "interrupted"):
            assert of(samples, "posetune_trials", sweep=name, state=state) == states[state]
        best = of(samples, "posetune_best_value", sweep=name, metric="val/error_mm")
        assert view.best is not None
        assert view.best.chosen is not None
        assert best == view.best.chosen.value
    assert of(samples, "posetune_gpu_hours_total", sweep="done") == pytest.approx(
        world.view("done").gpu_hours
    )
    assert of(samples, "posetune_gpu_hours_total", sweep="open") == 0
    assert of(samples, "posetune_messages_waiting", destination="team") == 1
    assert of(samples, "posetune_messages_waiting_since_seconds", destination="team") == 1234.5


def test_a_driver_and_a_trial_without_a_place_are_seen(world: World) -> None:
    run = world.driver("open")
    run.wait_for_room("needs a GPU")

    samples = parsed(world.command("metrics").stdout)

    run.wait_for_room("")
    after = parsed(world.command("metrics").stdout)
    run.lease.release()
    with world.database.reading() as connection:
        events = [
            e
            for e in journal.read_events(connection, world.view("open").id)
            if isinstance(e, RoomAwaited)
        ]
    assert of(samples, "posetune_sweep_driver", sweep="open", owner="ana@laptop") == 1
    assert of(samples, "posetune_waiting_since_seconds", sweep="open") == pytest.approx(
        events[0].at, abs=1e-3
    )
    assert "posetune_waiting_since_seconds" not in {name for name, _ in after}


def test_what_has_not_changed_is_not_read_again_and_what_has_is(world: World) -> None:
    seen = StudyMetrics(world.database)
    before = seen.samples()
    world.sweep("open", seed=4, epochs=1)
    lease = Lease(world.database, world.view("done").id, "done")
    after = seen.samples()
    fresh = StudyMetrics(world.database).samples()
    lease.release()
    world.command("delete", "open", "--yes")

    assert before != after
    assert sorted(map(but_forecast, after)) == sorted(map(but_forecast, fresh))
    assert "open" not in {labels[0] for _, labels, _ in seen.samples() if labels}


def but_forecast(sample: tuple[str, tuple[str, ...], float]) -> tuple[Any, ...]:
    """A sample without the hours to come: a forecast holds for a while, whatever is reported."""
    return sample[:2] if "_forecast" in sample[0] else sample


def test_the_hours_to_come_are_those_of_the_forecast_that_show_has(world: World) -> None:
    samples = parsed(world.command("metrics").stdout)
    shown = json.loads(world.command("show", "open", "--json").stdout)

    spent = shown["used"]["trial_hours"]
    to_come = [
        of(samples, "posetune_slot_hours_forecast", sweep="open", bound=bound)
        for bound in ("low", "middle", "high")
    ]
    assert to_come[0] == pytest.approx(shown["forecast"]["hours"][0] - spent, abs=1e-5)
    assert to_come[2] == pytest.approx(shown["forecast"]["hours"][1] - spent, abs=1e-5)
    assert 0 < to_come[0] <= to_come[1] <= to_come[2]
    forecast = {key for key in samples if "_forecast" in key[0]}
    assert len(forecast) == 3, "no GPUs, and nothing of the sweep that is at its end"


def test_what_is_to_come_of_gpus_is_theirs(tmp_path: Path, toy_store: Path) -> None:
    world = World(tmp_path, f"sqlite:///{tmp_path / 'home' / 'study.db'}", toy_store)
    world.sweep("unknown", epochs=0, gpu=2.0)
    world.sweep("s", epochs=2, gpu=2.0)

    samples = parsed(generate_latest(registry_of(world.database)).decode())

    for bound in ("low", "middle", "high"):
        hours = of(samples, "posetune_slot_hours_forecast", sweep="s", bound=bound)
        gpu_hours = of(samples, "posetune_gpu_hours_forecast", sweep="s", bound=bound)
        assert gpu_hours == pytest.approx(2 * hours)
    known = {dict(labels)["sweep"] for name, labels in samples if "_forecast" in name}
    assert known == {"s"}, "nothing was reported of the other one"


def test_how_far_tracking_is_behind_is_measured_where_it_was_ever_begun(world: World) -> None:
    view = world.view("open")
    begin_shipping(world.database, view.id, "http://mlflow:5000")
    never = parsed(world.command("metrics").stdout)
    note_shipped(world.database, view.id, "http://mlflow:5000", view.seq - 2)
    behind = parsed(world.command("metrics").stdout)
    note_shipped(world.database, view.id, "http://mlflow:5000", view.seq)
    even = parsed(world.command("metrics").stdout)

    with world.database.reading() as connection:
        times = [event.at for event in journal.read_events(connection, view.id)]
    name, since = "posetune_tracking_events_waiting", "posetune_tracking_waiting_since_seconds"
    assert [of(found, name, sweep="open") for found in (never, behind, even)] == [view.seq, 2, 0]
    assert of(never, since, sweep="open") == pytest.approx(times[0], abs=1e-3)
    assert of(behind, since, sweep="open") == pytest.approx(times[-2], abs=1e-3)
    assert (since, (("sweep", "open"),)) not in even
    assert (name, (("sweep", "done"),)) not in even


def test_a_study_that_is_away_is_a_metric() -> None:
    away = Database(create_engine("postgresql+psycopg://nobody@/nothing?host=/nowhere"))

    assert StudyMetrics(away).samples() == [("posetune_study_reachable", (), 0.0)]


def test_a_textfile_and_json_say_the_same(world: World) -> None:
    file = world.folder / "posetune.prom"

    assert world.command("metrics", "--textfile", file).returncode == 0
    said = json.loads(world.command("metrics", "--json").stdout)["metrics"]

    samples = parsed(file.read_text())
    assert len(samples) == len(said)
    for one in said:
        assert of(samples, one["name"], **one["labels"]) == one["value"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_scraper_gets_them_over_http(
    tmp_path: Path, toy_store: Path, number: signal.Signals
) -> None:
    """Also where it was started in the background by a script, which has it ignore Ctrl-C."""
    world = World(tmp_path, f"sqlite:///{tmp_path / 'home' / 'study.db'}", toy_store)
    world.sweep("s", epochs=2)
    server = subprocess.Popen(
        [sys.executable, "-m", "posetune.cli", "metrics", "--listen", "127.0.0.1:0"],
        env=command_environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        assert server.stdout is not None
        address = re.search(r"http://\S+", server.stdout.readline())
        assert address is not None
        scrapes = []
        for epochs in (0, 1):
            world.sweep("s", epochs=epochs)
            with urllib.request.urlopen(address[0]) as answer:
                scrapes.append(parsed(answer.read().decode()))
        server.send_signal(number)
        assert server.wait(60) == 0
    finally:
        server.kill()
    assert [of(s, "posetune_epochs_total", sweep="s") for s in scrapes] == [2, 3]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--listen", "9464"], "--listen 9464: must be HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "must be HOST:PORT"),
        (["--listen", "127.0.0.1:1", "--textfile", "x.prom"], "give one of the two"),
        (["--textfile", "/nowhere/x.prom"], "/nowhere/x.prom: cannot be written"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    tmp_path: Path, toy_store: Path, words: list[str], why: str
) -> None:
    world = World(tmp_path, f"sqlite:///{tmp_path / 'study.db'}", toy_store)

    result = world.command("metrics", *words)

    assert result.returncode == 2
    assert why in result.stderr
    assert result.stderr.count("\n") == 1


def names_in(text: str) -> set[str]:
    return set(re.findall(r"posetune_\w+", text))


def test_alerts_and_dashboard_name_metrics_that_there_are(repository: Path) -> None:
    folder = repository / "cluster" / "monitoring"
    (group,) = yaml.safe_load((folder / "alerts.yaml").read_text())["groups"]
    dashboard = json.loads((folder / "dashboard.json").read_text())
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]

    assert len(group["rules"]) == 6
    for rule in group["rules"]:
        assert names_in(rule["expr"]) <= set(METRICS)
        labels = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        of_rule = [set(METRICS[name][1]) for name in names_in(rule["expr"])]
        assert all(labels <= known for known in of_rule), rule["alert"]
        assert rule["annotations"]["action"]
    assert set().union(*map(names_in, expressions)) == set(METRICS)
    for labels, known in ((selectors(e), METRICS[n]) for e in expressions for n in names_in(e)):
        assert labels <= {*known[1]} | {"sweep"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def selectors(expression: str) -> set[str]:
    return set(re.findall(r"[{,](\w+)=", expression))


def test_the_page_for_operators_explains_every_metric(repository: Path) -> None:
    page = (repository / "docs" / "operators.md").read_text()

    assert names_in(page) == set(METRICS)


def test_promtool_takes_the_alerts(
    repository: Path, required: Callable[[str, bool, str], None]
) -> None:
    tool = shutil.which("promtool")
    required("promtool", tool is not None, "install Prometheus (Debian: prometheus)")
    rules = repository / "cluster" / "monitoring" / "alerts.yaml"
    checked: Any = subprocess.run([str(tool), "check", "rules", str(rules)], capture_output=True)
    assert checked.returncode == 0, checked.stderr
