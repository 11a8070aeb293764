"""Reads which trainings the tables of learning on real motion are made of, and their figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

__all__ = ["CASES_FILE", "Case", "keep_figures", "read_cases", "read_figures"]

_BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CASES_FILE = _BENCHMARKS / "learning_cases.yaml"
_RESULTS = _BENCHMARKS / "results" / "learning"


class Case(BaseModel):
    """Describes trainings that differ by their seed alone: a sweep file, a store, some fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    """What the tables call it."""
    level: str
    """The table that it stands in."""
    file: str
    """The sweep file in search_spaces/selfpose, whose defaults are trained."""
    store: str
    """Folder of the store."""
    set: dict[str, Any] = {}
    """Fields that are changed, by dotted name."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training and stages."""

    def command(self, seed: int) -> list[str]:
        """Return the words behind `posetune train` that train one seed."""
        changes = {**self.set, "stage_seed": seed}
        words = [f"search_spaces/selfpose/{self.file}", "--store", self.store, "--seed", str(seed)]
        for name, value in changes.items():
            words += ["--set", f"{name}={json.dumps(value)}"]
        return words


def read_cases() -> dict[str, Case]:
    """Return all cases by name."""
    given = yaml.safe_load(CASES_FILE.read_text(encoding="utf-8"))
    return {name: Case.model_validate(fields) for name, fields in given.items()}


def read_figures(name: str) -> dict[str, dict[str, Any]]:
    """Return what was measured of a case, by seed; nothing if it was not."""
    file = _RESULTS / f"{name}.json"
    if not file.exists():
        return {}
    return dict(sorted(json.loads(file.read_text(encoding="utf-8")).items()))


def keep_figures(name: str, seed: int, figures: dict[str, Any]) -> dict[str, Any]:
    """Keep what was measured of one seed of a case beside its others, and return it."""
    _RESULTS.mkdir(exist_ok=True)
    kept = {**read_figures(name), str(seed): figures}
    new = _RESULTS / f".{name}.partial"
    new.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    new.replace(_RESULTS / f"{name}.json")
    return figures
