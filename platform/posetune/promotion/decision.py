"""Decides whether a sweep's best trial takes an alias.

`promote` measures the trial's best and last epoch on the whole validation split (`judging`),
registers the better one (`registry`), and for every alias but `candidate` asks the gate: the
test split is opened once, for the candidate and the present champion, and `gate.judge` says who is
better. The decision is written down before the alias moves (`aliases`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from posetune.api import BadInputError, Evaluation, Progress, Trainable, silent
from posetune.home import Home
from posetune.promotion.aliases import AliasMove, number_of
from posetune.promotion.judging.gate import Finalist, judge
from posetune.promotion.judging.test_looks import record_test_look
from posetune.promotion.judging.validation import Measured, Validation, choose_epoch
from posetune.promotion.model_card import model_card
from posetune.promotion.models import Version, check_files, fetch_model, find_alias
from posetune.promotion.registry import Candidate, check_names, register
from posetune.promotion.request import UNGATED_ALIAS, Promotion, Request
from posetune.report.leaderboard import candidate_note
from posetune.report.models.evaluation import evaluation_facts, write_evaluation
from posetune.storage import open_folder
from posetune.study.reading import read_sweep
from posetune.study.tables import journal
from posetune.study.tables.database import Database
from posetune.study.view import SweepView, TrialView
from posetune.tracking.projection import ship
from posetune.tracking.server.connection import (
    connect,
    exclusive,
    mlflow_faults_explained,
    public_address,
)

__all__ = ["promote"]


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
            not kept, missing or damaged, the files of its version are damaged, a name is not
            allowed, the test data is not the sweep's, the alias moved meanwhile, MLflow cannot be
            reached, or the folder for the evaluation cannot be written.
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
        # The gate judges the sweep's own checkpoint. What the alias will serve are these files, and
        # they are looked at before a look at the test split is spent.
        check_files(home, version)
        registry = AliasMove(client, home, request, champion)
        if number_of(champion) == version.number or request.alias == UNGATED_ALIAS:
            decision = _without_gate(candidate, version, registry)
            if decision.gate != "kept":  # its card has the evidence of the gate
                card = model_card(
                    candidate, decision, None, trainable=trainable, store=store, request=request
                )
                registry.describe(version, card, {}, parent=runs[None])
            return decision
        result: Evaluation | None = None
        if request.force is None:
            gate = _TestSplitGate(database, registry, trainable, progress)
            decision, result = gate.decide(candidate, version)
        else:
            decided = {"gate": "forced", "reason": request.force, "replaced": number_of(champion)}
            decision = _promotion(candidate, version, request, **decided)
        tables: Mapping[str, str] = {} if result is None else result.tables
        card = model_card(
            candidate, decision, result, trainable=trainable, store=store, request=request
        )
        registry.record(version, decision, tables, card=card, parent=runs[None])
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
    write_evaluation(result, out, {**facts, "test_split_opened": decision.test_looks})


def _choose(view: SweepView, request: Request) -> TrialView:
    """Return the trial to promote: the one that was named, the best finalist, or the best.

    The best is that of the trials that reached the last rung that any has reached: the complete
    ones, in a sweep that is finished. One whose checkpoint is gone is passed over.
    """
    number = request.finalists[0].trial if request.finalists else request.trial
    if number is not None:
        if not 0 <= number < len(view.trials):
            raise BadInputError(
                f"--trial {number}: there is no such trial; sweep {view.name} has "
                f"{len(view.trials)}, numbered from 0"
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


def _without_gate(candidate: Candidate, version: Version, registry: AliasMove) -> Promotion:
    """Keep an alias that points at the version already, or move an alias that has no gate."""
    request, present = registry.request, registry.champion
    kept = number_of(present) == version.number
    if not kept:
        registry.move(version)
    if request.alias == UNGATED_ALIAS:
        replaced = None if kept else number_of(present)
        return _promotion(candidate, version, request, replaced=replaced)
    reason = "it holds the alias already"
    return _promotion(candidate, version, request, gate="kept", reason=reason)


@dataclass(frozen=True)
class _TestSplitGate:
    """Opens the test split and lets the gate decide."""

    database: Database
    registry: AliasMove
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
            test_looks = record_test_look(
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
            replaced=number_of(champion) if verdict.passed else None,
            test_looks=test_looks,
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
            f"{champion.uri}: the present champion was made from other data (digest "
            f"{str(judged_on)[:12]}) than sweep {view.name} ({view.store_digest[:12]}), so it may "
            "have seen these test frames. Use another --model or --alias, or --force --reason"
        )


def _promotion(
    candidate: Candidate, version: Version, request: Request, **decided: Any
) -> Promotion:
    gate = decided.get("gate", "ungated")
    approvals = request.approvals if gate in ("passed", "forced") else 0
    stays = gate == "refused" or approvals > 0
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
        uri=version.uri if stays else f"models:/{request.model}@{request.alias}",
        finalists=request.finalists,
        measured=candidate.all_measured,
        note=_note(candidate.view, request),
        by=request.by,
        approvals=approvals,
        **decided,
    )
