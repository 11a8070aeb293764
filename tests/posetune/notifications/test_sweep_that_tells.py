"""A real sweep on Ray whose servers are away tells everything later, and its secrets to nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import run_here
from support.receivers import HttpReceiver, SmtpReceiver

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


def test_no_message_is_lost_and_no_secret_is_found_anywhere(
    tmp_path: Path,
    migrated_home: Path,
    toy_sweep: Callable[..., Path],
    ray_head: str,
    http: HttpReceiver,
    smtp: SmtpReceiver,
    secret_file: Path,
    planted: str,
) -> None:
    file = toy_sweep(trials=3, max_epochs=2)
    section = f"""\
notify:
  - webhook: {http.url}
    secret: {{file: {secret_file}}}
    events: [ended, new_best]
  - slack: {{env: CHANNEL}}
  - email: [me@example.org]
    server: 127.0.0.1
    port: {smtp.port}
    security: none
    sender: posetune@example.org
    user: me
    password: {{file: {secret_file}}}
"""
    file.write_text(file.read_text() + section)
    environment = {"CHANNEL": f"{http.url}/{planted}"}
    output = ""

    def posetune(*words: object, code: int = 0) -> str:
        nonlocal output
        done = run_here(*words, folder=tmp_path, environment=environment)
        assert done.returncode == code, done.stderr
        output += done.stdout + done.stderr
        return done.stdout

    posetune("sweep", file, "--name", "s", "--address", ray_head)
    assert "send them: posetune notify --flush" in output
    waiting = json.loads(posetune("show", "s", "--json"))["messages_waiting"]
    assert waiting["slack $CHANNEL"]["count"] == waiting["email me@example.org"]["count"] == 1
    assert waiting[f"webhook {http.url}"]["count"] > 1
    posetune("notify", "--flush", code=1)
    posetune("track", "s")
    posetune("logs", "s")
    posetune("report", "s", "--out", tmp_path / "report.html")

    http.start()
    smtp.start()
    posetune("notify", "--flush")
    assert "COMPLETE" in smtp.taken[0].get_content()
    types = [r.content.get("type") for r in http.taken]
    assert types.count("ended") == 1
    assert types.count("new_best") == waiting[f"webhook {http.url}"]["count"] - 1
    assert types.count(None) == 1

    # The section may change at any time: the same command with another one is not refused.
    file.write_text(file.read_text().replace("events: [ended, new_best]", "events: [failed]"))
    posetune("sweep", file, "--name", "s", "--address", ray_head)

    assert planted not in output
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 20
    assert [f for f in files if planted.encode() in f.read_bytes()] == [secret_file]
