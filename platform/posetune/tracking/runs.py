"""Finds or makes the runs of one sweep in MLflow, and writes only what they lack.

A run is recognised by two tags, the sweep's identity and the trial's number; the sweep's own run
has no number. MLflow itself tells what was logged to a run that is found.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from posetune.tracking.content import SECONDS_METRIC, SWEEP_TAG, TRIAL_TAG
from posetune.tracking.server.connection import make_once, patiently

__all__ = ["HeldRun", "SweepRuns"]

# MLflow takes 1,000 metrics, 100 params and 100 tags in one call at most, and 1,000 in all.
_METRICS = 800
_ENDS = ("complete", "pruned", "failed", "stopped")
"""What the tag `posetune.state` of a trial that has ended says."""
_PARAMS = 100
_PAGE = 1000
"""Number of runs in one answer of a search."""
_DATASET_DIGEST_CHARACTERS = 36


@dataclass
class HeldRun:
    """Holds what MLflow is known to have of one run."""

    run_id: str
    """Id of the run."""
    status: str
    """MLflow's status of the run."""
    tags: dict[str, str]
    """Values of the run's tags, by name."""
    params: set[str] = field(default_factory=set)
    """Names of the run's params."""
    metrics: set[str] = field(default_factory=set)
    """Names of the run's metrics."""
    step: int = 0
    """Last step whose metrics are logged."""
    has_data: bool = False
    """Whether the run's dataset is logged."""


