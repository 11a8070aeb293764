"""The gate around a real registry: what moves an alias, what does not, and what is written down.

One idea, every way to ask for an alias on the same made-up sweep, so it is long.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray
from safetensors.numpy import save_file
from typer.testing import CliRunner

from posetune.api import BadInputError, Evaluation, StoreSummary
from posetune.cli.app import app
from posetune.promotion.aliases import roll_back
from posetune.promotion.decision import promote
from posetune.promotion.judging.finalists import finalist_values, retrain_finalists
from posetune.promotion.judging.test_looks import count_test_looks
from posetune.promotion.request import Promotion, Request
from posetune.study.reading import read_sweep
from posetune.study.tables import journal
from posetune.testing.toy import Toy, ToyPredictor

DIGEST = "d" * 64
GOOD, FAIR, BAD = 0.0, 0.2, 5.0
"""How far a model's pose is off, in each coordinate; BAD is worse than the trivial answer."""


class Graded(Toy):
    """Exports a pose that is as far off as we say."""

    __module__ = Toy.__module__  # whose source goes with the model
    off: ClassVar[float] = GOOD
    digest: ClassVar[str] = DIGEST

    def export(self, folder: Path) -> None:
        pose = np.array([[0, 0, 0], [-1, 0, 0], [1, 0, 0]], np.float32) + np.float32(self.off)
        save_file({"pose": pose}, folder / "model.safetensors")

    @classmethod
    def describe_store(cls, store: Path) -> StoreSummary:
        return StoreSummary(cls.digest, {}, {})


class FromJoints(Graded):
    """Exports a model that begins with 2D poses."""

    __module__ = Toy.__module__

    @classmethod
    def load_model(cls, exported: Path) -> ToyPredictor:
        class Lifter(ToyPredictor):
            def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
                raise BadInputError("this model begins with 2D poses")

        predictor = super().load_model(exported)
        return Lifter(predictor.pose_j3, predictor.image_size)


@pytest.fixture
def graded(scene: Any) -> Iterator[Any]:
    scene.trainable = Graded
    yield scene
    Graded.off, Graded.digest = GOOD, DIGEST


def train(scene: Any, off: float) -> None:
    """Complete one more trial, better on validation than all before, with such a model."""
    Graded.off = off
    run = scene.opened[-1] if scene.opened else scene.open()
    scene.run_trial(run, 10.0 - len(run.trials))


def ask(scene: Any, alias: str = "champion", **more: Any) -> Promotion:
    trainable = more.pop("trainable", Graded)
    request = Request("first", "toy", alias, **more)
    return promote(scene.database, scene.home, request, trainable=trainable)


def holder(scene: Any, alias: str = "champion") -> int | None:
    aliases = MlflowClient(scene.home.tracking).get_registered_model("toy").aliases
    return int(aliases[alias]) if alias in aliases else None


def written(scene: Any, promotion: Promotion, folder: Path) -> dict[str, Any]:
    """What the sweep's own run holds of a decision."""
    with scene.database.reading() as connection:
        runs = journal.read_tracked(connection, 1, scene.home.tracking)
    client = MlflowClient(scene.home.tracking)
    place = f"promotion/toy-{promotion.version}"
    found = Path(client.download_artifacts(runs[None], place, str(folder)))
    decision = json.loads((found / "decision.json").read_text(encoding="utf-8"))
    assert promotion.gate in client.get_run(runs[None]).data.tags["posetune.promotion"]
    assert promotion.reason in (found / "decision.md").read_text(encoding="utf-8")
    return dict(decision)


@pytest.mark.slow
def test_the_first_champion_beats_the_trivial_answers_and_everything_is_written_down(
    graded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyPredictor, "input_notes", ("It knows toys only.",), raising=False)
    train(graded, GOOD)

    (tmp_path / "card").mkdir()
    promotion = ask(graded, out=tmp_path / "evaluated")

    version = MlflowClient(graded.home.tracking).get_model_version_by_alias("toy", "champion")
    decision = json.loads(version.tags["posetune.decision"])
    assert (promotion.gate, promotion.test_looks, promotion.replaced) == ("passed", 1, None)
    assert version.tags["posetune.gate"] == "passed"
    assert decision == written(graded, promotion, tmp_path)
    (comparison,) = decision["verdict"]["comparisons"]
    assert comparison["other"] == "at rest"
    assert 0 < comparison["low"] < comparison["gain"] < comparison["high"]
    assert "| all activities | 30 |" in version.description
    assert "so far: 1." in version.description
    runs = MlflowClient(graded.home.tracking)
    parent = runs.get_run(promotion.run_id).data.tags["mlflow.parentRunId"]
    folder = runs.download_artifacts(parent, "promotion/toy-1", str(tmp_path / "card"))
    card = (Path(folder) / "model_card.md").read_text(encoding="utf-8")
    assert card == version.description
    for title in ("What it sees and returns", "How good it is", "The gate's evidence", "Data"):
        assert f"\n## {title}\n" in card
    assert "\n- It knows toys only.\n- It returns one pose" in card
    assert "posetune reproduce first/" in card
    assert "| test/error_mm | " in card
    assert "| baseline: at_rest | " in card
    assert "energy of this trial: not measured" in card
    assert "energy of the whole sweep: not measured" in card
    evaluated = json.loads((tmp_path / "evaluated" / "metrics.json").read_text(encoding="utf-8"))
    assert (evaluated["model"], evaluated["split"]) == ("toy version 1", "test")
    assert evaluated["test_split_opened"] == 1


