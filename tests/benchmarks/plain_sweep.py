"""The rival of `bench_sweep`: a sweep as one writes it with Tune, Optuna and MLflow alone.

    python tests/benchmarks/plain_sweep.py FILE --store STORE --trials N --slots 2 --out FOLDER

Trainable, space, ASHA's settings and trials are those of a sweep file. Each trial is a process of
Tune's and does its own pre-training; MLflow hears of every report through its callback. The last
line printed is JSON: epochs trained, and the best value.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from posetune.api import StageWork, TrialContext, silent
from posetune.spec.loading import configure, default_params, load_sweep
from posetune.spec.parameters import Choice
from posetune.spec.sweep import SweepSpec


class PlainTrial(tune.Trainable):
    """One trial: its stages, then an epoch at each step."""

    def setup(self, config: dict[str, Any]) -> None:
        spec, trainable, _ = load_sweep(Path(os.environ["SWEEP_FILE"]))
        store = Path(os.environ["SWEEP_STORE"])
        configured = configure(trainable.config_model, spec.fixed, config)
        self.work = tempfile.TemporaryDirectory()
        work, products = Path(self.work.name), {}
        for stage in trainable.stages(configured, store):
            products[stage.name] = work / stage.name
            products[stage.name].mkdir()
            stage.build(products[stage.name], silent, StageWork())
        self.model = trainable()
        self.model.start(
            configured, TrialContext(store=store, seed=0, work=work, products=products)
        )

    def step(self) -> dict[str, float]:
        return dict(self.model.epoch())

    def save_checkpoint(self, folder: str) -> None:
        self.model.save(Path(folder))

    def load_checkpoint(self, folder: str) -> None:
        self.model.load(Path(folder))

    def cleanup(self) -> None:
        self.work.cleanup()


def space(spec: SweepSpec) -> dict[str, optuna.distributions.BaseDistribution]:
    """The search space in Optuna's terms."""
    found: dict[str, optuna.distributions.BaseDistribution] = {}
    for name, parameter in spec.search.items():
        if isinstance(parameter, Choice):
            found[name] = optuna.distributions.CategoricalDistribution(parameter.values)
        else:
            low, high = parameter.bounds
            found[name] = optuna.distributions.FloatDistribution(low, high, log=parameter.log)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    for name, kind in (("store", Path), ("out", Path), ("trials", int), ("slots", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    given = parser.parse_args()
    os.environ["SWEEP_FILE"] = str(given.file.absolute())
    os.environ["SWEEP_STORE"] = str(given.store.absolute())
    spec, trainable, _ = load_sweep(given.file)
    metric, mode, pruner = spec.objective.metric, spec.objective.mode, spec.pruner
    ray.init(num_cpus=given.slots, include_dashboard=False, log_to_driver=False)
    results = tune.Tuner(
        tune.with_resources(PlainTrial, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            num_samples=given.trials,
            max_concurrent_trials=given.slots,
            search_alg=OptunaSearch(
                space=space(spec),
                metric=metric,
                mode=mode,
                sampler=optuna.samplers.TPESampler(seed=spec.sampler.seed),
                points_to_evaluate=[default_params(spec, trainable.config_model)],
            ),
            scheduler=ASHAScheduler(
                metric=metric,
                mode=mode,
                max_t=pruner.max_epochs,
                grace_period=pruner.grace_epochs,
                reduction_factor=pruner.reduction_factor,
            ),
        ),
        run_config=tune.RunConfig(
            storage_path=str(given.out.absolute()),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=2),
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{given.out.absolute()}/mlflow.db",
                    experiment_name="plain",
                )
            ],
            verbose=0,
        ),
    ).fit()
    epochs = [len(result.metrics_dataframe) for result in results if result.error is None]
    best = results.get_dataframe(filter_metric=metric, filter_mode=mode)[metric]
    print(json.dumps({"trials": len(epochs), "epochs": sum(epochs), "best": best.agg(mode)}))


if __name__ == "__main__":
    main()
