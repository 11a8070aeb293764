"""Defines what a person asks to promote, and what was decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from posetune.promotion.judging.gate import Finalist, Verdict
from posetune.promotion.judging.validation import Measured

__all__ = ["UNGATED_ALIAS", "Promotion", "Request"]


UNGATED_ALIAS = "candidate"
"""The alias that moves without asking the gate."""


@dataclass(frozen=True)
class Request:
    """Says what a person asks to promote, and how."""

    sweep: str
    """Name of the sweep."""
    model: str
    """Name of the registered model, which is made if need be."""
    alias: str = UNGATED_ALIAS
    """Name of the alias that is to move."""
    store: str | None = None
    """Address of the sweep's data on this machine; None if it is where the sweep had it."""
    force: str | None = None
    """Reason why the alias moves without asking the gate; None asks the gate."""
    finalists: Sequence[Finalist] = ()
    """Trials that were trained again, the best first, which is the candidate. If there are none,
    the candidate is the best of the trials that reached the last rung that any has reached."""
    trial: int | None = None
    """Number of the trial to promote instead; None takes the candidate."""
    epoch: int | None = None
    """Epoch to promote; None takes the best or the last one, whichever is better on the whole
    validation split."""
    out: Path | None = None
    """Folder for the tables and pictures of the candidate's evaluation on the test split; None
    writes none. Where the test split is not opened, nothing is written."""
    by: str = ""
    """Who asks, as person@host; empty where that is not known."""
    approvals: int = 0
    """How many other persons have to approve it before the alias moves."""
    cost_per_gpu_hour: float | None = None
    """What a GPU costs for an hour, for the model card; None where nobody says it."""
    currency: str = ""
    """The currency of that cost."""


@dataclass(frozen=True)
class Promotion:
    """Describes a version in the registry, where it comes from, and what was decided."""

    model: str
    """Name of the registered model."""
    version: int
    """Number of the version."""
    alias: str
    """Name of the alias that was asked for."""
    sweep: str
    """Name of the sweep."""
    trial: int
    """Number of the trial."""
    run_id: str
    """Id of the trial's run in MLflow."""
    epoch: int
    """Epoch of the trial that the version is of."""
    value: float | None
    """Value of the objective that the trial reported at this epoch."""
    whole_value: float | None
    """Value of the objective on the whole validation split; None if it could not be measured."""
    data_digest: str
    """Digest of the sweep's data."""
    uri: str
    """Address for `mlflow.pyfunc.load_model`. It names the alias, or the version's number if the
    gate refused the alias."""
    gate: str = "ungated"
    """What became of the alias: it moved `ungated` because it has no gate, the gate `passed` or
    `refused` the version, it was `forced`, or it was `kept` because it pointed there already."""
    reason: str = ""
    """Why it was decided so, in words."""
    replaced: int | None = None
    """Number of the version that the alias pointed at before; None if it is new or did not move."""
    test_looks: int | None = None
    """How often this test split was opened, this time included; None if it was not opened."""
    verdict: Verdict | None = None
    """The gate's numbers; None if the gate was not asked."""
    by: str = ""
    """Who promoted it, as person@host; empty where that is not known."""
    approvals: int = 0
    """How many other persons have to approve it; until then the alias stays where it is."""
    note: str = ""
    """What a person may not expect of the choice of the trial, in words."""
    finalists: Sequence[Finalist] = field(default=())
    """Trials that were trained again to choose the candidate."""
    measured: Sequence[Measured] = field(default=())
    """Epochs of the candidate and of the finalists that were measured on the whole validation
    split."""