@pytest.mark.slow
def test_the_card_of_a_model_without_pictures_says_so(graded: Any) -> None:
    train(graded, FAIR)
    promotion = ask(graded, "candidate", trainable=FromJoints)
    version = MlflowClient(graded.home.tracking).get_model_version("toy", promotion.version)
    card, exact = version.description, version.tags["posetune.value_on_whole_validation"]
    assert len(exact) > 8
    assert exact not in card
    assert f"on the whole validation split: {float(exact):.6g}." in card
    assert "\n- It takes no pictures: this model begins with 2D poses.\n- It returns" in card
    assert "It sees pictures" not in card


def test_card_and_runs_say_what_was_measured_of_energy(graded: Any) -> None:
    run = graded.open()
    number, attempt = graded.begin(run)
    for epoch in range(1, 5):
        run.energy_used(number, attempt, 0.45e6)
        graded.epoch(run, number, attempt, value=9.0 - epoch)
    run.finish(number)

    promotion = ask(graded, alias="candidate")

    client = MlflowClient(graded.home.tracking)
    card = client.get_model_version("toy", promotion.version).description
    assert "energy of this trial: 0.5 kWh of GPUs\n" in card
    assert "energy of the whole sweep: 0.5 kWh of GPUs\n" in card
    trial = client.get_run(promotion.run_id).data.tags
    sweep = client.get_run(trial["mlflow.parentRunId"]).data.tags
    assert trial["posetune.energy_kwh"] == sweep["posetune.energy_kwh"] == "0.5"


@pytest.mark.slow
def test_a_first_candidate_that_beats_nothing_is_refused_and_kept_as_a_version(
    graded: Any, tmp_path: Path
) -> None:
    train(graded, BAD)

    promotion = ask(graded)

    assert (promotion.gate, promotion.uri) == ("refused", "models:/toy/1")
    assert holder(graded) is None
    assert written(graded, promotion, tmp_path)["gate"] == "refused"
    version = MlflowClient(graded.home.tracking).get_model_version("toy", "1")
    assert version.tags["posetune.gate"] == "refused"


@pytest.mark.slow
def test_a_better_candidate_replaces_the_champion_and_rollback_brings_it_back(graded: Any) -> None:
    train(graded, FAIR)
    ask(graded)
    train(graded, GOOD)

    promotion = ask(graded)

    assert (promotion.gate, promotion.version, promotion.replaced) == ("passed", 2, 1)
    assert promotion.verdict is not None
    assert [c.over for c in promotion.verdict.comparisons] == ["all activities", "odd", "even"]
    assert holder(graded) == 2
    assert roll_back(graded.home, model="toy", alias="champion") == (2, 1)
    assert holder(graded) == 1
    with pytest.raises(BadInputError, match="no version had this alias before version 1"):
        roll_back(graded.home, model="toy", alias="champion")
    assert roll_back(graded.home, model="toy", alias="champion", to=2) == (1, 2)
    with pytest.raises(BadInputError, match="models:/toy/9: no such version"):
        roll_back(graded.home, model="toy", alias="champion", to=9)


@pytest.mark.slow
@pytest.mark.parametrize("off", [FAIR, BAD])
def test_an_equal_or_worse_candidate_leaves_the_champion_and_each_look_is_counted(
    graded: Any, off: float
) -> None:
    train(graded, FAIR)
    ask(graded)
    train(graded, off)

    looks = [ask(graded) for _ in range(2)]

    assert [look.gate for look in looks] == ["refused", "refused"]
    assert [look.test_looks for look in looks] == [2, 3]
    assert holder(graded) == 1