class SweepRuns:
    """Finds, makes and writes the runs of one sweep.

    The key of a run is its trial's number; the key of the sweep's own run is None.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        *,
        identity: str,
        recorded: Mapping[int | None, str],
    ) -> None:
        """Find the runs that exist.

        Args:
            client: of the tracking store.
            experiment_id: id of the experiment that the runs are in.
            identity: the sweep's identity, see `content.sweep_identity`.
            recorded: id of the run of each key that the study knows.
        """
        self.client = client
        self.experiment_id = experiment_id
        self.identity = identity
        self.recorded = recorded
        self.done: Counter[str] = Counter()
        """Counts what was done: runs `created`, metric `values` logged, `uploads` of files."""
        self.is_fresh = True
        """Whether no other process can have made a run since the runs were found."""
        self.held = self._find(f"tags.`{SWEEP_TAG}` = '{identity}'")

    def open(
        self, key: int | None, name: str, *, started: float, parent: HeldRun | None = None
    ) -> HeldRun:
        """Return the run of a key, which is made if there is none yet.

        Args:
            key: the trial's number, or None for the sweep's own run.
            name: name of a new run.
            started: beginning of a new run, seconds since the epoch.
            parent: the run below which MLflow shows a new run.
        """
        if key in self.held:
            return self.held[key]
        tags = {SWEEP_TAG: self.identity}
        if key is not None:
            tags[TRIAL_TAG] = str(key)
        same = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
        if parent is not None:
            tags["mlflow.parentRunId"] = parent.run_id

        def find() -> HeldRun | None:
            return self._find(same).get(key)

        def make() -> HeldRun:
            run = self.client.create_run(
                self.experiment_id, start_time=int(started * 1000), tags=tags, run_name=name
            )
            self.done["created"] += 1
            return HeldRun(run.info.run_id, run.info.status, dict(run.data.tags))

        found = None if self.is_fresh else find()
        self.held[key] = found or make_once(make, find)
        return self.held[key]

    def forget(self, key: int) -> None:
        """Forget a run that will not change any more."""
        del self.held[key]

    def log(
        self,
        held: HeldRun,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log what is new, in as few calls as MLflow's limits allow, the tags in the last one.

        Args:
            held: the run.
            metrics: metrics that were not logged before, by ascending step.
            params: all params of the run; those that it has are left as they are.
            tags: all tags that may have changed.
        """
        new_params = [Param(k, v) for k, v in (params or {}).items() if k not in held.params]
        new_tags = [RunTag(k, v) for k, v in (tags or {}).items() if held.tags.get(k) != v]
        if not (metrics or new_params or new_tags):
            return
        calls = max(1, math.ceil(len(metrics) / _METRICS), math.ceil(len(new_params) / _PARAMS))
        for i in range(calls):
            batch = {
                "metrics": metrics[i * _METRICS : (i + 1) * _METRICS],
                "params": new_params[i * _PARAMS : (i + 1) * _PARAMS],
                "tags": new_tags if i == calls - 1 else [],
            }
            patiently(lambda b=batch: self.client.log_batch(held.run_id, **b))  # type: ignore[misc]
        held.params |= {param.key for param in new_params}
        held.metrics |= {metric.key for metric in metrics}
        held.tags |= {tag.key: tag.value for tag in new_tags}
        held.step = max([held.step, *(metric.step for metric in metrics)])
        self.done["values"] += len(metrics)

    def tagged(self, name: str, value: str) -> dict[int, str]:
        """Return the runs of trials whose tag has a value, by the trial's number."""
        query = f"tags.`{SWEEP_TAG}` = '{self.identity}' and tags.`{name}` = '{value}'"
        return {
            int(run.data.tags[TRIAL_TAG]): run.info.run_id
            for run in self._search(query)
            if TRIAL_TAG in run.data.tags
        }

    def drop_tags(self, held: HeldRun, prefix: str, *, but: Container[str]) -> None:
        """Take tags away that do not hold any more.

        Args:
            held: the run.
            prefix: how the names of such tags begin.
            but: names of the tags that still hold.
        """
        for name in [n for n in held.tags if n.startswith(prefix) and n not in but]:
            try:
                patiently(lambda name=name: self.client.delete_tag(held.run_id, name))  # type: ignore[misc]
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise  # else another shipper has taken it away
            del held.tags[name]

    def log_data(self, held: HeldRun, store: str, digest: str) -> None:
        """Log the store as the run's dataset, once.

        Args:
            held: the run.
            store: address of the store.
            digest: digest of the store.
        """
        if held.has_data:
            return
        data = Dataset(
            name=Path(store).name or store,
            digest=digest[:_DATASET_DIGEST_CHARACTERS],
            source_type="local",
            source=json.dumps({"uri": store}),
        )
        inputs = [DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
        patiently(lambda: self.client.log_inputs(held.run_id, inputs))
        held.has_data = True

    def set_status(self, held: HeldRun, status: str, ended: float | None) -> None:
        """Set the run's status.

        Args:
            held: the run.
            status: MLflow's status, e.g. FINISHED.
            ended: end of the run, seconds since the epoch; None takes the present time.
        """
        if held.status == status:
            return
        run_id, end = held.run_id, None if ended is None else int(ended * 1000)
        if status == "RUNNING":
            patiently(lambda: self.client.update_run(run_id, status))
        else:
            patiently(lambda: self.client.set_terminated(run_id, status, end))
        held.status = status

    def _find(self, query: str) -> dict[int | None, HeldRun]:
        found: dict[int | None, list[Run]] = {}
        for run in self._search(query):
            tag = run.data.tags.get(TRIAL_TAG)
            found.setdefault(None if tag is None else int(tag), []).append(run)
        held = {}
        for key, runs in found.items():
            # There are two runs of a key if the answer to a request came too late and the request
            # was repeated. The run that the study knows is kept.
            runs.sort(key=lambda run: (run.info.run_id != self.recorded.get(key), run.info.run_id))
            for surplus in runs[1:]:
                run_id = surplus.info.run_id
                patiently(lambda r=run_id: self.client.delete_run(r))  # type: ignore[misc]
            held[key] = self._learn(key, runs[0])
        return held

    def _learn(self, number: int | None, run: Run) -> HeldRun:
        tags = dict(run.data.tags)
        if tags.get("posetune.state") in _ENDS and number is not None:
            step = int(tags["posetune.epochs"])  # an end's tags are logged after all metrics
        elif number is not None:
            step = self._last_step(run, [SECONDS_METRIC])
        else:
            step = self._last_step(run, [m for m in run.data.metrics if m.startswith("best/")])
        return HeldRun(
            run_id=run.info.run_id,
            status=run.info.status,
            tags=tags,
            params=set(run.data.params),
            metrics=set(run.data.metrics),
            step=step,
            has_data=bool(run.inputs and run.inputs.dataset_inputs),
        )

    def _last_step(self, run: Run, names: Iterable[str]) -> int:
        steps = [0]
        for name in names:
            history = patiently(
                lambda n=name: self.client.get_metric_history(run.info.run_id, n)  # type: ignore[misc]
            )
            steps += [metric.step for metric in history]
        return max(steps)

    def _search(self, query: str) -> Iterator[Run]:
        token = None
        while True:
            page = patiently(
                lambda t=token: self.client.search_runs(  # type: ignore[misc]
                    [self.experiment_id], query, max_results=_PAGE, page_token=t
                )
            )
            yield from page
            token = page.token
            if not token:
                return
