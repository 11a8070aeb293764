"""The script that `posetune submit --slurm` writes; `tests/cluster/test_slurm.py` has it run."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import Posetune, run_here

from posetune.api import BadInputError
from posetune.execution.slurm import (
    SlurmJob,
    check_same,
    job_comment,
    job_script,
    node_options,
    sbatch_command,
)
from posetune.home import Home
from posetune.spec.sweep import Resources


def directives(script: str) -> dict[str, str]:
    """The options that sbatch would find; it looks no further than the first command."""
    found: dict[str, str] = {}
    for line in script.splitlines():
        if line.startswith("#SBATCH "):
            name, _, value = line.removeprefix("#SBATCH --").partition("=")
            assert name not in found, f"{name} stands there twice"
            found[name] = value
        elif not line.startswith("#"):
            break
    return found


def test_the_script_holds_every_option_once_and_the_given_ones_count(tmp_path: Path) -> None:
    home = tmp_path / "it's 100% home"
    options = {"partition": "gpu", "time": "1-12:00:00", "cpus-per-task": "8"}
    file = tmp_path / "my sweep.yaml"
    job = SlurmJob(file, "full", "s3://b/store", Home.resolve(home), options)
    script = job_script(job)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    found = directives(script)
    assert {name: found[name] for name in options} == options
    assert found["job-name"] == "posetune-full"
    assert found["output"] == f'"{tmp_path}/it\'s 100%% home/slurm/full-%j.log"'
    assert found["signal"] == "B:USR1@120"
    assert {"requeue", "no-kill"} <= found.keys()
    settings = [shlex.split(line) for line in script.splitlines() if line.startswith("set -- ")]
    assert settings == [["set", "--", str(file), "full", "s3://b/store"]]
    assert f"POSETUNE_HOME={shlex.quote(str(home))}" in script


def test_the_command_repeats_the_scripts_options_because_the_shells_count_more_than_a_script(
    tmp_path: Path,
) -> None:
    home = tmp_path / "it's 100% home"
    options = {"partition": "gpu", "time": "1-12:00:00"}
    job = SlurmJob(tmp_path / "sweep.yaml", "full", "s", Home.resolve(home), options)
    program, *words, script = sbatch_command(job)
    assert (program, script) == ("sbatch", str(job.script))
    said = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    assert said.pop("comment") == job_comment(job)
    assert said.pop("parsable") == ""
    in_script = directives(job_script(job))
    assert in_script.pop("output") == f'"{said.pop("output")}"'
    assert said == in_script


@pytest.fixture
def job(tmp_path: Path) -> SlurmJob:
    return SlurmJob(tmp_path / "a.yaml", "a", "/store", Home.resolve(tmp_path), {"nodes": "2"})


def test_a_job_is_found_again_by_its_comment(job: SlurmJob) -> None:
    check_same(job, "7", job_comment(job))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file": Path("/other.yaml")}, "its file is {job.file}, this one's /other.yaml"),
        ({"store": "/other"}, "its store is /store, this one's /other"),
        (
            {"home": Home.resolve(Path("/other"))},
            "its home is {job.home.folder}, this one's /other",
        ),
        ({"options": {"nodes": "4"}}, "another: its script is another (`scontrol write batch_scri"),
    ],
)
def test_another_job_of_the_sweeps_name_is_refused_with_the_difference(
    job: SlurmJob, change: dict[str, Any], words: str
) -> None:
    ours = dataclasses.replace(job, **change)
    with pytest.raises(BadInputError) as refused:
        check_same(ours, "7", job_comment(job))
    assert "sweep a: is in Slurm already as job 7" in str(refused.value)
    assert words.format(job=job) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("comment", ["", "(null)", "by hand", "[1]"])
def test_a_job_that_does_not_say_what_it_runs_is_refused(job: SlurmJob, comment: str) -> None:
    with pytest.raises(BadInputError, match="its store is not known, this one's /store"):
        check_same(job, "7", comment)


@pytest.mark.parametrize("value", ["gpu\n#SBATCH --uid=0", "a b", "", '"', "$(id)"])
def test_no_option_can_add_another_line(tmp_path: Path, value: str) -> None:
    job = SlurmJob(tmp_path / "a.yaml", "a", "s", Home.resolve(tmp_path), {"partition": value})
    with pytest.raises(BadInputError, match="--partition"):
        job_script(job)


@pytest.mark.parametrize(
    ("resources", "gpus", "cpus", "expected"),
    [
        ({"cpu": 4}, None, None, {"cpus-per-task": "4"}),
        ({"cpu": 1, "stage_cpu": 2}, None, None, {"cpus-per-task": "2"}),
        ({"cpu": 4, "gpu": 1}, "8", None, {"cpus-per-task": "32", "gpus-per-node": "8"}),
        # One trial builds a stage, and the others wait for it.
        (
            {"cpu": 4, "gpu": 1, "stage_cpu": 16},
            "8",
            None,
            {"cpus-per-task": "32", "gpus-per-node": "8"},
        ),
        (
            {"cpu": 4, "gpu": 1, "stage_cpu": 16},
            "2",
            None,
            {"cpus-per-task": "16", "gpus-per-node": "2"},
        ),
        ({"cpu": 2, "gpu": 0.5}, "a100:2", None, {"cpus-per-task": "8", "gpus-per-node": "a100:2"}),
        ({"cpu": 4, "gpu": 2}, "4", 12, {"cpus-per-task": "12", "gpus-per-node": "4"}),
        ({"cpu": 1}, "2", None, {"cpus-per-task": "1", "gpus-per-node": "2"}),
    ],
)
def test_a_node_is_asked_for_what_its_trials_take(
    resources: dict[str, float], gpus: str | None, cpus: int | None, expected: dict[str, str]
) -> None:
    assert node_options(Resources(**resources), gpus, cpus) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gpus", "cpus", "words"),
    [
        (None, None, "ask for 1 or more"),
        ("many", None, "must be a number"),
        ("4", 3, "ask for 4 or more"),
    ],
)
def test_a_node_that_holds_no_trial_is_refused(
    gpus: str | None, cpus: int | None, words: str
) -> None:
    with pytest.raises(BadInputError, match=words):
        node_options(Resources(cpu=4, gpu=1), gpus, cpus)


def test_labels_that_no_node_of_a_job_has_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"label kind \(resources.labels") as refused:
        node_options(Resources(labels={"kind": "h100"}), None, None)
    assert "\n" not in str(refused.value)
    of_ray = Resources(labels={"ray.io/accelerator-type": "H100"})
    assert node_options(of_ray, None, None) == {"cpus-per-task": "1"}


def test_a_dry_run_prints_the_script_and_writes_nothing(
    posetune: Posetune, toy_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    words = ["submit", toy_sweep(), "--slurm", "--qos", "long", "--account", "me", "--dry-run"]
    printed = posetune(*words)
    assert printed.returncode == 0, printed.stderr
    found = directives(printed.stdout)
    assert (found["qos"], found["account"], found["nodes"]) == ("long", "me", "1")
    assert not (tmp_path / "home").exists()
    as_json = json.loads(posetune(*words, "--json").stdout)
    assert as_json == {"script": printed.stdout}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--slurm"], "there is no squeue on this machine"),
        (["--slurm", "--address", "http://127.0.0.1:9"], "either --address"),
        ([], "either --address"),
        (["--slurm", "--follow"], "--follow: only with --address"),
        (["--address", "http://127.0.0.1:9", "--nodes", "2"], "--nodes: only with --slurm"),
        (["--address", "http://127.0.0.1:9", "--mem", "1G"], "--mem: only with --slurm"),
    ],
)
def test_what_cannot_be_submitted_is_said_in_one_line(
    toy_sweep: Callable[..., Path], tmp_path: Path, options: list[str], words: str
) -> None:
    environment = {"PATH": str(tmp_path)}  # no Slurm there
    refused = run_here("submit", toy_sweep(), *options, folder=tmp_path, environment=environment)
    assert refused.returncode == 2
    assert words in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "home").exists()