@pytest.mark.long
def test_the_champion_itself_is_kept_and_candidates_are_not_gated_without_a_look(
    graded: Any,
) -> None:
    train(graded, GOOD)
    ask(graded)

    assert ask(graded).gate == "kept"
    train(graded, BAD)
    promotion = ask(graded, "candidate")

    assert (promotion.gate, promotion.test_looks) == ("ungated", None)
    assert (holder(graded, "candidate"), holder(graded)) == (2, 1)
    assert count_test_looks(graded.database, DIGEST) == 1


@pytest.mark.long
def test_force_moves_the_alias_unseen_and_says_why(graded: Any, tmp_path: Path) -> None:
    train(graded, GOOD)
    ask(graded)
    train(graded, BAD)

    promotion = ask(graded, force="the old one reads no PNG")

    assert (promotion.gate, promotion.replaced, holder(graded)) == ("forced", 1, 2)
    assert count_test_looks(graded.database, DIGEST) == 1
    assert written(graded, promotion, tmp_path)["reason"] == "the old one reads no PNG"
    assert roll_back(graded.home, model="toy", alias="champion") == (2, 1)


@pytest.mark.slow
def test_other_test_data_is_refused_before_it_is_opened(graded: Any) -> None:
    train(graded, FAIR)
    ask(graded)
    train(graded, GOOD)
    Graded.digest = "e" * 64
    with pytest.raises(BadInputError, match="its digest is eeeeeeeeeeee, but sweep first ran on"):
        ask(graded)
    Graded.digest = DIGEST
    client = MlflowClient(graded.home.tracking)
    client.set_model_version_tag("toy", "1", "posetune.store_digest", "f" * 64)
    with pytest.raises(BadInputError, match="present champion was made from other data"):
        ask(graded)

    assert count_test_looks(graded.database, DIGEST) == 1
    assert holder(graded) == 1


@pytest.mark.long
def test_a_champion_without_files_is_refused_before_the_data_is_opened(graded: Any) -> None:
    train(graded, FAIR)
    ask(graded)
    train(graded, GOOD)
    for folder in graded.home.artifacts.rglob("artifacts/artifacts"):
        shutil.rmtree(folder)

    with pytest.raises(BadInputError, match="models:/toy/1: its files cannot be read"):
        ask(graded)
    assert count_test_looks(graded.database, DIGEST) == 1


@pytest.mark.long
def test_a_champion_that_moved_meanwhile_stays(graded: Any) -> None:
    train(graded, FAIR)
    ask(graded)
    client = MlflowClient(graded.home.tracking)

    class Slow(Graded):
        """While it evaluates, another promotes."""

        __module__ = Toy.__module__

        @classmethod
        def evaluate(cls, *arguments: Any) -> Evaluation:
            if "test" in arguments:
                client.set_registered_model_alias("toy", "champion", "2")
            return super().evaluate(*arguments)

    train(graded, GOOD)
    ask(graded, "candidate")
    train(graded, GOOD)
    with pytest.raises(BadInputError, match="moved meanwhile, from version 1 to 2; nothing was"):
        ask(graded, trainable=Slow)

    assert holder(graded) == 2
    assert client.get_model_version("toy", "3").tags["posetune.gate"] == "ungated"


