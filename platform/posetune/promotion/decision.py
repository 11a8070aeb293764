"""Decides whether a sweep's best trial takes an alias, and takes an alias back.

`promote` measures the trial's best and last epoch on the whole validation split (`validation`),
registers the better one (`registry`), and for every alias but `candidate` asks the gate: the
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

from posetune.api import BadInputError, Evaluation, Progress, Trainable, silent
from posetune.home import Home
from posetune.promotion.gate import Finalist, Verdict, judge, markdown
from posetune.promotion.models import Version, fetch_model, find_alias, find_number
from posetune.promotion.registry import Candidate, check_names, register
from posetune.promotion.test_looks import record_opening
from posetune.promotion.validation import Measured, Validation, choose_epoch
from posetune.report.evaluation import evaluation_facts, write_evaluation
from posetune.report.tables import candidate_note
from posetune.storage import open_folder
from posetune.study.tables import journal
from posetune.study.tables.database import Database
from posetune.study.view import SweepView, TrialView, read_sweep
from posetune.tracking.artifacts import upload
from posetune.tracking.connection import (
    connect,
    exclusive,
    mlflow_faults_explained,
    patiently,
    public_address,
)
from posetune.tracking.naming import tag_value
from posetune.tracking.projection import ship

__all__ = ["UNGATED_ALIAS", "Promotion", "Request", "promote", "roll_back"]

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
    openings: int | None = None
    """How often this test split was opened, this time included; None if it was not opened."""
    verdict: Verdict | None = None
    """The gate's numbers; None if the gate was not asked."""
    note: str = ""
    """What a person may not expect of the choice of the trial, in words."""
    finalists: Sequence[Finalist] = field(default=())
    """Trials that were trained again to choose the candidate."""
    measured: Sequence[Measured] = field(default=())
    """Epochs of the candidate and of the finalists that were measured on the whole validation
    split."""


def promote(
    database: Database,
    home: Home,
    request: Request,
    *,
    trainable: type[Trainable],
    progress: Progress = silent,
) -> Promotion:
    """Register the candidate of a sweep, and point an alias at it if the gate lets it pass.

    An epoch that is promoted again keeps its version. The alias `candidate` has no gate.

    Args:
        database: the study.
        home: where storage and tracking are.
        request: what is to be promoted.
        trainable: the class that the sweep file names.
        progress: hears how far the evaluations are.

    Raises:
        BadInputError: there is no such sweep, trial or epoch, none has a value, a checkpoint is
            not kept, missing or damaged, a name is not allowed, the test data is not the sweep's,
            the alias moved meanwhile, MLflow cannot be reached, or the folder for the evaluation
            cannot be written.
    """
    check_names(request.model, request.alias)
    view = read_sweep(database, request.sweep)
    trial = _choose(view, request)
    store = request.store or view.store
    validation = Validation(home.storage, view, trainable, store, progress)
    # MLflow is asked first: without it, what takes long would be measured in vain.
    report = ship(database, view.name, home)
    others = _measure_others(validation, view, request.finalists[1:])
    with (
        validation.models(trial, request.epoch) as models,
        mlflow_faults_explained(home),
    ):
        model, found = choose_epoch(view.spec.objective, models)
        measured = [*(one for _, one in models), *others]
        client = connect(home)
        with database.reading() as connection:
            runs = journal.read_tracked(connection, view.id, public_address(home.tracking))
        run_id = runs[trial.number]
        quality = _data_quality(view, request, trainable)
        candidate = Candidate(
            view=view,
            trial=trial,
            model=model,
            measured=found,
            not_measured=validation.missing,
            experiment_id=report.experiment_id,
            run_id=run_id,
            data_quality=quality,
            all_measured=measured,
        )
        with exclusive(home.folder, f"registry-{request.model}"):
            version = register(client, request.model, candidate, trainable=trainable)
            champion = find_alias(client, request.model, request.alias)
        registry = _Registry(client, home, request, champion)
        if _number(champion) == version.number or request.alias == UNGATED_ALIAS:
            return _without_gate(candidate, version, registry)
        result: Evaluation | None = None
        if request.force is None:
            court = _Court(database, registry, trainable, progress)
            decision, result = court.decide(candidate, version)
        else:
            decided = {"gate": "forced", "reason": request.force, "replaced": _number(champion)}
            decision = _promotion(candidate, version, request, **decided)
        tables: Mapping[str, str] = {} if result is None else result.tables
        registry.record(candidate, version, decision, tables, parent=runs[None])
        if result is not None and request.out is not None:
            _write(result, request.out, candidate=candidate, decision=decision)
    return decision


