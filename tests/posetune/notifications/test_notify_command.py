"""`posetune notify`, what other commands say of messages, and the page about it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import run_here
from support.receivers import HttpReceiver, SmtpReceiver
from support.simulated_driver import SimulatedTrial, open_unsynced, simulated_start

from posetune.home import Home
from posetune.notifications.delivery import record_destinations
from posetune.spec.notify import Destination
from posetune.study.driving.sweep import SweepRun

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path, planted: str) -> dict[str, str]:
    return {"HOME": str(tmp_path), "SMTP_PASSWORD": planted}


@pytest.fixture
def command(tmp_path: Path, environment: dict[str, str]) -> Command:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return run_here(*words, folder=tmp_path, environment=environment)

    return run


@pytest.fixture
def one_best(tmp_path: Path, notify_home: Home, webhook: Destination) -> str:
    """A sweep whose driver was killed after a report; returns the webhook's name."""
    home = notify_home.model_copy(update={"folder": tmp_path / "home"})
    home.folder.mkdir()
    database = open_unsynced(home.folder / "study.db")
    run = SweepRun(database, simulated_start())
    record_destinations(database, home, run.id, [webhook])
    SimulatedTrial(run, run.next_trial().number).step()
    run.lease.release()
    database.close()
    return webhook.key


@pytest.mark.slow
def test_what_waits_is_shown_and_flushed(
    command: Command, one_best: str, http: HttpReceiver
) -> None:
    away = "no connection to 127.0.0.1 (Connection refused)"

    def waiting(*words: str) -> Any:
        done = command(*words, "--json")
        return json.loads(done.stdout)["messages_waiting" if words[0] == "show" else "waiting"]

    assert waiting("notify") == waiting("show", "s") == {one_best: {"count": 1, "error": ""}}
    assert f"1 for {one_best}" in command("show", "s").stderr
    failed = command("notify", "--flush")
    assert failed.returncode == 1
    assert f"sent 0; messages that wait: 1 for {one_best} ({away})" in failed.stderr
    assert waiting("notify") == waiting("show", "s") == {one_best: {"count": 1, "error": away}}

    http.start()
    done = command("notify", "--flush", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"sent": 1, "waiting": {}})
    assert [request.content["type"] for request in http.taken] == ["new_best"]
    assert command("notify").stderr == "no message waits\n"
    assert "wait" not in command("show", "s").stderr


def test_the_ui_sends_what_waits(
    command: Command, one_best: str, http: HttpReceiver, environment: dict[str, str]
) -> None:
    environment["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"  # a server: nothing is to be served
    http.start()
    assert command("ui").returncode == 0
    assert [request.content["type"] for request in http.taken] == ["new_best"]


def test_a_sample_says_for_each_destination_whether_it_came(
    command: Command,
    tmp_path: Path,
    http: HttpReceiver,
    toy_sweep: Callable[..., Path],
    environment: dict[str, str],
) -> None:
    http.start()
    environment["CHANNEL"] = "http://127.0.0.1:9/secret"
    file = toy_sweep()
    file.write_text(file.read_text() + f"notify: [{{webhook: {http.url}}}]\n")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "posetune.yaml").write_text("notify: [{slack: {env: CHANNEL}}]\n")
    done = command("notify", "--test", file, "--json")

    said = json.loads(done.stdout)
    assert done.returncode == 1
    assert said["destinations"] == [
        {"destination": f"webhook {http.url}", "sent": True, "error": ""},
        {
            "destination": "slack $CHANNEL",
            "sent": False,
            "error": "no connection to 127.0.0.1 (Connection refused)",
        },
    ]
    assert http.ids == [said["id"]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("notify: [{slack: https://hooks/xyz}]", "posetune.yaml:1: notify.0.slack: is a secret"),
        ("notify: [{slak: xyz}]", "posetune.yaml:1: notify.0: must be a mapping with one of"),
        ("notify: [{webhook: 'https://me:xyz@h'}]", "notify.0.webhook: holds a secret"),
        ("notify: [{webhook: 'https://h?token=xyz'}]", "notify.0.webhook: holds a secret"),
        ("notify: [{slack: {env: 'https://xyz'}}]", "must be the name of an environment variable"),
        ("notify: [{webhook: 'http://h', events: [all]}]", "Input should be 'ended', 'failed'"),
        ("notify: [{webhook: 'http://h'}, {webhook: 'http://h'}]", "two destinations are called"),
        ("notfy: []", "posetune.yaml:1: notfy: no such key"),
        (
            "notify: [{email: [a@b], server: h, sender: p@b, user: u, password: {env: P}, "
            "security: none}]",
            "a password needs security",
        ),
        ("notify: []", "notify: no destination in"),
    ],
)
def test_what_is_wrong_is_one_line_without_the_secret(
    command: Command, tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "posetune.yaml").write_text(f"{content}\n")
    done = command("notify", "--test")

    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "xyz" not in done.stderr


