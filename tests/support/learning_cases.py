"""Reads what the tables of learning are made of, trainings and whole sweeps, and their figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["CASES_FILE", "ROOT", "Case", "keep_figures", "read_cases", "read_figures"]

ROOT = Path(__file__).parents[2]
_BENCHMARKS = ROOT / "tests" / "benchmarks"
CASES_FILE = _BENCHMARKS / "learning_cases.yaml"
_RESULTS = _BENCHMARKS / "results" / "learning"


class Case(BaseModel):
    """Describes runs that differ by their seed alone: a sweep file, a store, some fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    """What the tables call it."""
    level: str
    """The table that it stands in."""
    kind: Literal["training", "sweep", "ablation"] = "training"
    """Whether one trial is trained with the file's defaults, or the whole sweep is run and its best
    trial promoted, or it is run and every trial's value kept."""
    file: str
    """The sweep file in search_spaces/selfpose."""
    store: str
    """Folder of the store."""
    set: dict[str, Any] = {}
    """Fields that are changed, by dotted name: of the configuration, or of a sweep's file."""
    epochs: int | None = None
    """How many epochs are trained, where it is not as many as the file says."""
    shares: str | None = None
    """The home that trainings share, so that their stages are trained once, with seed 0. The
    processor seconds hold no stages then. Without it each seed has a home and stages of its own."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training and stages, or of a sweep's sampler and stages."""

    @model_validator(mode="after")
    def _sweeps_have_homes_of_their_own(self) -> Case:
        if self.kind != "training" and (self.shares is not None or self.epochs is not None):
            raise ValueError("a sweep takes neither `shares` nor `epochs`; give them to trainings")
        return self

    @property
    def source(self) -> str:
        """The sweep file, as the root of the repository sees it."""
        return f"search_spaces/selfpose/{self.file}"

    def command(self, seed: int) -> list[str]:
        """Return the words behind `posetune train` that train one seed."""
        own_stages = {} if self.shares else {"stage_seed": seed}
        words = self._words({**self.set, **own_stages}, seed)
        return words if self.epochs is None else [*words, "--epochs", str(self.epochs)]

    def stages_command(self) -> list[str]:
        """Return the words behind `posetune train` for the shared stages, and one step."""
        return [*self._words({**self.set, "steps_per_epoch": 1}, 0), "--epochs", "1"]

    def sweep_text(self, seed: int) -> str:
        """Return the text of the sweep file with one seed for sampler and stages."""
        document = yaml.safe_load((ROOT / self.source).read_text(encoding="utf-8"))
        for name, value in {**self.set, **_sweep_seeds(seed)}.items():
            *folders, field = name.split(".")
            place = document
            for folder in folders:
                place = place[folder]
            place[field] = value
        return yaml.safe_dump(document, sort_keys=False)

    def sweep_command(self, seed: int) -> str:
        """Return what `posetune sweep` runs for one seed, for people."""
        changes = {**self.set, **_sweep_seeds(seed)}
        said = ", ".join(f"{name}: {json.dumps(value)}" for name, value in changes.items())
        return f"posetune sweep {self.source} --store {self.store}, in the file {said}"

    def _words(self, changes: dict[str, Any], seed: int) -> list[str]:
        words = [self.source, "--store", self.store, "--seed", str(seed)]
        for name, value in changes.items():
            words += ["--set", f"{name}={json.dumps(value)}"]
        return words


def _sweep_seeds(seed: int) -> dict[str, int]:
    return {"sampler.seed": seed, "fixed.stage_seed": seed}


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
