"""A submission attaches to the job that it would have started, and to no other."""

from __future__ import annotations

import getpass
from dataclasses import replace
from pathlib import Path

import pytest

from posetune.api import BadInputError
from posetune.execution.jobs.parcel import Parcel
from posetune.execution.jobs.sweep_jobs import Shipment, _identity, _refuse_another
from posetune.home import Home

SOURCE = "objective: {metric: m, mode: min}\nbudget: {trials: 4}\n"


def shipment(home: Path, source: str = SOURCE, store: str = "/data/store") -> Shipment:
    return Shipment("s", Parcel(Home.resolve(home), source), store)


def test_the_same_command_attaches(tmp_path: Path) -> None:
    ours = shipment(tmp_path)
    _refuse_another("job-1", _identity(ours), ours)
    _refuse_another("job-1", {"posetune.sweep": "s"}, ours)  # of a posetune before this


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("person", f"its person is anna, this one's {getpass.getuser()}"),
        ("home", "its home is /shared/other, this one's "),
        ("store", "its store is /data/other, this one's /data/store"),
        ("file", "+budget: {trials: 4}"),
    ],
)
def test_another_job_of_the_name_is_refused_with_the_difference(
    tmp_path: Path, change: str, words: str
) -> None:
    ours = shipment(tmp_path)
    theirs = {
        "person": {**_identity(ours), "posetune.sweep.person": "anna"},
        "home": _identity(shipment(Path("/shared/other"))),
        "store": _identity(replace(ours, store="/data/other")),
        "file": _identity(shipment(tmp_path, SOURCE.replace("4", "9"))),
    }[change]
    with pytest.raises(BadInputError) as refused:
        _refuse_another("job-1", theirs, ours)
    assert "runs already as job job-1" in str(refused.value)
    assert words in str(refused.value)
    assert "another --name" in str(refused.value)
