"""PostgreSQL is stopped while trials train: the driver waits for it, and no trial is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.postgres import PostgresServer
from support.simulated_driver import happened, outcome
from support.sweeps import Driver, Script

from posetune.study.events import AttemptBegun
from posetune.study.tables.database import open_database

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

AWAY = "trying again"
"""What the driver says while it waits."""


@pytest.mark.parametrize("is_patient", [True, False])
def test_a_sweep_whose_database_was_away_ends_as_an_undisturbed_one(
    is_patient: bool,
    stoppable_postgres_server: PostgresServer,
    undisturbed: str,
    compared_sweep: Callable[..., Path],
    ray_head: str,
    tmp_path: Path,
) -> None:
    server, script = stoppable_postgres_server, Script(tmp_path / "script", "go", "go", "wait")
    file = compared_sweep(script=str(script.file))
    command = ("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
    address = server.new_database()
    settings = {"POSETUNE_DATABASE": address}
    patience = {} if is_patient else {"POSETUNE_DATABASE_PATIENCE": "0.1"}

    driver = Driver(tmp_path, *command, **settings, **patience)
    driver.until(script.is_over)  # in the middle of an epoch
    server.stop()
    script.let_go()
    if is_patient:
        driver.until(lambda: AWAY in driver.output)
        server.start()
        assert driver.end() == 0, driver.output
    else:
        assert driver.end() == 1, driver.output
        assert "the study database is away" in driver.output
        assert "the same command again continues the sweep" in driver.output
        assert "Traceback" not in driver.output
        server.start()
        again = Driver(tmp_path, *command, **settings)
        assert again.end() == 0, again.output
    database = open_database(address, create=False)
    assert outcome(database) == undisturbed
    begun = happened(database, AttemptBegun)
    assert len(begun) == 3 if is_patient else len(begun) <= 4
    database.close()
