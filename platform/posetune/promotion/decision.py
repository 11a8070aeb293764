"""Decides whether a sweep's best trial takes an alias, and takes an alias back.

`promote` registers the trial (`registry`), and for every alias but `candidate` asks the gate: the
test split is opened once, for the candidate and the present champion, and `gate.judge` says who is
better. The decision, with its numbers, is written on the version and on the sweep's run before the
alias moves. `roll_back` moves an alias to the version that it pointed at before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient

from posetune.api import BadInputError, Progress, Trainable, silent
from posetune.home import Home
from posetune.promotion.gate import Finalist, Verdict, judge, markdown
from posetune.promotion.models import Version, fetch_model, find_alias, find_number
from posetune.promotion.registry import Candidate, check_names, register
from posetune.promotion.test_looks import record_opening
from posetune.storage import open_folder
from posetune.study import journal
from posetune.study.checkpoints import verified_model
from posetune.study.database import Database
from posetune.study.view import SweepView, TrialView, read_sweep
from posetune.tracking.artifacts import upload
from posetune.tracking.connection import (
    connect,
    exclusive,
    mlflow_faults_explained,
    patiently,
    public_address,
)
from posetune.tracking.content import best_complete
from posetune.tracking.naming import tag_value
from posetune.tracking.projection import ship

__all__ = ["UNGATED_ALIAS", "Promotion", "Request", "promote", "roll_back"]

UNGATED_ALIAS = "candidate"


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    sweep: str
    model: str
    """The registered model, made if need be."""
    alias: str = UNGATED_ALIAS
    store: str | None = None
    """Where the sweep's data is on this machine, if not where it was."""
    force: str | None = None
    """Why the alias moves without asking the gate."""
    finalists: Sequence[Finalist] = ()
    """Best first; without any the best complete trial on validation is the candidate."""


@dataclass(frozen=True)
class Promotion:
    """A version in the registry, where it comes from, and what was decided."""

    model: str
    version: int
    alias: str
    sweep: str
    trial: int
    run_id: str
    value: float
    """The objective on validation."""
    data_digest: str
    uri: str
    """For `mlflow.pyfunc.load_model`: by the alias, or by its number where it was refused."""
    gate: str = "ungated"
    """`ungated`, `passed`, `refused`, `forced`, or `kept`: it was the champion already."""
    reason: str = ""
    replaced: int | None = None
    """The version that the alias pointed at before."""
    openings: int | None = None
    """How often this test split was opened, this time included."""
    verdict: Verdict | None = None
    finalists: Sequence[Finalist] = field(default=())


def promote(
    database: Database,
    home: Home,
    request: Request,
    *,
    trainable: type[Trainable],
    progress: Progress = silent,
) -> Promotion:
    """Register the candidate of a sweep, and point an alias at it if the gate lets it pass.

    The same trial again keeps its version. `candidate` is not gated.

    Args:
        database: the study.
        home: where storage and tracking are.
        request: see `Request`.
        trainable: the class that the sweep file names.
        progress: is told how far the evaluations are.

    Raises:
        BadInputError: no such sweep, no complete trial, a model is missing or damaged, a name that
            cannot be one, other test data, the champion moved meanwhile, or MLflow cannot be
            reached.
    """
    check_names(request.model, request.alias)
    view = read_sweep(database, request.sweep)
    trial = _choose(view, request.finalists)
    with (
        verified_model(home.storage, view, trial) as (folder, digest),
        mlflow_faults_explained(home),
    ):
        report = ship(database, view.name, home)
        client = connect(home)
        with database.reading() as connection:
            runs = journal.read_tracked(connection, view.id, public_address(home.tracking))
        run_id = runs[trial.number]
        candidate = Candidate(view, trial, folder, digest, report.experiment_id, run_id)
        with exclusive(home.folder, f"registry-{request.model}"):
            version = register(client, request.model, candidate, trainable=trainable)
            champion = find_alias(client, request.model, request.alias)
        registry = _Registry(client, home, request, champion)
        if _number(champion) == version.number or request.alias == UNGATED_ALIAS:
            return _without_gate(candidate, version, registry)
        tables: Mapping[str, str] = {}
        if request.force is None:
            court = _Court(database, registry, trainable, progress)
            decision, tables = court.decide(candidate, version)
        else:
            decided = {"gate": "forced", "reason": request.force, "replaced": _number(champion)}
            decision = _promotion(candidate, version, request, **decided)
        registry.record(candidate, version, decision, tables, parent=runs[None])
    return decision


