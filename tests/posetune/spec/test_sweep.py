"""The sweep file: what is good is read, what is bad is refused with file, line and key."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from posetune.api import BadInputError
from posetune.spec.loading import configure, default_params, load_sweep, vary_one_by_one
from posetune.spec.sweep import SweepSpec
from posetune.study.search.rungs import rung_epochs
from posetune.testing.toy import Toy, ToyConfig

GOOD = """\
trainable: posetune.testing.toy:Toy
store: somewhere
objective: {metric: val/error_mm, mode: min}
search:
  x: {float: [0.01, 1], log: true}
  depth: {int: [2, 8], step: 2}
fixed: {epoch_s: 0}
pruner: {name: asha, max_epochs: 9}
budget: {trials: 4}
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "sweep.yaml"
    file.write_text(text)
    return file


def test_a_good_file_survives_the_way_through_json(tmp_path: Path) -> None:
    spec, _, _ = load_sweep(written(tmp_path, GOOD))
    assert SweepSpec.model_validate(spec.canonical()) == spec


def test_trial_0_has_the_defaults(tmp_path: Path) -> None:
    spec, trainable, _ = load_sweep(written(tmp_path, GOOD))
    defaults = ToyConfig()
    assert default_params(spec, trainable.config_model) == {
        "x": defaults.x,
        "depth": defaults.depth,
    }


@pytest.mark.parametrize(
    ("space", "nearest"),
    [
        ("{int: [6, 12], step: 3}", 6),
        ("{int: [1, 3]}", 3),
        ("{choice: [2, 5, 9]}", 5),
        ("{choice: [4, 8]}", 4),
    ],
)
def test_a_default_outside_the_space_becomes_the_nearest(
    tmp_path: Path, space: str, nearest: int
) -> None:
    text = GOOD.replace("{int: [2, 8], step: 2}", space)
    spec, trainable, _ = load_sweep(written(tmp_path, text))
    assert default_params(spec, trainable.config_model)["depth"] == nearest


@pytest.mark.parametrize(
    ("before", "after", "line", "words"),
    [
        ("budget:", "budgets:", 9, "budgets: no such key"),
        ("{trials: 4}", "{trials: many}", 9, "budget.trials"),
        ("{trials: 4}", "{trials: 0}", 9, "budget.trials"),
        ("{trials: 4}", "{trials: true}", 9, "budget.trials"),
        ("{trials: 4}", "{}", 9, "budget.trials: is missing"),
        ("x: {float: [0.01, 1], log: true}", "x: {float: [1, 0.01]}", 5, "low < high"),
        ("x: {float: [0.01, 1], log: true}", "x: {float: [0, 1], log: true}", 5, "above 0"),
        ("x: {float: [0.01, 1], log: true}", "x: {flot: [0.01, 1]}", 5, "search.x: must be"),
        ("x: {float: [0.01, 1], log: true}", "x: {float: [0.01, 7]}", 5, "got 7.0"),
        ("x: {float: [0.01, 1], log: true}", "y: {float: [0.01, 1]}", 5, "no such field"),
        ("fixed: {epoch_s: 0}", "fixed: {epoch_s: -1}", 7, "fixed.epoch_s"),
        ("fixed: {epoch_s: 0}", "fixed: {x: 0.5}", 5, "also fixed"),
        ("fixed: {epoch_s: 0}", "fixed: {epoch_s: 0, epoch_s: 1}", 7, "is given twice"),
        ("val/error_mm", "val/nothing", 3, "does not report"),
        ("mode: min", "mode: max", 3, "better when lower"),
        ("toy:Toy", "toy:Boy", 1, "is not registered"),
        ("posetune.testing.toy:Toy", "no_such_package:Toy", 1, "is not registered"),
        ("max_epochs: 9", "max_epochs: 9, grace_epochs: 10", 8, "more than max_epochs"),
        ("  depth: {int: [2, 8], step: 2}", "  depth: {int: [2, 8]", 7, "not valid YAML"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(
    tmp_path: Path, before: str, after: str, line: int, words: str
) -> None:
    assert before in GOOD
    file = written(tmp_path, GOOD.replace(before, after, 1))
    with pytest.raises(BadInputError) as caught:
        load_sweep(file)
    assert f"{file}:{line}" in str(caught.value)
    assert words in str(caught.value)


ONE_BY_ONE = GOOD.replace("float: [0.01, 1], log: true", "choice: [0.5, 0.1]").replace(
    "trials: 4}", "trials: 5}\nsampler: {name: one_by_one}"
)


def test_an_ablation_changes_one_field_at_a_time(tmp_path: Path) -> None:
    spec, trainable, _ = load_sweep(written(tmp_path, ONE_BY_ONE))
    first = default_params(spec, trainable.config_model)

    assert vary_one_by_one(spec, first) == [
        {"x": 0.5, "depth": 2},
        {"x": 0.1, "depth": 2},
        {"x": 0.5, "depth": 4},
        {"x": 0.5, "depth": 6},
        {"x": 0.5, "depth": 8},
    ]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            "choice: [0.5, 0.1]",
            "float: [0.1, 0.5]",
            "yaml:4: search: sampler one_by_one cannot try every real number of x",
        ),
        ("trials: 5", "trials: 6", "yaml:9: budget.trials: one_by_one has 5 trials"),
    ],
)
def test_an_ablation_that_cannot_be_is_refused(
    tmp_path: Path, before: str, after: str, words: str
) -> None:
    with pytest.raises(BadInputError, match=words):
        load_sweep(written(tmp_path, ONE_BY_ONE.replace(before, after)))


