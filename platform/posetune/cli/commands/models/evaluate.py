"""`posetune evaluate`: a model on a split, with tables and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posetune.api import BadInputError, StoreSummary
from posetune.cli.options import HomeOption, JsonOption, ModelArgument, TrainableOption
from posetune.cli.screen import console, progress_bar
from posetune.home import Home
from posetune.promotion.judging.test_looks import record_test_look
from posetune.report.models.evaluation import evaluation_facts, evaluation_table, write_evaluation
from posetune.spec.registration import DEFAULT_TRAINABLE
from posetune.storage import open_folder, open_storage
from posetune.study.tables.database import open_database
from posetune.workflow.models import open_model

__all__ = ["evaluate"]


def evaluate(
    model: ModelArgument,
    store: Annotated[
        str, typer.Option("--store", help="Address of the store: a folder or s3://...")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write tables and pictures to.")],
    split: Annotated[
        str, typer.Option(help="The split to evaluate on: test, val or train.")
    ] = "test",
    home: HomeOption = None,
    trainable: TrainableOption = DEFAULT_TRAINABLE,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model on every frame of a split: metrics, baselines, tables, pictures.

    Every average has a 95 % interval (bootstrap over motions). Each look at a test split is counted
    in the study, where there is one.

      posetune evaluate models:/selfpose@candidate --store data/procedural --out out/candidate

      posetune evaluate quickstart/6 --store data/procedural --split val --out out/trial6
    """
    resolved = Home.resolve(home)
    with (
        progress_bar("evaluate", quiet=as_json) as progress,
        open_model(model, resolved, trainable, store=store, progress=progress) as found,
    ):
        folder = open_folder(store)
        summary = found.trainable.describe_store(folder)
        facts = evaluation_facts(
            found.name,
            found.folder,
            store=open_storage(store).address,
            store_digest=summary.digest,
            split=split,
        )
        if split == "test":
            facts["test_split_opened"] = _count_look(resolved, summary, found.name)
        evaluation = found.trainable.evaluate(found.folder, folder, split, progress)
    files = write_evaluation(evaluation, out, facts)
    if as_json:
        print((out / "metrics.json").read_text(encoding="utf-8"), end="")
        return
    console.print(evaluation_table(evaluation, f"{found.name} on split {split} of {store}"))
    for note in evaluation.notes:
        console.print(note, markup=False)
    if facts.get("test_split_opened"):
        console.print(f"looks at this test split so far: {facts['test_split_opened']}")
    console.print(f"{out}: {', '.join(file.name for file in files)}")


def _count_look(home: Home, summary: StoreSummary, model: str) -> int | None:
    """Record that the test split is opened; None where there is no study to record it in."""
    try:
        database = open_database(home.database, create=False)
    except BadInputError as error:
        console.print(f"this look at the test split is not counted: {error}")
        return None
    return record_test_look(database, summary.digest, why="evaluate", model=model)