def _write(result: Evaluation, out: Path, *, candidate: Candidate, decision: Promotion) -> None:
    """Write the candidate's evaluation as `posetune evaluate` does."""
    facts = evaluation_facts(
        f"{decision.model} version {decision.version}",
        candidate.model.folder,
        store=candidate.view.store,
        store_digest=decision.data_digest,
        split="test",
    )
    write_evaluation(result, out, {**facts, "test_split_opened": decision.openings})


def roll_back(home: Home, *, model: str, alias: str, to: int | None = None) -> tuple[int, int]:
    """Point an alias at the version that it pointed at before, or at a named one.

    Args:
        home: where tracking is.
        model: name of the registered model.
        alias: name of the alias.
        to: number of the version to point at; None takes the one before the present one.

    Returns:
        The number of the version that the alias pointed at, and of the one that it points at now.

    Raises:
        BadInputError: there is no such alias or version, the alias pointed at no version before, or
            MLflow cannot be reached.
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


def _choose(view: SweepView, request: Request) -> TrialView:
    """Return the trial to promote: the one that was named, the best finalist, or the best.

    The best is that of the trials that reached the last rung that any has reached: the complete
    ones, in a sweep that is finished. One whose checkpoint is gone is passed over.
    """
    number = request.finalists[0].trial if request.finalists else request.trial
    if number is not None:
        if not 0 <= number < len(view.trials):
            raise BadInputError(
                f"--trial {number}: sweep {view.name} has {len(view.trials)} trials, from 0 on"
            )
        return view.trials[number]
    trial = view.candidate
    if trial is None:
        raise BadInputError(
            f"sweep {view.name}: no trial has reported a value to promote ({len(view.trials)} "
            f"trials, the sweep is {view.state}); continue it with the command that started it"
        )
    return trial


def _measure_others(
    validation: Validation, view: SweepView, others: Sequence[Finalist]
) -> list[Measured]:
    """Measure the finalists that are not the candidate, for the record.

    One whose checkpoint cannot be read is recorded as not known, and ends no promotion.
    """
    measured = []
    for finalist in others:
        trial = view.trials[finalist.trial]
        try:
            with validation.models(trial) as models:
                measured += [one for _, one in models]
        except BadInputError:
            if trial.chosen is not None:
                measured.append(Measured(trial.number, *trial.chosen, whole_value=None))
    return measured


def _note(view: SweepView, request: Request) -> str:
    """Return what a person may not expect of the choice of the trial, in words; empty if nothing.

    Whoever names a trial has chosen it.
    """
    if request.finalists:
        lost = [str(finalist.trial) for finalist in request.finalists if not finalist.is_finite]
        named = f"{'trials' if len(lost) > 1 else 'trial'} {', '.join(lost)}"
        return f"the mean over seeds of {named} is not finite and ranks last" if lost else ""
    return candidate_note(view) if request.trial is None else ""


def _data_quality(view: SweepView, request: Request, trainable: type[Trainable]) -> str:
    """Return what the import of a sweep's data left out and measured, in words for a tag."""
    try:
        summary = trainable.describe_store(open_folder(request.store or view.store))
    except BadInputError as error:
        return f"not known: {error}"
    if summary.digest != view.store_digest:
        return "not known: the data at hand is not the sweep's"
    words = [f"{name}: {text}" for name, text in summary.quality.items()]
    return "\n".join(words) or "this kind of data has no checks"