def test_a_sweep_without_its_secrets_is_refused_before_anything_is_made(
    command: Command, tmp_path: Path, toy_sweep: Callable[..., Path]
) -> None:
    file = toy_sweep()
    file.write_text(file.read_text() + "notify: [{slack: {env: NOT_THERE}}]\n")
    done = command("sweep", file, "--name", "s")

    assert done.returncode == 2
    assert done.stderr.startswith("error: $NOT_THERE: is not set, and a destination of notify")
    assert not (tmp_path / "home" / "study.db").exists()


PAGE = "docs/notifications.md"


def blocks(page: str, language: str) -> Iterator[str]:
    for found, content in re.findall(r"^```([a-z]*)\n(.*?)^```$", page, re.M | re.S):
        if found == language:
            yield content


def test_the_page_does_what_it_says(
    command: Command,
    repository: Path,
    tmp_path: Path,
    environment: dict[str, str],
    one_best: str,
    http: HttpReceiver,
    smtp: SmtpReceiver,
    toy_sweep: Callable[..., Path],
) -> None:
    page = (repository / PAGE).read_text()
    http.start()
    smtp.start()
    (given,) = blocks(page, "yaml")
    local = given.replace("https://ops.example.org", http.url)
    local = local.replace(
        "smtp.example.org", f"127.0.0.1\n    port: {smtp.port}\n    security: none"
    )
    file = toy_sweep().rename(tmp_path / "sweep.yaml")
    file.write_text(file.read_text() + local)
    environment["SLACK_WEBHOOK"] = f"{http.url}/slack"

    ran = []
    shell = [line for block in blocks(page, "") for line in block.splitlines()]
    for line in sorted(shell, key=lambda line: line.startswith("posetune")):
        if not line.startswith("posetune"):
            subprocess.run(line, shell=True, check=True, env={**os.environ, **environment})
            continue
        address = tmp_path / ".config" / "posetune" / "discord.address"
        address.write_text(f"{http.url}/discord")
        address.chmod(0o600)
        done = command(*shlex.split(line)[1:])
        assert done.returncode == 0, (line, done.stderr)
        ran.append(line)
    assert ran == [
        "posetune notify --test sweep.yaml",
        "posetune notify",
        "posetune notify --flush",
    ]

    assert [request.path for request in http.taken] == [
        "/hooks/posetune",
        "/slack",
        "/discord",
        "/",
    ]
    assert len(smtp.taken) == 1
    (code,) = blocks(page, "python")
    names: dict[str, Any] = {}
    exec(code, names)
    secret = (tmp_path / ".config" / "posetune" / "webhook.secret").read_text().strip()
    signed = http.taken[0]
    assert names["is_genuine"](secret, signed.headers, signed.body)
    assert not names["is_genuine"](secret, signed.headers, signed.body + b" ")


def test_the_page_names_every_event(repository: Path) -> None:
    from posetune.spec.notify import EVENTS

    page = (repository / PAGE).read_text()
    assert [name for name in EVENTS if not re.search(rf"^\| .*`{name}`.* \|", page, re.M)] == []
    (given,) = blocks(page, "yaml")
    assert len(yaml.safe_load(given)["notify"]) == 4
