"""A real MLflow server behind a proxy that stumbles, loses answers and goes away."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from safetensors.numpy import save_file
from support.mlflow_server import MlflowServer
from support.waiting import wait_until

from posetune.api import StoreSummary
from posetune.home import Home
from posetune.promotion.aliases import roll_back
from posetune.promotion.decision import promote
from posetune.promotion.request import Request
from posetune.storage.digest import digest_folder
from posetune.testing.toy import Toy
from posetune.tracking import machine
from posetune.tracking.machine import system_metrics
from posetune.tracking.projection import ship
from posetune.tracking.server import connection
from posetune.tracking.tracker import Tracker

pytestmark = pytest.mark.slow

Shown = dict[str, Any]
Read = Callable[[Home], dict[str, Shown]]

HEALTHY = "healthy"
LOST = "lost"
"""The request arrives, its answer does not: the client reads 500."""
CUT = "cut"
"""The request arrives, the connection is closed without an answer."""
HELD = "held"
"""The request waits until the test is over."""


def read_body(handler: BaseHTTPRequestHandler) -> bytes:
    """Return what was sent; an empty file comes in chunks, without a length."""
    if handler.headers.get("Transfer-Encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    parts = []
    while size := int(handler.rfile.readline(), 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)


class Proxy:
    """Passes requests on, or not, as `fault` says of each."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.fault: Callable[[str, str], str] = lambda method, path: HEALTHY
        self.seen: Counter[str] = Counter()
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    def open(self) -> None:
        """Listen, on the same port each time."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def is_open(self) -> bool:
        return self._server is not None

    def close(self) -> None:
        """Refuse connections. There is no keep-alive (HTTP/1.0), so none stays."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                body = read_body(self)
                with proxy._lock:
                    fault = proxy.fault(self.command, self.path)
                    proxy.seen[fault] += 1
                if fault == HELD:
                    proxy.over.wait()
                if fault in ("500", "429"):
                    return self.answer(int(fault), [], b"stumbled")
                backend = HTTPConnection("127.0.0.1", proxy.target, timeout=30)
                dropped = ("connection", "transfer-encoding")
                headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
                backend.request(self.command, self.path, body, headers)
                response = backend.getresponse()
                content = response.read()
                backend.close()
                if fault == LOST:
                    return self.answer(500, [], b"lost")
                if fault != CUT:
                    self.answer(response.status, response.getheaders(), content)
                return None

            def answer(self, status: int, headers: list[Any], content: bytes) -> None:
                self.send_response(status)
                dropped = ("content-length", "transfer-encoding", "connection")
                for name, value in headers:
                    if name.lower() not in dropped:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

        return Handler


