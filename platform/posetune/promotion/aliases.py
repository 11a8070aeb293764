"""Moves an alias to a version, once the decision is recorded, or back to the one before.

`AliasMove` writes a decision on the version and on the sweep's run, and points the alias at the
version if it may. `roll_back` points an alias at the version that it pointed at before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlflow import MlflowClient

from posetune.api import BadInputError
from posetune.home import Home
from posetune.notifications.announcing import announcing
from posetune.promotion.approving.approval import (
    PROMOTED_TAG,
    Waiting,
    ask_for_approval,
    waiting_of,
)
from posetune.promotion.judging.gate import markdown
from posetune.promotion.models import Version, check_files, find_alias, find_number
from posetune.promotion.noting import note_on_sweep
from posetune.promotion.registry import check_names
from posetune.promotion.request import Promotion, Request
from posetune.tracking.artifacts import upload
from posetune.tracking.naming import tag_value
from posetune.tracking.server.connection import (
    connect,
    exclusive,
    mlflow_faults_explained,
    patiently,
)

__all__ = ["AliasMove", "decision_text", "for_registry", "number_of", "roll_back"]

CARD_FILE = "model_card.md"
"""Name of the file with a version's model card, in its folder of the sweep's run."""
_MOST_CHARACTERS = 5000
"""Length of a version's description at most: what MLflow's tables hold on every database."""


def roll_back(
    home: Home, *, model: str, alias: str, to: int | None = None, by: str = ""
) -> tuple[int, int]:
    """Point an alias at the version that it pointed at before, or at a named one.

    Args:
        home: where tracking is.
        model: name of the registered model.
        alias: name of the alias.
        to: number of the version to point at; None takes the one before the present one.
        by: who wants it, as person@host; empty where that is not known.

    Returns:
        The number of the version that the alias pointed at, and of the one that it points at now.

    Raises:
        BadInputError: there is no such alias or version, the alias pointed at no version before,
            the version's files are not those that were registered, or MLflow cannot be reached.
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
                f"models:/{model}@{alias}: no version had this alias before version "
                f"{present.number}; name one with --to"
            )
        version = find_number(client, model, before)
        if version is None:
            raise BadInputError(f"models:/{model}/{before}: no such version; name one with --to")
        if alias in waiting_of(version):
            raise BadInputError(
                f"models:/{model}/{before}: waits for approval as {alias} and never had this "
                f"alias (posetune approve {model}/{before})"
            )
        check_files(home, version)
        what = {"model": model, "alias": alias, "version": int(before), "from": present.number}
        text = f"{model}@{alias} went back to version {before}, from version {present.number}"
        with announcing(home, "rolled_back", text, data=what):
            patiently(lambda: client.set_registered_model_alias(model, alias, before))
        note = f"{alias} went back to version {before}" + (f", by {by}" if by else "")
        number = str(present.number)
        patiently(lambda: client.set_model_version_tag(model, number, "posetune.rolled_back", note))
    for one in (present, version):
        note_on_sweep(home, one, f"rollback: {text}", by=by)
    return present.number, int(before)


