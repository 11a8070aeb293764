"""Of a worker that is gone the study keeps Ray's cause, whatever Ray says behind it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError

from posetune.execution.tune_adapter import read_death

pytestmark = [pytest.mark.ray]

CAUSE = "The actor is dead because its placement group was removed."


@pytest.mark.parametrize("never_started", [False, True])
@pytest.mark.parametrize("before", [[], ["another cause"]])
def test_of_the_last_death_the_cause_is_said(
    tmp_path: Path, before: list[str], never_started: bool
) -> None:
    file = tmp_path / "error.txt"
    with file.open("w") as written:  # as Tune does it
        for number, cause in enumerate([*before, CAUSE], start=1):
            context = ActorDiedErrorContext(
                actor_id=bytes(16), error_message=cause, never_started=never_started
            )
            error = ActorDiedError(context)
            written.write(f"Failure # {number} (occurred at 2026-11-30)\n{error}\n")
    trial: Any = SimpleNamespace(error_file=str(file))
    assert read_death(trial) == CAUSE


def test_a_worker_of_which_nothing_is_known_has_no_message(tmp_path: Path) -> None:
    trial: Any = SimpleNamespace(error_file=str(tmp_path / "none"))
    assert read_death(trial) == "no message"
