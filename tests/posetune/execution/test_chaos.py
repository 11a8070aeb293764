"""Six kills at seeded moments, one of each kind, and nothing is lost; `make chaos` has 200."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.chaos import KINDS, run_round

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

SEED = 19
ENDS_WITHIN_S = {"raylet": 60.0, "gcs": 60.0}
"""Seconds within which the driver has to be out that has lost a process of its Ray."""


@pytest.mark.timeout(900)
def test_whatever_is_killed_nothing_is_lost(tmp_path: Path) -> None:
    kinds = list(KINDS)
    random.Random(SEED).shuffle(kinds)
    kills, faults = run_round(tmp_path / "round", SEED, kinds)
    assert faults == []
    assert [kill.kind for kill in kills] == kinds
    for kill in kills:
        if kill.kind in ENDS_WITHIN_S:
            assert kill.code is not None
            assert kill.noticed_s < ENDS_WITHIN_S[kill.kind]
