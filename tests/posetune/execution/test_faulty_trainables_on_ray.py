"""Sweeps of trainables with the faults that users write, as a person runs them, through real Ray.

That each fault is judged rightly is shown without Ray, beside what judges it. Here a person sees
each once: the exit code, what is said, and what the study has of every trial.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import faulty
from support.commands import Posetune
from support.sweeps import view

from posetune.report.handle import open_sweep
from posetune.spec.registration import TRAINABLES_VARIABLE
from posetune.study.view import SweepView
from posetune.testing.toy import Toy

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

Ended = tuple[subprocess.CompletedProcess[str], SweepView]
Run = Callable[..., Ended]


@pytest.fixture
def sweep(
    posetune: Posetune,
    toy_sweep: Callable[..., Path],
    ray_head: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Sweep with one of the classes; return how the command ended, and the sweep."""

    # Ray gives its workers the driver's working folder to import from, and no more of its path.
    shutil.copy(faulty.__file__, tmp_path / "faulty.py")
    monkeypatch.syspath_prepend(tmp_path)

    def run(cls: type[Toy], **fields: object) -> Ended:
        name = f"faulty:{cls.__name__}" if cls is not Toy else "posetune.testing.toy:Toy"
        if cls is not Toy:
            monkeypatch.setenv(TRAINABLES_VARIABLE, name)
        file = toy_sweep(**fields)
        file.write_text(file.read_text().replace("posetune.testing.toy:Toy", name))
        result = posetune("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
        assert "Traceback" not in result.stdout
        assert not list(tmp_path.glob("mlflow.db*")), "a database in the working directory"
        found = view(tmp_path / "home")
        assert found is not None
        return result, found

    return run


@pytest.mark.parametrize("cls", [faulty.NumpyNumbers, faulty.Tensors, faulty.OddNames])
def test_numbers_and_names_of_every_form_are_reported(
    cls: type[Toy], sweep: Run, tmp_path: Path
) -> None:
    result, found = sweep(cls, trials=2, max_epochs=2)
    assert result.returncode == 0, result.stderr
    assert {trial.state for trial in found.trials} <= {"COMPLETE", "PRUNED"}
    for report in open_sweep("s", tmp_path / "home").reports().to_pylist():
        assert all(isinstance(report[name], float) for name in ("val/error_mm", "train/step"))


@pytest.mark.parametrize(
    ("cls", "shown", "epochs"),
    [
        (faulty.CodeErrorAtStart, "KeyError: 'no such key'", 0),
        (faulty.Collapse, "loss is NaN", 2),
        (faulty.Never, "epoch() did not report val/error_mm", 0),
        (faulty.SpeaksToMlflow, "log_metric", 0),
    ],
)
def test_a_fault_in_every_trial_ends_the_sweep_after_three(
    cls: type[Toy], shown: str, epochs: int, sweep: Run
) -> None:
    result, found = sweep(cls, trials=12, max_epochs=9, concurrent=1)
    assert result.returncode == 1, result.stderr
    assert shown in result.stderr
    assert result.stderr.count("continues the sweep") == 1
    assert "Next:" not in result.stderr
    failed = [trial for trial in found.trials if trial.state == "FAILED"]
    assert len(failed) == 3
    assert all(shown in trial.reason for trial in failed)
    assert {trial.epochs for trial in failed} == {epochs}
    assert {trial.attempts for trial in failed} == {1}


def test_a_trial_without_a_number_is_cut_and_the_others_go_on(sweep: Run) -> None:
    result, found = sweep(faulty.NanFirst, trials=8, max_epochs=3)
    assert result.returncode == 0, result.stderr
    nan = [trial for trial in found.trials if float(trial.params["x"]) > 0.5]
    assert nan
    assert all((trial.state, trial.epochs) == ("PRUNED", 1) for trial in nan)
    assert any(trial.state == "COMPLETE" for trial in found.trials)


def test_a_process_that_exits_by_itself_is_a_crash(sweep: Run) -> None:
    result, found = sweep(faulty.Exit, trials=1, max_epochs=3)
    assert result.returncode == 1, result.stderr
    (trial,) = found.trials
    assert (trial.state, trial.epochs) == ("FAILED", 0)
    assert "no trial has reported val/error_mm" in result.stderr


def test_no_trial_finds_what_another_has_left(sweep: Run, tmp_path: Path) -> None:
    result, found = sweep(faulty.Leak, trials=4, max_epochs=2, concurrent=1)
    assert result.returncode == 0, result.stderr
    reports = open_sweep("s", tmp_path / "home").reports().to_pylist()
    first = [
        {name: value for name, value in report.items() if name.startswith("state/")}
        for report in reports
        if report["epoch"] == 1
    ]
    assert len(first) == len(found.trials) == 4
    assert all(first)
    assert all(state == first[0] for state in first)
    changed = next(report for report in reports if report["epoch"] == 2)
    same = [name for name, value in first[0].items() if changed[name] == value]
    assert same == []  # every state was left otherwise than it was found


def test_where_nothing_is_ever_compared_check_and_sweep_say_so(
    sweep: Run, posetune: Posetune, tmp_path: Path, toy_sweep: Callable[..., Path]
) -> None:
    file = toy_sweep(trials=2, max_epochs=1)  # the first rung is the last epoch
    assert "no trial is ever compared and cut" in posetune("check", file).stderr
    result, _ = sweep(Toy, trials=2, max_epochs=1)
    assert result.returncode == 0
    assert "no trial is ever compared and cut" in result.stderr


def test_a_range_whose_step_does_not_meet_its_end_is_searched(
    posetune: Posetune, toy_sweep: Callable[..., Path], ray_head: str, tmp_path: Path
) -> None:
    file = toy_sweep(trials=4, max_epochs=2)
    text = file.read_text().replace(
        "{float: [0.01, 1], log: true}", "{float: [0.01, 0.3], step: 0.1}"
    )
    file.write_text(text)
    result = posetune("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
    assert result.returncode == 0, result.stderr
    found = view(tmp_path / "home")
    assert found is not None
    assert {trial.params["x"] for trial in found.trials} <= {0.01, 0.11, 0.21}
    assert found.trials[0].params["x"] == 0.21  # the toy's default is 0.3


def test_a_million_trials_start_at_once_and_end_with_their_hour(
    posetune: Posetune, toy_sweep: Callable[..., Path], ray_head: str, tmp_path: Path
) -> None:
    file = toy_sweep(trials=1_000_000, max_epochs=9)
    text = file.read_text().replace("trials: 1000000", "trials: 1000000, gpu_hours: 0.01")
    file.write_text(text)
    result = posetune("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
    assert result.returncode == 0, result.stderr
    found = view(tmp_path / "home")
    assert found is not None
    assert 0 < len(found.trials) < 10_000
    assert found.stopped.startswith("the budget of 0.01 trial-hours is spent")
