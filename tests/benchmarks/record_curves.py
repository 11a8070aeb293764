"""Trains every point of a search space of choices once, in full, and keeps the learning curves.

    python tests/benchmarks/record_curves.py search_spaces/selfpose/lifting_grid.yaml \
        --store data/lifting --work runs/curves --out tests/benchmarks/curves/lifting.json

One training after another, each with a seed of its own, from `--first-seed` on; stages are shared.
The file is written after each, and the same command goes on where it ended.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from posetune.api import Trainable, TrialContext, TrialFailedError
from posetune.provenance import collect
from posetune.spec.loading import configure, load_sweep
from posetune.spec.parameters import Choice, Scalar
from posetune.spec.sweep import SweepSpec
from posetune.stages.cache import StageCache, stage_key
from posetune.storage import open_storage
from posetune.storage.digest import digest_json

DIGITS = 3
"""Of a value: a thousandth of a millimetre."""


@dataclass(frozen=True)
class Recorder:
    """What every training has in common."""

    spec: SweepSpec
    trainable: type[Trainable]
    store: Path
    store_digest: str
    work: Path

    def grid(self) -> list[dict[str, Scalar]]:
        """Every point, in a fixed order in which any beginning is spread over the whole grid."""
        choices = self.spec.search.values()
        assert all(isinstance(choice, Choice) for choice in choices), "a range has no last point"
        points = list(itertools.product(*(choice.corners for choice in choices)))
        order = np.random.default_rng(0).permutation(len(points))
        return [dict(zip(self.spec.search, points[i], strict=True)) for i in order]

    def train(self, params: dict[str, Scalar], seed: int) -> dict[str, Any]:
        """Train a point; return its values by epoch and what it took."""
        config = configure(self.trainable.config_model, self.spec.fixed, params)
        products = self.products(config)
        context = TrialContext(store=self.store, seed=seed, work=self.work, products=products)
        started, values = time.process_time(), []
        trial, failed = self.trainable(), ""
        trial.start(config, context)
        try:
            for _ in range(self.spec.pruner.max_epochs):
                values.append(round(trial.epoch()[self.spec.objective.metric], DIGITS))
        except TrialFailedError as error:
            failed = str(error)
        processor_s = round(time.process_time() - started, 2)
        return {
            "params": params,
            "seed": seed,
            "values": values,
            "failed": failed,
            "processor_s": processor_s,
        }

    def products(self, config: BaseModel) -> dict[str, Path]:
        """Obtain the stages that a configuration needs."""
        stages = self.trainable.stages(config, self.store)
        wanted = [(stage, stage_key(stage, self.store_digest)) for stage in stages]
        obtained = StageCache(open_storage(self.work)).obtain_all(wanted)
        return {name: product.folder for name, product in obtained.items()}


def main() -> None:
    """Record what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    for name in ("store", "work", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first training")
    given = parser.parse_args()
    spec, trainable, _ = load_sweep(given.file)
    digest = trainable.describe_store(given.store).digest
    given.work.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(spec, trainable, given.store, digest, given.work)
    points = recorder.grid()
    identity = digest_json([spec.fixed, points, digest])
    where = collect()
    found: dict[str, Any] = {
        "what": f"{spec.objective.metric} after each epoch",
        "identity": identity,
        "space": {name: list(choice.corners) for name, choice in spec.search.items()},
        "fixed": spec.fixed,
        "first_seed": given.first_seed,
        "store_digest": digest,
        **{key: where[key] for key in ("commit", "dirty", "processor", "versions")},
        "trainings": [],
    }
    if given.out.exists():
        found = json.loads(given.out.read_text(encoding="utf-8"))
        if (found["identity"], found.get("first_seed", 0)) != (identity, given.first_seed):
            parser.error(f"{given.out} holds curves of other trainings; give another --out")
    for done in range(len(found["trainings"]), len(points)):
        training = recorder.train(points[done], given.first_seed + done)
        found["trainings"].append(training)
        write(given.out, found)
        last = training["failed"] or f"{training['values'][-1]:.1f}"
        print(f"{done + 1}/{len(points)} {training['processor_s']:.0f} s {last}", flush=True)


def write(out: Path, found: dict[str, Any]) -> None:
    """Write the curves, a training per line."""
    head = json.dumps({key: value for key, value in found.items() if key != "trainings"}, indent=1)
    lines = ",\n".join(json.dumps(training) for training in found["trainings"])
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(f'{head[:-2]},\n "trainings": [\n{lines}\n]}}\n', encoding="utf-8")
    partial.replace(out)


if __name__ == "__main__":
    main()
