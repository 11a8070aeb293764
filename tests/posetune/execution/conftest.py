"""Real Ray clusters of several nodes, with token authentication; sweeps to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import run_here
from support.ray_nodes import Cluster, new_cluster
from support.simulated_driver import outcome
from support.sweeps import Driver, open_study

COMPARED = {"trials": 3, "max_epochs": 4, "concurrent": 1}
"""One trial at a time: so a sweep ends bit for bit as an undisturbed one does."""


@pytest.fixture(autouse=True)
def no_driver_outlives_its_test() -> Iterator[None]:
    """The slots of `ray_head` are free for the next test, however this one ends."""
    yield
    Driver.kill_all()


@pytest.fixture
def ray_cluster() -> Iterator[Cluster]:
    """A cluster without nodes at first."""
    with new_cluster() as cluster:
        yield cluster


@pytest.fixture
def compared_sweep(toy_sweep: Callable[..., Path]) -> Callable[..., Path]:
    """Write the file of a sweep that is compared with `undisturbed`; keywords are its fields."""

    def write(**fields: object) -> Path:
        return toy_sweep(**COMPARED, **fields)

    return write


@pytest.fixture(scope="session")
def outcomes() -> dict[str, str]:
    """What was found once in this process."""
    return {}


@pytest.fixture
def undisturbed(
    outcomes: dict[str, str], compared_sweep: Callable[..., Path], ray_head: str, tmp_path: Path
) -> str:
    """What `compared_sweep` comes to where nothing disturbs it."""
    if not outcomes:
        folder = tmp_path / "undisturbed"
        folder.mkdir()
        file = compared_sweep().rename(folder / "toy.yaml")
        words = ("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
        result = run_here(*words, folder=folder)
        assert result.returncode == 0, result.stderr
        with open_study(folder / "home") as database:
            outcomes["compared"] = outcome(database)
    return outcomes["compared"]
