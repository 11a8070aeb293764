"""The studies, storages and backups that are tested, of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.worlds import Kind, World

Worlds = Callable[..., World]


@pytest.fixture(
    params=["sqlite and folders", pytest.param("postgres and s3", marks=pytest.mark.long)]
)
def kind(request: pytest.FixtureRequest) -> Kind:
    if request.param == "sqlite and folders":
        return Kind([])
    fixtures = ["postgres_database", "other_postgres_database"]
    return Kind(list(map(request.getfixturevalue, fixtures)), request.getfixturevalue("bucket"))


@pytest.fixture
def worlds(kind: Kind, tmp_path: Path, toy_store: Path) -> Iterator[Worlds]:
    """Make worlds of a name."""
    made: list[World] = []

    def make(name: str, **given: str) -> World:
        (tmp_path / name).mkdir()
        own = f"sqlite:///{tmp_path / name / 'study.db'}"
        address = kind.addresses.pop() if kind.addresses else own
        storage = f"{kind.bucket}/{name}" if kind.bucket else ""
        made.append(World(tmp_path / name, address, toy_store, **{"storage": storage, **given}))
        return made[-1]

    yield make
    for world in made:
        world.database.close()


@pytest.fixture
def place(kind: Kind, tmp_path: Path) -> str:
    """The address of a backup."""
    return f"{kind.bucket}/backup" if kind.bucket else str(tmp_path / "backup")


@pytest.fixture
def undisturbed(tmp_path: Path, toy_store: Path) -> list[Any]:
    """What the sweep `first` comes to."""
    (tmp_path / "undisturbed").mkdir()
    address = f"sqlite:///{tmp_path / 'undisturbed' / 'study.db'}"
    world = World(tmp_path / "undisturbed", address, toy_store)
    world.sweep("first")
    outcome = world.outcome("first")
    world.database.close()
    return outcome