@dataclass(frozen=True)
class AliasMove:
    """Writes a decision into the registry, if the registry is as it was when the decision began."""

    client: MlflowClient
    home: Home
    request: Request
    champion: Version | None

    def move(self, version: Version, *, did: str = "promotion") -> None:
        """Point the alias at a version.

        Args:
            version: the version.
            did: what the person has done by it, for the sweep's record.

        Raises:
            BadInputError: the alias moved since the decision began, or the version's files are not
                those that were registered.
        """
        model, alias, number = self.request.model, self.request.alias, str(version.number)
        with exclusive(self.home.folder, f"registry-{model}"):
            self._check_unmoved()
            check_files(self.home, version)
            if self.champion is not None:
                self._tag(version, _replaced_tag(alias), str(self.champion.number))
            what = {"model": model, "alias": alias, "version": version.number}
            sweep = self.request.sweep
            text = f"{model}@{alias} is version {number} now, of sweep {sweep}"
            with announcing(self.home, "promoted", text, sweep=sweep, data=what):
                patiently(lambda: self.client.set_registered_model_alias(model, alias, number))
        note_on_sweep(self.home, version, f"{did}: {text}", by=self.request.by)

    def _check_unmoved(self) -> None:
        model, alias = self.request.model, self.request.alias
        before, now = number_of(self.champion), number_of(find_alias(self.client, model, alias))
        if now != before:
            raise BadInputError(
                f"models:/{model}@{alias}: moved meanwhile, from version {before or 'none'} to "
                f"{now or 'none'}; nothing was changed, promote again"
            )

    def record(
        self,
        version: Version,
        decision: Promotion,
        files: Mapping[str, str],
        *,
        card: str,
        parent: str,
    ) -> None:
        """Write a decision on the version and on the sweep's run; then move the alias if it may.

        Args:
            version: the trial's version.
            decision: what was decided.
            files: text files to keep beside the decision, by name.
            card: the version's model card.
            parent: id of the sweep's own run.

        Raises:
            BadInputError: the alias moved since the decision began.
        """
        self._check_unmoved()
        text, numbers = decision_text(decision), json.dumps(_plain(decision))
        self._tag(version, "posetune.gate", decision.gate)
        self._tag(version, "posetune.decision", tag_value(numbers))
        short = f"{version.uri} as {decision.alias}: {decision.gate}; {decision.reason}"
        patiently(lambda: self.client.set_tag(parent, "posetune.promotion", tag_value(short)))
        written = {"decision.md": text, "decision.json": numbers, **files}
        self.describe(version, card, written, parent=parent)
        if decision.approvals:
            waiting = Waiting(
                alias=decision.alias,
                by=decision.by,
                replaces=number_of(self.champion),
                sweep=decision.sweep,
                needed=decision.approvals,
            )
            ask_for_approval(self.client, version, waiting, decision.gate)
            text = f"{decision.model}/{version.number} waits for approval as {decision.alias}"
            note_on_sweep(self.home, version, f"promotion: {text}", by=decision.by)
        elif decision.gate != "refused":
            if decision.by:
                self._tag(version, PROMOTED_TAG + decision.alias, decision.by)
            self.move(version)

    def describe(
        self, version: Version, card: str, files: Mapping[str, str], *, parent: str
    ) -> None:
        """Make a card a version's description, and keep it with files in the sweep's run."""
        model, number = version.model, str(version.number)
        folder = f"promotion/{model}-{number}"
        about = for_registry(card, f"{folder}/{CARD_FILE}")
        patiently(lambda: self.client.update_model_version(model, number, about))
        texts = {f"{folder}/{name}": file for name, file in {CARD_FILE: card, **files}.items()}
        upload(self.client, parent, texts=texts)

    def _tag(self, version: Version, key: str, value: str) -> None:
        model, number = version.model, str(version.number)
        patiently(lambda: self.client.set_model_version_tag(model, number, key, value))


def number_of(version: Version | None) -> int | None:
    """Return the number of a version; None if there is none."""
    return None if version is None else version.number


def _number_text(value: float | None) -> str:
    return "not known" if value is None else f"{value:.5g}"


def for_registry(card: str, where: str) -> str:
    """Return a card as a version's description: cut at a line if it is too long for MLflow.

    Args:
        card: the card.
        where: name of the file that holds all of it.
    """
    if len(card) <= _MOST_CHARACTERS:
        return card
    ending = f"\n\nThe rest is in `{where}` among the artifacts of the sweep's run."
    return card[: _MOST_CHARACTERS - len(ending)].rpartition("\n")[0] + ending


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


def decision_text(decision: Promotion) -> str:
    """Return a decision in words, with the table of its numbers, as Markdown."""
    reason = decision.reason or "this alias has no gate"
    lines = [f"Gate of `{decision.alias}`: **{decision.gate}**: {reason}."]
    if decision.note:
        lines.append(f"Of the choice: {decision.note}.")
    if decision.replaced is not None:
        lines.append(f"It replaces version {decision.replaced}.")
    if decision.test_looks is not None:
        lines.append(
            f"Looks at this test split (data {decision.data_digest[:12]}) so far: "
            f"{decision.test_looks}."
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