def roll_back(home: Home, *, model: str, alias: str, to: int | None = None) -> tuple[int, int]:
    """Point an alias at the version it pointed at before, or at a named one; return both numbers.

    Raises:
        BadInputError: there is no such alias or version, nothing came before, or MLflow cannot be
            reached.
    """
    check_names(model, alias)
    with mlflow_faults_explained(home), exclusive(home.folder, f"registry-{model}"):
        client = connect(home)
        present = find_alias(client, model, alias)
        if present is None:
            raise BadInputError(f"models:/{model}@{alias}: no such model or alias")
        before = str(to) if to else present.tags.get(_replaced_tag(alias))
        if before is None:
            raise BadInputError(
                f"models:/{model}@{alias}: version {present.number} replaced none; name a version "
                "with --to"
            )
        if find_number(client, model, before) is None:
            raise BadInputError(f"models:/{model}/{before}: no such version; name one with --to")
        patiently(lambda: client.set_registered_model_alias(model, alias, before))
        note = f"{alias} went back to version {before}"
        number = str(present.number)
        patiently(lambda: client.set_model_version_tag(model, number, "posetune.rolled_back", note))
    return present.number, int(before)


def _choose(view: SweepView, finalists: Sequence[Finalist]) -> TrialView:
    """Return the trial to promote."""
    if finalists:
        return next(t for t in view.trials if t.number == finalists[0].trial)
    trial = best_complete(view)
    if trial is None:
        raise BadInputError(
            f"sweep {view.name}: has no complete trial to promote ({len(view.trials)} trials, the "
            f"sweep is {view.state}); continue it with the command that started it"
        )
    return trial


def _without_gate(candidate: Candidate, version: Version, registry: _Registry) -> Promotion:
    """Keep the alias where it is, or move one that has no gate."""
    request, present = registry.request, registry.champion
    kept = _number(present) == version.number
    if not kept:
        registry.move(version)
    if request.alias == UNGATED_ALIAS:
        return _promotion(candidate, version, request, replaced=None if kept else _number(present))
    reason = "it holds the alias already"
    return _promotion(candidate, version, request, gate="kept", reason=reason)


@dataclass(frozen=True)
class _Court:
    """Opens the test split and lets the gate decide."""

    database: Database
    registry: _Registry
    trainable: type[Trainable]
    progress: Progress

    def decide(self, candidate: Candidate, version: Version) -> tuple[Promotion, Mapping[str, str]]:
        """Return the decision, and the tables of the candidate's evaluation."""
        view, request, champion = candidate.view, self.registry.request, self.registry.champion
        store = open_folder(request.store or view.store)
        _check_data(view, store, champion, self.trainable)
        with TemporaryDirectory(prefix="posetune-champion-") as scratch:
            present = None
            if champion is not None:  # before the test split is opened: it may be missing
                present = fetch_model(self.registry.home, champion, Path(scratch))
            openings = record_opening(
                self.database,
                view.store_digest,
                why=f"promote to {request.alias}"[:64],
                model=version.uri,
            )
            result, other = (
                self.trainable.evaluate(model, store, "test", self.progress) if model else None
                for model in (candidate.folder, present)
            )
        assert result is not None  # the candidate's folder is always given
        verdict = judge(result, other, champion_name=champion.uri if champion else "")
        decision = _promotion(
            candidate,
            version,
            request,
            gate="passed" if verdict.passed else "refused",
            reason=verdict.reason,
            replaced=_number(champion) if verdict.passed else None,
            openings=openings,
            verdict=verdict,
        )
        return decision, result.tables


def _check_data(
    view: SweepView, store: Path, champion: Version | None, trainable: type[Trainable]
) -> None:
    """Refuse test data that is not the sweep's, and a champion of other data."""
    found = trainable.describe_store(store).digest
    if found != view.store_digest:
        raise BadInputError(
            f"{store}: its digest is {found[:12]}, but sweep {view.name} ran on "
            f"{view.store_digest[:12]}; name the sweep's data with --store"
        )
    judged_on = champion and champion.tags.get("posetune.store_digest")
    if champion is not None and judged_on != view.store_digest:
        raise BadInputError(
            f"{champion.uri}: the present champion is of other data (digest "
            f"{str(judged_on)[:12]}) than sweep {view.name} ({view.store_digest[:12]}): it may "
            "have seen these test frames. Use another --model or --alias, or --force --reason"
        )