def test_an_ablation_of_a_range_without_end_is_refused_before_it_is_written_out() -> None:
    space = {"n": {"int": [2, 2_000_000_000]}}
    given = {"objective": {"metric": "m", "mode": "min"}, "pruner": {"max_epochs": 1}}
    spec = SweepSpec.model_validate({**given, "search": space, "budget": {"trials": 2}})
    with pytest.raises(ValueError, match="cannot try all 1999999999 values of n"):
        vary_one_by_one(spec, {"n": 2})


@pytest.mark.parametrize("content", ["", "just words", "[1, 2]", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(BadInputError):
        load_sweep(written(tmp_path, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file"):
        load_sweep(tmp_path / "none.yaml")


def test_dotted_names_become_nested_fields() -> None:
    from pydantic import BaseModel

    class Inner(BaseModel):
        depth: int = 1

    class Outer(BaseModel):
        flow: Inner = Inner()

    assert configure(Outer, {}, {"flow.depth": 7}).model_dump() == {"flow": {"depth": 7}}


def test_every_search_space_of_the_project_is_good(repository: Path) -> None:
    files = sorted((repository / "search_spaces").rglob("*.yaml"))
    assert {file.name for file in files} >= {
        "quickstart.yaml",
        "loss_weights.yaml",
        "flow_depth.yaml",
        "full.yaml",
        "hands.yaml",
    }
    for file in files:
        load_sweep(file)


def write_package(folder: Path) -> None:
    """A package with a trainable, and what notes that it was imported."""
    folder.mkdir()
    (folder / "mine.py").write_text(
        "from pathlib import Path\n"
        "from posetune.testing.toy import Toy\n"
        "Path(__file__).with_name('imported').touch()\n"
        "class Mine(Toy): pass\n"
    )


@pytest.mark.parametrize("how", ["not", "entry point", "variable"])
def test_only_a_registered_trainable_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    package = tmp_path / "package"
    write_package(package)
    monkeypatch.syspath_prepend(package)
    monkeypatch.delenv("POSETUNE_TRAINABLES", raising=False)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    if how == "variable":
        monkeypatch.setenv("POSETUNE_TRAINABLES", "other:One, mine:Mine")
    if how == "entry point":  # what an installation writes
        (package / "mine-1.0.dist-info").mkdir()
        (package / "mine-1.0.dist-info" / "METADATA").write_text("Name: mine\nVersion: 1.0\n")
        entry = "[posetune.trainables]\nmine = mine:Mine\n"
        (package / "mine-1.0.dist-info" / "entry_points.txt").write_text(entry)
    text = GOOD.replace("posetune.testing.toy:Toy", "mine:Mine")
    file = written(tmp_path, text)
    if how == "not":
        with pytest.raises(BadInputError, match=r"trainable mine:Mine: is not registered") as error:
            load_sweep(file)
        assert '[project.entry-points."posetune.trainables"]' in str(error.value)
        assert f"{file}:" in str(error.value)
    else:
        assert load_sweep(file)[1].__name__ == "Mine"
    assert (package / "imported").exists() == (how != "not")


@pytest.mark.parametrize(
    ("name", "said"),
    [("posetune.testing.toy:Boy", "has no class 'Boy'"), ("no_such_package:Toy", "no module")],
)
def test_what_is_registered_must_also_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setenv("POSETUNE_TRAINABLES", name)
    text = GOOD.replace("posetune.testing.toy:Toy", name)
    with pytest.raises(BadInputError, match=said):
        load_sweep(written(tmp_path, text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("pruner: {name: asha,", "sampler: {name: tpe}\npruner: {name: thaw,"),
            "sweep.yaml: pruner: thaw compares trials with new points by its own model: give "
            "sampler: {name: gp}, or no name",
        ),
        (
            ("budget:", "prior: {speed: 1.0}\nbudget:"),
            "sweep.yaml: prior: speed is not searched",
        ),
    ],
)
def test_sections_that_do_not_go_together_are_refused_in_one_line(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(BadInputError) as refusal:
        load_sweep(written(tmp_path, GOOD.replace(*change)))
    assert str(refusal.value).removeprefix(f"{tmp_path}/") == message


DECAYS = """\
objective: {metric: val/p_mpjpe_mm, mode: min}
search: {learning_rate: {float: [1e-4, 1e-2], log: true}}
fixed: {mode: lifting, decay_steps: 540}
pruner: {max_epochs: 27}
budget: {trials: 4}
"""


@pytest.mark.parametrize(
    ("change", "rungs"),
    [
        (("", ""), [6, 12, 24]),
        (("decay_steps: 540", "decay_steps: 0"), [1, 3, 9]),
        (("max_epochs: 27", "max_epochs: 27, grace_epochs: 3"), [3, 6, 12, 24]),
        (("max_epochs: 27", "max_epochs: 27, reduction_factor: 3"), [6, 18]),
        (("max_epochs: 27", "max_epochs: 27, grace_epochs: 1, reduction_factor: 3"), [1, 3, 9]),
        (("max_epochs: 27", "max_epochs: 2"), [1]),
    ],
)
def test_the_first_rung_comes_late_where_rates_decay_unless_the_file_says_otherwise(
    tmp_path: Path, change: tuple[str, str], rungs: list[int]
) -> None:
    spec, _, _ = load_sweep(written(tmp_path, DECAYS.replace(*change)))
    assert rung_epochs(spec.pruner) == rungs
    assert SweepSpec.model_validate(spec.canonical()).pruner == spec.pruner


def test_a_trainable_whose_metric_has_a_name_of_the_platforms_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So `check` and `train` refuse it as `sweep` does: all of them load the file."""
    more = {**Toy.metrics, "time/epoch_s": Toy.metrics["train/step"]}
    monkeypatch.setattr(Toy, "metrics", more)
    with pytest.raises(BadInputError, match=r"metric 'time/epoch_s': the platform has a number"):
        load_sweep(written(tmp_path, GOOD))
