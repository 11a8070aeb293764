"""A resting sweep that the tests of steering act on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.steered import Steered


@pytest.fixture(params=["sqlite", "postgres"])
def steered(request: pytest.FixtureRequest, tmp_path: Path, toy_store: Path) -> Iterator[Steered]:
    """A resting sweep: trial 0 is complete, trial 1 has two epochs."""
    address = f"sqlite:///{tmp_path / 'study.db'}"
    if request.param == "postgres":
        address = request.getfixturevalue("postgres_database")
    steered = Steered(tmp_path, toy_store, address)
    sweep = steered.drive()
    sweep.train()
    sweep.train(epochs=2)
    sweep.run.lease.release()
    yield steered
    steered.database.close()