@pytest.mark.slow
def test_a_promotion_cut_before_the_alias_moved_is_taken_up_again(
    graded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(graded, GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", None)
        with pytest.raises(TypeError):
            ask(graded)
    assert holder(graded) is None

    assert (ask(graded).version, holder(graded)) == (1, 1)


@pytest.mark.slow
def test_finalists_are_trained_again_and_their_means_choose(graded: Any) -> None:
    train(graded, GOOD)
    train(graded, GOOD)
    view = read_sweep(graded.database, "first")
    given = {"trainable": Graded, "seeds": 2, "store": graded.home.folder}

    assert finalist_values(view, graded.home) == ()
    found = retrain_finalists(view, graded.home, **given)
    known = finalist_values(view, graded.home)
    assert sorted(known) == sorted(finalist.values for finalist in found)
    again = retrain_finalists(
        view, graded.home, **{**given, "trainable": type("Idle", (Graded,), {"epoch": None})}
    )

    assert again == found
    assert sorted(f.trial for f in found) == [0, 1]
    assert all(len(set(f.values)) == 3 for f in found)
    assert [f.mean for f in found] == sorted(f.mean for f in found)
    last = found[::-1]
    assert ask(graded, finalists=last).trial == last[0].trial
    Graded.digest = "e" * 64
    with pytest.raises(BadInputError, match="is not the data of sweep first"):
        retrain_finalists(view, graded.home, **given)


@pytest.mark.slow
def test_a_finalist_that_was_extended_is_trained_as_long_again(graded: Any) -> None:
    train(graded, GOOD)
    view = read_sweep(graded.database, "first")
    extended = dataclasses.replace(view.trials[0], last_epoch=view.trials[0].last_epoch + 2)
    longer = dataclasses.replace(view, trials=[extended])
    given = {"trainable": Graded, "seeds": 1, "store": graded.home.folder}

    retrain_finalists(view, graded.home, **given)
    retrain_finalists(longer, graded.home, **given)

    files = (graded.home.folder / "finalists").glob("*.json")
    epochs = sorted(len(json.loads(file.read_text())["epochs"]) for file in files)
    assert epochs == [view.trials[0].last_epoch, extended.last_epoch]


class Lost(Graded):
    """Trains to values that are no numbers, if it has the learning rate of trial 0."""

    __module__ = Toy.__module__
    everywhere: ClassVar[bool] = False

    def epoch(self) -> Any:
        found = super().epoch()
        is_lost = self.everywhere or self.config.x == 0.3
        return {**found, "val/error_mm": math.nan} if is_lost else found


@pytest.mark.slow
@pytest.mark.parametrize("select", ["best", "last"])
def test_a_finalist_whose_mean_is_no_number_ranks_last_and_is_named(
    graded: Any, select: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(graded, GOOD)
    train(graded, GOOD)
    view = read_sweep(graded.database, "first")
    view = dataclasses.replace(view, spec=view.spec.selecting(select))
    given = {"trainable": Lost, "store": graded.home.folder}

    found = retrain_finalists(view, graded.home, seeds=1, **given)

    assert [finalist.trial for finalist in found] == [1, 0]
    assert not found[1].is_finite
    saved = view.trials[0].checkpoint
    assert saved is not None
    shutil.rmtree(Path(graded.home.storage.where(saved.folder)))
    promotion = ask(graded, finalists=found)
    assert promotion.trial == 1
    assert promotion.note == "the mean over seeds of trial 0 is not finite and ranks last"
    assert [(m.trial, m.whole_value is None) for m in promotion.measured][-1] == (0, True)
    monkeypatch.setattr(Lost, "everywhere", True)
    with pytest.raises(
        BadInputError, match="reported values that are not finite, so none is chosen"
    ):
        retrain_finalists(view, graded.home, seeds=2, **given)


def command(scene: Any, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--home", str(scene.home.folder)])


@pytest.mark.slow
def test_a_refusal_is_exit_code_three_with_the_table(
    graded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posetune.workflow.promote.load_trainable", lambda _: Graded)
    train(graded, BAD)
    refuse = ("promote", "first", "--model", "toy", "--alias", "champion")

    refused = command(graded, *refuse, "--json")
    shown = command(graded, *refuse)
    forced = command(graded, *refuse, "--force", "--reason", "for the test")

    assert refused.exit_code == shown.exit_code == 3
    assert json.loads(refused.stdout)["verdict"]["comparisons"][0]["motions"] == 30
    assert "all activities" in shown.output
    assert "test split so far: 2" in shown.output
    assert "stays without the alias" in " ".join(shown.output.split())
    assert forced.exit_code == 0
    assert holder(graded) == 1


@pytest.mark.slow
def test_further_seeds_are_trained_from_the_command_line(
    graded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posetune.workflow.promote.load_trainable", lambda _: Graded)
    train(graded, GOOD)

    result = command(graded, "promote", "first", "--model", "toy", "--seeds", "2", "--json")

    assert result.exit_code == 0, result.output
    (finalist,) = json.loads(result.stdout)["finalists"]
    assert (finalist["trial"], len(finalist["values"])) == (0, 3)


@pytest.mark.parametrize("options", [["--force"], ["--reason", "because"]])
def test_force_and_reason_go_together(graded: Any, options: list[str]) -> None:
    result = command(graded, "promote", "first", "--model", "toy", "--alias", "c", *options)

    assert isinstance(result.exception, BadInputError)
    assert "--force and --reason TEXT go together" in str(result.exception)


def test_a_trial_and_seeds_do_not_go_together(graded: Any) -> None:
    words = ("promote", "first", "--model", "toy", "--trial", "0", "--seeds", "1")
    result = command(graded, *words)
    assert isinstance(result.exception, BadInputError)
    assert "the seeds choose the trial" in str(result.exception)
