"""An alias that waits for a second person."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from mlflow import MlflowClient
from support.commands import run_here
from support.simulated_driver import simulated_start

from posetune.api import BadInputError
from posetune.promotion.aliases import roll_back
from posetune.promotion.decision import promote
from posetune.promotion.model_card import cost_text
from posetune.promotion.models import check_files, find_number
from posetune.promotion.request import Promotion, Request
from posetune.study.tables import schema
from posetune.testing.toy import Toy

RULE = "registry: {champion: {approve: 1}}\n"


def ask(scene: Any, by: str = "ana@laptop", approvals: int = 1, **more: Any) -> Promotion:
    """Promote the best trial to champion without the test split, for a reason."""
    request = Request(
        "first", "toy", "champion", force="a test", by=by, approvals=approvals, **more
    )
    return promote(scene.database, scene.home, request, trainable=Toy)


def command(scene: Any, *words: object, by: str = "bo@desk", **more: str) -> Any:
    folder = scene.home.folder
    environment = {"POSETUNE_HOME": str(folder), "POSETUNE_PERSON": by, **more}
    return run_here(*words, folder=folder, environment=environment)


def holder(scene: Any) -> int | None:
    aliases = MlflowClient(scene.home.tracking).get_registered_model("toy").aliases
    return int(aliases["champion"]) if "champion" in aliases else None


def tags(scene: Any, number: int) -> dict[str, str]:
    return dict(MlflowClient(scene.home.tracking).get_model_version("toy", str(number)).tags)


def notes(scene: Any, trial: int) -> list[tuple[str, str]]:
    """What `show` says of a trial: who wrote it, and what."""
    said = json.loads(command(scene, "show", "first", "--json").stdout)
    return [(note["by"], note["text"]) for note in said["trials"][trial]["notes"]]


@pytest.fixture
def trained(scene: Any) -> Any:
    run = scene.open()
    scene.run_trial(run, 5.0)
    scene.run_trial(run, 3.0)
    return scene


@pytest.mark.slow
def test_the_alias_moves_when_another_person_agrees_and_both_names_stay(trained: Any) -> None:
    trained.opened[-1].lease.release()
    promotion = ask(trained)

    assert (promotion.gate, promotion.approvals, holder(trained)) == ("forced", 1, None)
    assert promotion.uri == f"models:/toy/{promotion.version}"
    looked = json.loads(command(trained, "approve", "toy/1", "--look", "--json").stdout)
    assert (looked["changed"], looked["left"], holder(trained)) == (False, 1, None)
    assert looked["decision"]["reason"] == "a test"

    own = command(trained, "approve", "toy/1", by="ana@other-machine")
    assert own.returncode == 2
    assert "you are ana, and ana@laptop said yes already" in own.stderr
    with pytest.raises(BadInputError, match="no such model or alias"):
        roll_back(trained.home, model="toy", alias="champion", to=1)

    said = json.loads(command(trained, "approve", "toy/1", "--json").stdout)

    assert (said["promoted_by"], said["approved_by"]) == ("ana@laptop", ["bo@desk"])
    assert (said["left"], said["replaced"], holder(trained)) == (0, None, 1)
    found = tags(trained, 1)
    assert found["posetune.promoted_by.champion"] == "ana@laptop (forced)"
    assert found["posetune.approved_by.champion"] == "bo@desk"
    assert json.loads(found["posetune.decision"])["by"] == "ana@laptop"
    assert not [name for name in found if name.startswith("posetune.waits.")]
    assert notes(trained, 1) == [
        ("ana@laptop", "promotion: toy/1 waits for approval as champion"),
        (
            "bo@desk",
            "approval of what ana@laptop promoted: toy@champion is version 1 now, of sweep first",
        ),
    ]
    again = command(trained, "approve", "toy/1", by="cy@desk")
    assert again.returncode == 2
    assert "waits for no approval" in again.stderr


@pytest.mark.slow
def test_who_promoted_and_who_rolled_back_is_shown(trained: Any) -> None:
    trained.opened[-1].lease.release()
    ask(trained, approvals=0, trial=0)
    ask(trained, approvals=0, trial=1)

    back = command(trained, "rollback", "--model", "toy", "--json")

    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout)["to"] == 1
    assert tags(trained, 2)["posetune.rolled_back"] == "champion went back to version 1, by bo@desk"
    went = ("bo@desk", "rollback: toy@champion went back to version 1, from version 2")
    for number in (1, 2):
        is_now = f"promotion: toy@champion is version {number} now, of sweep first"
        assert notes(trained, number - 1) == [("ana@laptop", is_now), went]
    shown = command(trained, "show", "first").stderr
    assert "note by bo@desk: rollback" in shown


@pytest.mark.slow
def test_a_rollback_stands_where_the_study_takes_no_note_of_it(
    trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trained.opened[-1].lease.release()
    ask(trained, approvals=0, trial=0)
    ask(trained, approvals=0, trial=1)
    with trained.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE lease RENAME TO lost")

    back = command(trained, "rollback", "--model", "toy", "--json")
    with trained.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE lost RENAME TO lease")

    assert back.returncode == 0, back.stderr
    assert (json.loads(back.stdout)["to"], holder(trained)) == (1, 1)
    said = [one.getMessage() for one in caplog.records if one.name.endswith("noting")]
    assert said[0].startswith("sweep first: no note was taken of this (no such table: lease): ")
    assert "went back to version 1" in said[0]


@pytest.mark.slow
def test_a_retention_rule_keeps_what_is_registered(trained: Any) -> None:
    trained.opened[-1].lease.release()
    ask(trained, approvals=0)
    table = schema.event
    with trained.database.engine.begin() as connection:
        connection.execute(table.update().values(at=table.c.at - 3 * 86_400))
    file = trained.home.folder / "posetune.yaml"
    file.write_text("retention: {older_than: 1d, keep: [registered]}\n")

    kept = json.loads(command(trained, "clean", "--yes", "--everybody", "--json").stdout)
    file.write_text("retention: {older_than: 1d, keep: []}\n")
    refused = command(trained, "clean", "--yes", "--everybody", "--json")

    assert [one["kept"] for one in kept["sweeps"]] == ["a version of it is registered"]
    assert refused.returncode == 1
    said = json.loads(refused.stdout)
    assert said["deleted"] == []
    assert "models:/toy@champion is version 1" in said["refused"]["first"]


def test_the_model_card_says_what_the_training_cost() -> None:
    priced = Request("first", "toy", cost_per_gpu_hour=2.5, currency="EUR")
    spec = simulated_start(resources={"gpu": 1}).spec
    assert cost_text(4.0, spec, priced) == "4 GPU-hours, 10.00 EUR"
    assert cost_text(4.0, spec, Request("first", "toy")) == "4 GPU-hours"
    assert cost_text(4.0, simulated_start().spec, priced) == "4 trial-hours"


@pytest.mark.long
@pytest.mark.slow
def test_two_persons_and_a_champion_that_moved_meanwhile(trained: Any) -> None:
    ask(trained, approvals=0, trial=0)
    assert holder(trained) == 1
    ask(trained, approvals=2, trial=1)
    first = command(trained, "approve", "models:/toy/2", "--alias", "champion")
    twice = command(trained, "approve", "toy/2", by="bo@elsewhere")
    assert (first.returncode, twice.returncode) == (0, 2)
    assert "waits for 1 more person" in first.stderr
    assert holder(trained) == 1
    with pytest.raises(BadInputError, match="waits for approval as champion and never had"):
        roll_back(trained.home, model="toy", alias="champion", to=2)

    client = MlflowClient(trained.home.tracking)
    client.delete_registered_model_alias("toy", "champion")
    moved = command(trained, "approve", "toy/2", by="cy@desk")
    assert moved.returncode == 2
    assert "moved meanwhile, from version 1 to none" in moved.stderr
    client.set_registered_model_alias("toy", "champion", "1")

    last = command(trained, "approve", "toy/2", by="cy@desk")
    assert last.returncode == 0, last.stderr
    assert "toy@champion is version 2 now, instead of 1" in last.stderr
    assert holder(trained) == 2
    assert tags(trained, 2)["posetune.approved_by.champion"] == "bo@desk, cy@desk"
    assert roll_back(trained.home, model="toy", alias="champion") == (2, 1)


@pytest.mark.long
@pytest.mark.slow
def test_an_approval_that_was_killed_is_ended_by_the_same_person(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posetune.promotion.approving import approve as module

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    ask(trained)
    for step in ("_move", "forget_waiting"):
        with monkeypatch.context() as patch:
            patch.setattr(module, step, killed)
            with pytest.raises(Killed):
                module.approve(trained.home, "toy/1", by="bo@desk")
        assert holder(trained) == (None if step == "_move" else 1)

    result = command(trained, "approve", "toy/1")

    assert result.returncode == 0, result.stderr
    assert holder(trained) == 1
    assert tags(trained, 1)["posetune.approved_by.champion"] == "bo@desk"


@pytest.mark.slow
def test_the_homes_file_asks_for_it(
    trained: Any,
) -> None:
    (trained.home.folder / "posetune.yaml").write_text(RULE)
    words = ["promote", "first", "--model", "toy", "--alias", "champion"]

    promoted = command(trained, *words, "--force", "--reason", "a test", by="ana@laptop")

    assert promoted.returncode == 0, promoted.stderr
    assert "as champion it waits for 1 other person" in promoted.stderr
    assert "posetune approve toy/1" in promoted.stderr
    assert holder(trained) is None
    assert command(trained, "approve", "toy/1").returncode == 0
    assert holder(trained) == 1
    again = json.loads(command(trained, *words, "--json", by="ana@laptop").stdout)
    assert (again["gate"], again["approvals"]) == ("kept", 0)


@pytest.mark.slow
def test_a_sweep_that_an_alias_points_at_is_not_deleted_and_its_runs_stay(trained: Any) -> None:
    trained.opened[-1].lease.release()
    ask(trained, approvals=0)
    client = MlflowClient(trained.home.tracking)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])

    elsewhere = f"sqlite:///{trained.home.folder / 'elsewhere.db'}"
    blind = command(trained, "delete", "first", "--yes", MLFLOW_TRACKING_URI=elsewhere)
    kept = command(trained, "delete", "first", "--yes")
    client.delete_registered_model_alias("toy", "champion")
    deleted = json.loads(command(trained, "delete", "first", "--yes", "--json").stdout)

    assert (blind.returncode, kept.returncode) == (2, 2)
    assert "where an alias may point at it, and this command looks at" in blind.stderr
    assert not (trained.home.folder / "elsewhere.db").exists()
    assert "models:/toy@champion is version 1, of trial 1, and this sweep is its record" in (
        kept.stderr
    )
    after = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert {r.info.run_id for r in after} == {r.info.run_id for r in runs}
    assert deleted["marked_runs"] == len(runs)
    assert {r.data.tags["posetune.deleted"] for r in after} == {"by bo@desk"}
    with pytest.raises(BadInputError, match="no such model or alias"):
        roll_back(trained.home, model="toy", alias="champion")
    version = find_number(client, "toy", "1")
    assert version is not None
    check_files(trained.home, version)  # they are its own


@pytest.mark.long
@pytest.mark.slow
def test_an_imported_sweep_is_promoted_from_where_it_is(trained: Any, tmp_path: Any) -> None:
    trained.opened[-1].lease.release()
    assert command(trained, "archive", "first", "--to", "first.tar").returncode == 0
    storage = trained.home.storage
    taken = command(trained, "unarchive", "first.tar", "--name", "second")
    assert taken.returncode == 0, taken.stderr
    assert command(trained, "delete", "first", "--yes").returncode == 0
    assert storage.children("checkpoints") == ["second"]

    request = Request("second", "toy", "champion", force="a test", by="ana@laptop")
    promotion = promote(trained.database, trained.home, request, trainable=Toy)

    assert (promotion.sweep, promotion.trial, holder(trained)) == ("second", 1, 1)
    assert dataclasses.asdict(promotion)["by"] == "ana@laptop"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("registry: {candidate: {approve: 1}}", "candidate is the alias that moves without asking"),
        ("registry: {champion: {approve: -1}}", "approve"),
        ("registry: {champion: {agree: 1}}", "agree"),
    ],
)
def test_a_rule_that_means_nothing_is_named(scene: Any, text: str, why: str) -> None:
    (scene.home.folder / "posetune.yaml").write_text(text + "\n")

    result = command(scene, "usage")

    assert result.returncode == 2
    assert why in result.stderr


@pytest.mark.parametrize("given", ["toy", "toy@champion", "toy/x", "/1"])
def test_a_version_that_cannot_be_one_is_one_line(scene: Any, given: str) -> None:
    result = command(scene, "approve", given)

    assert result.returncode == 2
    assert "must be MODEL/VERSION" in result.stderr
