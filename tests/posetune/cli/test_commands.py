"""The commands: what they print, what they refuse, what they never import too early."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from support.commands import Posetune, run_here
from support.simulated_driver import drive, open_unsynced, simulated_start

COMMANDS = ["data", "data import", "data info", "train", "evaluate", "check", "sweep", "submit"]
COMMANDS += ["show", "logs", "stop", "report", "compare", "reproduce", "export-study", "track"]
COMMANDS += ["stages", "promote", "rollback"]
COMMANDS += ["predict", "export", "ui", "fields", "schema", "benchmark", "notify"]
COMMANDS += ["list", "note", "tag", "trial", "trial stop", "trial pin", "trial retry"]
COMMANDS += ["archive", "unarchive", "backup", "restore", "delete", "usage", "metrics", "approve"]
COMMANDS += ["queue", "clean"]
COMMANDS += ["trial extend", "enqueue", "hold", "release", "edit"]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from posetune.cli.app import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'sqlalchemy', 'numpy', 'pydantic'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    told = run_here("--version", folder=tmp_path)
    assert told.returncode == 0, told.stderr
    assert told.stdout.split() == ["posetune", metadata.version("posetune")]


def test_a_command_that_is_mistyped_is_suggested(tmp_path: Path) -> None:
    told = run_here("swep", folder=tmp_path)
    assert told.returncode == 2
    assert "Did you mean 'sweep'?" in told.stderr


@pytest.mark.slow
def test_what_is_not_there_is_said_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    commands = ["show a", "logs a", "stop a", "report a", "compare a b", "track a", "reproduce a"]
    commands += ["promote a --model m", "export-study a --to a.db", "sweep a.yaml"]
    commands += ["submit a.yaml --address http://127.0.0.1:9", "check a.yaml", "train a.yaml"]
    commands += ["evaluate a --store b --out c", "list", "note a b", "trial stop a 1", "hold a"]
    code = (
        "import contextlib, sys\n"
        "from posetune.cli import main\n"
        f"for command in {commands}:\n"
        "    sys.argv = ['posetune', *command.split()]\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        main()\n"
        "    heavy = {'torch', 'ray', 'mlflow'} & set(sys.modules)\n"
        "    if heavy:\n"
        "        sys.exit(f'{command} imported {heavy}')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "POSETUNE_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-500:]
    assert result.stderr.count("error: ") == len(commands), result.stderr
    assert "Usage" not in result.stderr, "each came as far as to look"


@pytest.mark.slow
def test_a_process_ends_with_the_exit_code_and_one_line(posetune_process: Posetune) -> None:
    refused = posetune_process("show", "a")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1
    assert posetune_process("--help").returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(posetune: Posetune, command: str) -> None:
    result = posetune(*command.split(), "--help")
    assert result.returncode == 0
    if command not in ("data", "trial"):
        assert f"posetune {command}" in result.stdout


def completion(line: str) -> dict[str, str]:
    """What a shell sets to ask for the end of a command line."""
    return {
        "_POSETUNE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }


def test_a_shell_asks_a_process_for_completions(tmp_path: Path) -> None:
    command = "import sys; from posetune.cli import main; sys.argv = ['posetune']; main()"
    done = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, **completion("posetune re"), "POSETUNE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["release", "report", "reproduce", "restore"]


def test_commands_options_and_sweeps_are_completed(tmp_path: Path) -> None:
    def completed(line: str) -> list[str]:
        return run_here(folder=tmp_path, environment=completion(line)).stdout.split()

    home = tmp_path / "home"
    assert completed("posetune re") == ["release", "report", "reproduce", "restore"]
    assert "--evaluate" in completed("posetune report --ev")
    assert completed("posetune show ") == []
    home.mkdir()
    for name in ("first", "other"):
        sweep_start = dataclasses.replace(simulated_start(), name=name)
        drive(open_unsynced(home / "study.db"), sweep_start)
    assert completed("posetune show fi") == ["first"]
    assert completed("posetune compare first ") == ["other", "first"]
    assert completed("posetune submit file.yaml --name o") == ["other"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sweep", "none.yaml", "--name", "a"], "none.yaml: no such file"),
        (["sweep", "{file}", "--name", "../a"], "a sweep's name takes"),
        (["sweep", "{file}", "--name", "a", "--store", "nowhere"], "no store at nowhere"),
        (["check", "{file}", "--store", "{file}"], "is no toy store"),
        (["train", "{file}", "--set", "y=1"], "--set y: no such field"),
        (["train", "{file}", "--set", "x=9"], "--set x: "),
        (["train", "{file}", "--set", "x"], "must be KEY=VALUE"),
        (["show", "a"], "nothing has run under this home yet"),
        (["promote", "a", "--model", "m"], "nothing has run under this home yet"),
        (["promote", "a", "--model", "m", "--out", "o"], "give --alias champion without --force"),
        (["data", "import", "--format", "none", "--out", "s"], "known are"),
        (["data", "import", "--format", "mocap17", "--out", "s"], "needs a file"),
        (["data", "import", "no.h5", "--format", "mocap17", "--out", "s"], "no.h5"),
        (["data", "info", "nowhere"], "nowhere"),
        (["submit", "{file}", "--address", "http://127.0.0.1:9", "--name", "a"], "no Ray job"),
        (["sweep"], "Missing argument"),
    ],
)
def test_bad_input_is_one_clear_line(
    posetune: Posetune, toy_sweep: Callable[..., Path], arguments: list[str], words: str
) -> None:
    file = toy_sweep()
    result = posetune(*(argument.format(file=file) for argument in arguments))
    assert result.returncode == 2
    assert words in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


def test_check_prints_the_plan_and_leaves_nothing_behind(
    posetune: Posetune, toy_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    result = posetune("check", toy_sweep(trials=9, max_epochs=9, epoch_s=2.0), "--json")
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["trials"] == 9
    assert 1 < plan["stages"]["floor"] <= 4
    assert 9 < plan["epochs"][0] < plan["epochs"][1] < plan["most_epochs"] == 81
    assert plan["seconds"][0] < plan["seconds"][1]
    assert plan["epoch_s"] == 2.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy-store", "toy.yaml"]


def test_check_warns_where_nothing_is_shared(
    posetune: Posetune, toy_sweep: Callable[..., Path]
) -> None:
    result = posetune("check", toy_sweep(trials=2))
    assert "stage floor is distinct for every trial: a searched field changes it" in result.stderr
    assert "distinct for every" not in posetune("check", toy_sweep(trials=12)).stderr


def test_a_single_trial_continues_where_it_stopped(
    posetune: Posetune, toy_sweep: Callable[..., Path]
) -> None:
    file = toy_sweep(max_epochs=4)
    whole = posetune("train", file, "--name", "whole", "--json")
    assert whole.returncode == 0, whole.stderr
    epochs = json.loads(whole.stdout)["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3, 4]
    again = posetune("train", file, "--name", "whole", "--json")
    assert json.loads(again.stdout)["epochs"] == epochs
    for until in (2, 4):
        parts = posetune("train", file, "--name", "parts", "--epochs", until, "--json")
        found = json.loads(parts.stdout)["epochs"]
        assert [{**e, "seconds": 0} for e in found] == [{**e, "seconds": 0} for e in epochs[:until]]
    other = posetune("train", file, "--name", "whole", "--set", "x=0.9")
    assert other.returncode == 2
    assert "--fresh" in other.stderr
    fresh = posetune("train", file, "--name", "whole", "--fresh", "--json")
    values = [epoch["val/error_mm"] for epoch in json.loads(fresh.stdout)["epochs"]]
    assert values == [epoch["val/error_mm"] for epoch in epochs]


def test_a_store_that_does_not_fit_is_refused_before_anything_is_spent(
    posetune: Posetune, tiny_store: Path, repository: Path, tmp_path: Path
) -> None:
    file = tmp_path / "large.yaml"
    text = (repository / "search_spaces" / "selfpose" / "quickstart.yaml").read_text()
    text = text.replace("image_size: 32", "image_size: 128")
    text = text.replace("narrowest_px: 8", "narrowest_px: 16")
    file.write_text(text.replace("map_px: 8", "map_px: 16"))
    for command in ("check", "sweep", "train"):
        result = posetune(command, file, "--store", tiny_store)
        assert result.returncode == 2, (command, result.stderr)
        assert "128 px cannot be made from the store's 64 px" in result.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_named(
    posetune: Posetune, toy_sweep: Callable[..., Path]
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    file = toy_sweep()
    file.write_text(file.read_text().replace("{cpu: 1}", "{cpu: 1, gpu: 1}"))
    for command in ("sweep", "train"):
        result = posetune(command, file)
        assert result.returncode == 2, (command, result.stderr)
        assert "gpu" in result.stderr
        assert "Traceback" not in result.stderr
    plan = json.loads(posetune("check", file, "--json").stdout)
    assert "torch sees no GPU" in plan["not_measured"]


def test_another_seed_is_another_training(
    posetune: Posetune, toy_sweep: Callable[..., Path]
) -> None:
    file = toy_sweep(max_epochs=2)
    assert posetune("train", file, "--seed", 0).returncode == 0
    other = posetune("train", file, "--seed", 1)
    assert other.returncode == 2
    assert "another configuration, seed or store" in other.stderr
    longer = posetune("train", file, "--seed", 0, "--epochs", 3, "--json")
    assert [epoch["epoch"] for epoch in json.loads(longer.stdout)["epochs"]] == [1, 2, 3]


def test_a_home_that_cannot_be_made_is_named(
    posetune: Posetune, toy_sweep: Callable[..., Path]
) -> None:
    file = toy_sweep()
    for home in ("/proc/nowhere", file / "below"):
        result = posetune("sweep", file, "--home", home)
        assert result.returncode == 2
        assert "cannot be made" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_path_that_no_system_takes_is_one_line(
    posetune: Posetune, toy_sweep: Callable[..., Path]
) -> None:
    file, long = toy_sweep(), "/tmp/" + "a" * 300
    for words in (
        ("list", "--home", long),
        ("train", file, "--name", "t", "--home", long),
        ("check", file, "--store", long),
    ):
        result = posetune(*words)
        assert result.returncode == 2
        assert result.stderr.startswith("error: ")
        assert "File name too long; give another path" in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("content", ["[" * 100_000, "x" * 100_000, None])
def test_a_store_of_the_toy_that_is_none_is_one_line(
    posetune: Posetune, toy_sweep: Callable[..., Path], toy_store: Path, content: str | None
) -> None:
    (toy_store / "toy.json").unlink()
    if content is None:
        os.mkfifo(toy_store / "toy.json")
    else:
        (toy_store / "toy.json").write_text(content)
    result = posetune("check", toy_sweep())
    assert result.returncode == 2
    assert "is no toy store" in result.stderr


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.slow
def test_a_spent_budget_of_hours_says_what_to_raise(
    posetune: Posetune, ray_head: str, toy_sweep: Callable[..., Path]
) -> None:
    file = toy_sweep(trials=900, epoch_s=1.0)  # more than any machine trains in that time
    file.write_text(file.read_text().replace("{trials: 900}", "{trials: 900, wall_hours: 0.0005}"))
    result = posetune("sweep", file, "--name", "short", "--no-tracking", "--address", ray_head)
    reported = "there is no result" not in result.stderr
    assert result.returncode == (0 if reported else 1), result.stderr
    said = " ".join(result.stderr.split())
    assert "raise the budget in the file; then the same command again continues it" in said


def test_a_password_in_an_address_query_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from posetune.api import BadInputError
    from posetune.home import Home

    monkeypatch.setenv("POSETUNE_DATABASE", "postgresql://h/db?user=u&password=hidden")
    with pytest.raises(BadInputError) as caught:
        Home.resolve()
    assert "before the '@'" in str(caught.value)
    assert "hidden" not in str(caught.value)
