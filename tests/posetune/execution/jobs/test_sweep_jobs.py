"""`posetune submit` against a real head with token authentication."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sweeps import Script

from posetune.home import Home
from posetune.provenance import collect, this_person
from posetune.study.reading import read_sweep
from posetune.study.tables.database import open_database

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


def test_a_sweep_is_submitted_once_followed_found_and_shown_through_the_head(
    ray_cluster: Any, toy_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    cluster = ray_cluster
    cluster.start_head(cpus=2)
    at = ("--address", cluster.address)
    script = Script(tmp_path / "script", "wait")  # until MLflow has the sweep, which takes seconds
    file = toy_sweep(trials=5, script=str(script.file))
    arguments = ("submit", file, *at, "--name", "sent")
    first = cluster.posetune(*arguments)
    assert first.returncode == 0, first.stderr
    assert f"Ray: {cluster.address}/#/jobs/posetune-sent-1" in first.stderr
    assert "MLflow: http://127.0.0.1:5000/#/experiments/" in first.stderr
    script.let_go()
    again = cluster.posetune(*arguments, "--follow")
    assert again.returncode == 0, again.stderr
    assert "5 of 5 trials" in again.stderr

    noted = cluster.posetune("note", "sent", "through the head", *at, "--json")
    assert json.loads(noted.stdout)["by"] == this_person(), "who asks, not the head's account"
    elsewhere = json.loads(cluster.posetune("show", "sent", *at, "--json").stdout)
    here = json.loads(cluster.posetune("show", "sent", "--json").stdout)
    assert elsewhere == here
    assert (here["state"], len(here["trials"])) == ("COMPLETE", 5)
    log = cluster.posetune("logs", "sent", "--trial", 0, *at)
    assert (log.returncode, "epoch 1: " in log.stderr) == (0, True)
    stopped = cluster.posetune("stop", "sent", *at)
    assert stopped.returncode == 2
    assert "has no driver to stop; it is COMPLETE" in stopped.stderr

    database = open_database(Home.resolve(cluster.folder / "home").database)
    provenance = read_sweep(database, "sent").provenance
    assert provenance["commit"] == collect()["commit"] != "unknown"

    refused = cluster.posetune(*arguments, RAY_AUTH_TOKEN="w" * 32)
    assert refused.returncode == 2
    assert "refuses the token" in refused.stderr
    assert "Traceback" not in refused.stderr