def _without_gate(candidate: Candidate, version: Version, registry: _Registry) -> Promotion:
    """Keep an alias that points at the version already, or move an alias that has no gate."""
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

    def decide(self, candidate: Candidate, version: Version) -> tuple[Promotion, Evaluation]:
        """Return the decision, and the candidate's evaluation."""
        view, request, champion = candidate.view, self.registry.request, self.registry.champion
        store = open_folder(request.store or view.store)
        _check_data(view, store, champion, self.trainable)
        with TemporaryDirectory(prefix="posetune-champion-") as scratch:
            present = None
            # The champion is fetched before the test split is opened: if its files are missing, the
            # look at the test split would be wasted.
            if champion is not None:
                present = fetch_model(self.registry.home, champion, Path(scratch))
            openings = record_opening(
                self.database,
                view.store_digest,
                why=f"promote to {request.alias}"[:64],
                model=version.uri,
            )
            result, other = (
                self.trainable.evaluate(model, store, "test", self.progress) if model else None
                for model in (candidate.model.folder, present)
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
        return decision, result


def _check_data(
    view: SweepView, store: Path, champion: Version | None, trainable: type[Trainable]
) -> None:
    """Refuse test data that is not the sweep's, and a champion that was judged on other data."""
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
    """Writes a decision into the registry, if the registry is as it was when the decision began."""

    client: MlflowClient
    home: Home
    request: Request
    champion: Version | None

    def move(self, version: Version) -> None:
        """Point the alias at a version.

        Raises:
            BadInputError: the alias moved since the decision began.
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

        Args:
            candidate: the trial.
            version: the trial's version.
            decision: what was decided.
            tables: text files of the candidate's evaluation, by name.
            parent: id of the sweep's own run.

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
        epoch=candidate.model.epoch,
        value=candidate.measured.value,
        whole_value=candidate.measured.whole_value,
        data_digest=candidate.view.store_digest,
        uri=version.uri if refused else f"models:/{request.model}@{request.alias}",
        finalists=request.finalists,
        measured=candidate.all_measured,
        note=_note(candidate.view, request),
        **decided,
    )


def _number(version: Version | None) -> int | None:
    return None if version is None else version.number


def _number_text(value: float | None) -> str:
    return "not known" if value is None else f"{value:.5g}"


def _replaced_tag(alias: str) -> str:
    return f"posetune.replaced.{alias}"


def _plain(decision: Promotion) -> dict[str, Any]:
    """Return a decision as JSON values, with numbers of five digits, which fit into a tag."""
    plain: dict[str, Any] = json.loads(
        json.dumps(asdict(decision), default=str),
        parse_float=lambda text: float(f"{float(text):.5g}"),
        parse_constant=lambda _: None,  # NaN and infinity are no JSON
    )
    return plain


def _text(decision: Promotion) -> str:
    """Return a decision in words, with the table of its numbers, as Markdown."""
    lines = [f"Gate of `{decision.alias}`: **{decision.gate}**: {decision.reason}."]
    if decision.note:
        lines.append(f"Of the choice: {decision.note}.")
    if decision.replaced is not None:
        lines.append(f"It replaces version {decision.replaced}.")
    if decision.openings is not None:
        lines.append(
            f"Looks at this test split (data {decision.data_digest[:12]}) so far: "
            f"{decision.openings}."
        )
    if decision.measured:
        shown = "; ".join(
            f"trial {m.trial}, epoch {m.epoch}: {_number_text(m.whole_value)} "
            f"({_number_text(m.value)} in the sweep)"
            for m in decision.measured
        )
        lines.append(f"On the whole validation split: {shown}.")
    if decision.finalists:
        seeds = "; ".join(
            f"trial {f.trial}: {f.mean:.5g} ({', '.join(f'{v:.5g}' for v in f.values)})"
            for f in decision.finalists
        )
        lines.append(f"Finalists, mean on validation over seeds: {seeds}.")
    if decision.verdict is not None and decision.verdict.comparisons:
        lines += ["", markdown(decision.verdict)]
    return "\n".join(lines)