@dataclass(frozen=True)
class _Registry:
    """The registry as it was when the decision began."""

    client: MlflowClient
    home: Home
    request: Request
    champion: Version | None

    def move(self, version: Version) -> None:
        """Point the alias at a version, unless it moved since.

        Raises:
            BadInputError: it did.
        """
        model, alias, number = self.request.model, self.request.alias, str(version.number)
        with exclusive(self.home.folder, f"registry-{model}"):
            self._check_unmoved()
            if self.champion is not None:
                self._tag(version, _replaced_tag(alias), str(self.champion.number))
            patiently(lambda: self.client.set_registered_model_alias(model, alias, number))

    def _check_unmoved(self) -> None:
        model, alias = self.request.model, self.request.alias
        before, now = _number(self.champion), _number(find_alias(self.client, model, alias))
        if now != before:
            raise BadInputError(
                f"models:/{model}@{alias}: moved meanwhile, from version {before or 'none'} to "
                f"{now or 'none'}; nothing was changed, promote again"
            )

    def record(
        self,
        candidate: Candidate,
        version: Version,
        decision: Promotion,
        tables: Mapping[str, str],
        *,
        parent: str,
    ) -> None:
        """Write a decision on the version and on the sweep's run; then move the alias if it may.

        Raises:
            BadInputError: the alias moved since the decision began.
        """
        self._check_unmoved()
        text, numbers = _text(decision), json.dumps(_plain(decision))
        model, number = version.model, str(version.number)
        self._tag(version, "posetune.gate", decision.gate)
        self._tag(version, "posetune.decision", tag_value(numbers))
        about = f"{candidate.description}\n\n{text}"
        patiently(lambda: self.client.update_model_version(model, number, about))
        short = f"{version.uri} as {decision.alias}: {decision.gate}; {decision.reason}"
        patiently(lambda: self.client.set_tag(parent, "posetune.promotion", tag_value(short)))
        folder = f"promotion/{model}-{number}"
        files = {"decision.md": text, "decision.json": numbers, **tables}
        texts = {f"{folder}/{name}": file for name, file in files.items()}
        upload(self.client, parent, texts=texts)
        if decision.gate != "refused":
            self.move(version)

    def _tag(self, version: Version, key: str, value: str) -> None:
        model, number = version.model, str(version.number)
        patiently(lambda: self.client.set_model_version_tag(model, number, key, value))


def _promotion(
    candidate: Candidate, version: Version, request: Request, **decided: Any
) -> Promotion:
    refused = decided.get("gate") == "refused"
    return Promotion(
        model=request.model,
        version=version.number,
        alias=request.alias,
        sweep=candidate.view.name,
        trial=candidate.trial.number,
        run_id=candidate.run_id,
        value=float(candidate.trial.value or 0.0),
        data_digest=candidate.view.store_digest,
        uri=version.uri if refused else f"models:/{request.model}@{request.alias}",
        finalists=request.finalists,
        **decided,
    )


def _number(version: Version | None) -> int | None:
    return None if version is None else version.number


def _replaced_tag(alias: str) -> str:
    return f"posetune.replaced.{alias}"


def _plain(decision: Promotion) -> dict[str, Any]:
    """Return a decision as JSON values, its numbers short."""
    plain: dict[str, Any] = json.loads(
        json.dumps(asdict(decision), default=str),
        parse_float=lambda text: float(f"{float(text):.5g}"),
    )
    return plain


def _text(decision: Promotion) -> str:
    """Return a decision in words, with its table."""
    lines = [f"Gate of `{decision.alias}`: **{decision.gate}**: {decision.reason}."]
    if decision.replaced is not None:
        lines.append(f"It replaces version {decision.replaced}.")
    if decision.openings is not None:
        lines.append(
            f"Looks at this test split (data {decision.data_digest[:12]}) so far: "
            f"{decision.openings}."
        )
    if decision.finalists:
        seeds = "; ".join(
            f"trial {f.trial}: {f.mean:.5g} ({', '.join(f'{v:.5g}' for v in f.values)})"
            for f in decision.finalists
        )
        lines.append(f"Finalists, mean on validation over seeds: {seeds}.")
    if decision.verdict is not None and decision.verdict.comparisons:
        lines += ["", markdown(decision.verdict)]
    return "\n".join(lines)