@pytest.fixture
def proxy(running_mlflow_server: MlflowServer) -> Iterator[Proxy]:
    """A healthy proxy in front of a running server."""
    proxy = Proxy(running_mlflow_server.port)
    proxy.open()
    yield proxy
    proxy.over.set()
    proxy.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tries with shorter pauses."""
    monkeypatch.setattr("posetune.tracking.tracker.HEAD_START_S", 0.0)
    monkeypatch.setattr("posetune.tracking.tracker.PERIOD_S", 0.1)
    monkeypatch.setattr("posetune.tracking.tracker.LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr("posetune.tracking.tracker.SHARE", 1.0)
    monkeypatch.setattr(connection, "_PAUSES_S", (0.01, 0.02))


def stumbling(seed: int) -> Callable[[str, str], str]:
    """A third of the requests go wrong, and the first answer to each kind of creation is lost."""
    generator = random.Random(seed)
    created: set[str] = set()

    def fault(method: str, path: str) -> str:
        if path.endswith("/create") and path not in created:
            created.add(path)
            return LOST
        kinds = [HEALTHY, "500", "429", LOST, CUT]
        return generator.choices(kinds, weights=[67, 8, 8, 9, 8])[0]

    return fault


def artifacts(home: Home, runs: dict[str, Shown], folder: Path) -> dict[str, str]:
    """The digest of all artefacts of each run."""
    client = MlflowClient(home.tracking)
    digests = {}
    for name, run in runs.items():
        (folder / name).mkdir(parents=True)
        if run["files"]:
            client.download_artifacts(run["id"], "", str(folder / name))
        digests[name] = digest_folder(folder / name)
    return digests


def await_pass(tracker: Tracker, proxy: Proxy) -> None:
    """Return when the tracker has begun to ship what is new, or finds nobody to ship it to."""
    asked = proxy.seen.total()
    if proxy.is_open:
        wait_until(lambda: proxy.seen.total() > asked, "a request of the tracker")
    else:
        wait_until(lambda: "refused" in tracker.error, "a tracker that finds no server")


@pytest.mark.usefixtures("impatient")
def test_a_server_that_stumbles_ends_like_one_that_never_did(
    scene: Any,
    shown: Read,
    contents: Read,
    other_home: Callable[[str], Home],
    proxy: Proxy,
    tmp_path: Path,
) -> None:
    proxy.fault = stumbling(seed=7)
    home = scene.home.model_copy(update={"tracking": f"http://127.0.0.1:{proxy.port}"})
    scene.trials = 8
    run = scene.open()
    run.baselines({"mean_shape": 9.0})
    tracker = Tracker(scene.database, "first", home)
    tracker.start()
    for i in range(8):
        if i == 3:
            proxy.close()
        number, attempt = scene.begin(run)
        while scene.epoch(run, number, attempt, value=3.0 + (7 * i) % 5).value == "continue":
            await_pass(tracker, proxy)
        if i == 2:
            run.fail(number, "diverged")
        else:
            run.finish(number)
        await_pass(tracker, proxy)
        if i == 4:
            proxy.open()
    run.close("finished")
    assert tracker.stop(300.0), tracker.error
    assert {"500", "429", LOST, CUT, HEALTHY} == set(proxy.seen)

    proxy.fault = lambda method, path: HEALTHY
    undisturbed = other_home("undisturbed")
    ship(scene.database, "first", undisturbed)
    assert contents(home) == contents(undisturbed)
    assert artifacts(home, shown(home), tmp_path / "a") == artifacts(
        undisturbed, shown(undisturbed), tmp_path / "b"
    )
    again = ship(scene.database, "first", home)
    assert (again.created, again.values, again.uploads) == (0, 0, 0)


@pytest.mark.usefixtures("impatient")
def test_one_pass_is_enough_where_answers_to_creation_are_lost(
    scene: Any, contents: Read, other_home: Callable[[str], Home], proxy: Proxy
) -> None:
    lost: Counter[str] = Counter()

    def fault(method: str, path: str) -> str:
        if not path.endswith("/create"):
            return HEALTHY
        lost[path] += 1
        return (LOST, CUT, "429", HEALTHY)[lost[path] % 4]

    proxy.fault = fault
    scene.run_all()
    home = scene.home.model_copy(update={"tracking": f"http://127.0.0.1:{proxy.port}"})
    ship(scene.database, "first", home)
    assert {LOST, CUT, "429"} <= set(proxy.seen)

    undisturbed = other_home("undisturbed")
    ship(scene.database, "first", undisturbed)
    assert contents(home) == contents(undisturbed)


@pytest.mark.usefixtures("impatient")
def test_uploads_that_hang_leave_the_numbers_and_let_the_driver_end(
    scene: Any, shown: Read, proxy: Proxy
) -> None:
    proxy.fault = lambda method, path: HELD if method == "PUT" else HEALTHY
    scene.run_all()
    home = scene.home.model_copy(update={"tracking": f"http://127.0.0.1:{proxy.port}"})
    tracker = Tracker(scene.database, "first", home)
    tracker.start()
    wait_until(lambda: proxy.seen[HELD], "an upload")
    assert not tracker.stop(1.0)  # and it returns, though the upload hangs for ever
    states = {name: run["tags"]["posetune.state"] for name, run in shown(home).items()}
    assert states["first"] == "complete"
    assert len(states) == 5


@pytest.fixture
def frequent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[[], int]:
    """Read the machine often; return how often its metrics could not be sent so far."""
    monkeypatch.setattr(machine, "PERIOD_S", 0.05)
    caplog.set_level("DEBUG", machine.__name__)
    return lambda: caplog.text.count("system metrics failed")


def test_machine_metrics_outlive_a_server_that_is_away_at_the_start_and_later(
    scene: Any, proxy: Proxy, frequent: Callable[[], int]
) -> None:
    home = scene.home.model_copy(update={"tracking": f"http://127.0.0.1:{proxy.port}"})
    scene.run_trial(scene.open(), 5.0)
    report = ship(scene.database, "first", home)
    client, load = MlflowClient(home.tracking), "system/cpu_utilization_percentage"
    proxy.close()
    with system_metrics(scene.database, name="first", home=home):
        for _ in range(2):
            failed = frequent()
            wait_until(lambda failed=failed: frequent() > failed + 1, "readings that go nowhere")
            proxy.open()
            seen = len(client.get_metric_history(report.run_id, load))
            wait_until(
                lambda seen=seen: len(client.get_metric_history(report.run_id, load)) > seen,
                "a reading that arrives",
            )
            proxy.close()
    proxy.open()


def test_a_driver_ends_though_the_server_holds_its_machine_metrics(
    scene: Any, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "PERIOD_S", 0.05)
    home = scene.home.model_copy(update={"tracking": f"http://127.0.0.1:{proxy.port}"})
    scene.run_trial(scene.open(), 5.0)
    ship(scene.database, "first", home)
    proxy.fault = lambda method, path: HELD
    with system_metrics(scene.database, name="first", home=home):
        wait_until(lambda: proxy.seen[HELD], "a request that hangs")
    assert "machine metrics" in [thread.name for thread in threading.enumerate()]


class Known(Toy):
    """Says that the scene's store is the sweep's; the second model is the better one."""

    __module__ = Toy.__module__  # whose source goes with the model
    off = 0.2

    def export(self, folder: Path) -> None:
        pose = np.array([[0, 0, 0], [-1, 0, 0], [1, 0, 0]], np.float32) + np.float32(self.off)
        save_file({"pose": pose}, folder / "model.safetensors")

    @classmethod
    def describe_store(cls, store: Path) -> StoreSummary:
        return StoreSummary("d" * 64, {}, {})


@pytest.mark.usefixtures("impatient")
@pytest.mark.long
def test_a_gated_promotion_survives_a_server_that_stumbles_at_every_address(
    scene: Any, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    faults = itertools.cycle(["500", LOST, "429", CUT])

    def fault(method: str, path: str) -> str:
        asked[f"{method} {path}"] += 1
        return next(faults) if asked[f"{method} {path}"] == 1 else HEALTHY

    scene.trainable = Known
    run = scene.open()
    scene.run_trial(run, 5.0)
    home = scene.home.model_copy(update={"tracking": f"http://127.0.0.1:{proxy.port}"})
    ship(scene.database, "first", home)
    proxy.fault = fault
    first = promote(scene.database, home, Request("first", "m", "champion"), trainable=Known)
    monkeypatch.setattr(Known, "off", 0.0)
    scene.run_trial(run, 3.0)
    second = promote(scene.database, home, Request("first", "m", "champion"), trainable=Known)
    back = roll_back(home, model="m", alias="champion")

    assert {"500", "429", LOST, CUT, HEALTHY} == set(proxy.seen)
    assert (first.gate, second.gate, second.replaced, back) == ("passed", "passed", 1, (2, 1))
    client = MlflowClient(home.tracking)
    proxy.fault = lambda method, path: HEALTHY
    experiments = [e.experiment_id for e in client.search_experiments()]
    logged = client.search_logged_models(experiments)
    assert sorted(str(model.status) for model in logged) == ["READY", "READY"]
    versions = client.search_model_versions("name = 'm'")
    assert sorted(int(version.version) for version in versions) == [1, 2]
    assert [len(client.get_run(v.run_id).outputs.model_outputs) for v in versions] == [1, 1]
