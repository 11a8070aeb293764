"""The files of cluster/, as far as they can be checked without their platforms."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from posetune.execution.slurm import TEMPLATE
from posetune.provenance import COMMIT_VARIABLE


@pytest.fixture
def cluster(repository: Path) -> Path:
    return repository / "cluster"


def pinned(cluster: Path, package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", (cluster / "constraints.txt").read_text(), re.M)
    assert found
    return found[1]


@pytest.mark.parametrize("name", ["on_premise.yaml", "aws.yaml"])
def test_launcher_files_pass_rays_own_checks(cluster: Path, name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((cluster / name).read_text()))
    validate_config(config)
    for command in config["head_start_ray_commands"]:
        assert "--dashboard-host=0.0.0.0" not in command
    token = "~/.ray/auth_token"
    assert config["file_mounts"][token] == token
    assert "RAY_AUTH_MODE=token" in str(config)
    for source in config["file_mounts"].values():
        assert source.startswith("~") or (cluster.parent / source).exists()


def test_spot_workers_scale_and_the_head_is_on_demand_and_takes_no_trial(cluster: Path) -> None:
    config = yaml.safe_load((cluster / "aws.yaml").read_text())
    head = config["available_node_types"][config["head_node_type"]]
    workers = config["available_node_types"]["gpu"]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert workers["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert (workers["min_workers"], workers["max_workers"]) == (0, config["max_workers"])


@pytest.mark.parametrize("name", ["raycluster.yaml", "base/sweep.yaml"])
def test_kuberay_starts_the_ray_that_is_pinned(cluster: Path, name: str) -> None:
    manifest = yaml.safe_load((cluster / "kuberay" / name).read_text())
    spec = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    assert manifest["apiVersion"] == "ray.io/v1"
    assert spec["rayVersion"] == pinned(cluster, "ray")


def test_the_image_copies_what_is_there_and_pins_every_version(cluster: Path) -> None:
    lines = (cluster / "Dockerfile").read_text().splitlines()
    (base,) = (line for line in lines if line.startswith("FROM"))
    assert re.fullmatch(r"FROM python:3\.11[.\d]*-slim-bookworm@sha256:[0-9a-f]{64}", base)
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied
    assert all((cluster.parent / name).exists() for name in copied)
    assert any("--constraint cluster/constraints.txt" in line for line in lines)
    kept = (cluster.parent / ".dockerignore").read_text().splitlines()
    assert all(f"!{name}" in kept for name in copied), "the rest of the checkout is not sent"


def test_a_change_of_the_code_keeps_the_layer_with_what_it_depends_on(cluster: Path) -> None:
    text = (cluster / "Dockerfile").read_text()
    places = [text.index(w) for w in ("--requirement", "COPY platform", "--no-deps", "ARG COMMIT")]
    assert places == sorted(places)
    assert f"{COMMIT_VARIABLE}=$COMMIT" in text
    for program in ("rsync", "boto3", "wget", "gcc"):
        assert program in text
    mlflow = (cluster / "tracking" / "Dockerfile").read_text()
    assert f"mlflow[auth]=={pinned(cluster, 'mlflow')}" in mlflow


def test_no_password_of_the_servers_has_a_default_and_both_bind_to_loopback(cluster: Path) -> None:
    services = yaml.safe_load((cluster / "tracking" / "compose.yaml").read_text())["services"]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert "${POSTGRES_PASSWORD:?" in services["postgres"]["environment"]["POSTGRES_PASSWORD"]
    for line in (cluster / "tracking" / "example.env").read_text().splitlines():
        assert line.startswith("#") or line.endswith("=")
    assert "admin_password =\n" in (cluster / "tracking" / "example.auth.ini").read_text()


@pytest.fixture
def compose(required: Callable[[str, bool, str], None]) -> list[str]:
    """The words that call Docker Compose, as Docker's plugin or as a program of its own."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) and subprocess.run([*words, "version"]).returncode == 0:
            return words
    required("compose", False, "install Docker Compose (Debian: docker-compose)")
    raise AssertionError


@pytest.mark.slow
def test_compose_takes_the_servers_only_with_their_passwords(
    cluster: Path, compose: list[str], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(cluster / "tracking", tmp_path / "tracking"))
    names = re.findall(r"^(\w+)=$", (folder / "example.env").read_text(), re.M)
    for filled in range(len(names)):
        lines = [f"{name}=secret-{number}\n" for number, name in enumerate(names[:filled])]
        (folder / ".env").write_text("".join(lines))
        refused = run_config(compose, folder)
        assert refused.returncode != 0
        assert "write it into cluster/tracking/.env" in refused.stderr
    lines = [f"{name}=secret-{number}\n" for number, name in enumerate(names)]
    (folder / ".env").write_text("".join(lines))
    taken = run_config(compose, folder)
    assert taken.returncode == 0, taken.stderr
    services = yaml.safe_load(taken.stdout)["services"]
    given = [value for service in services.values() for value in service["environment"].values()]
    for number in range(len(names)):
        assert any(f"secret-{number}" in value for value in given)


def run_config(compose: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [*compose, "-f", "compose.yaml", "config"]
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["slurm/sweep.sbatch", "tracking/plain.sh"])
def test_scripts_are_valid_shell(cluster: Path, name: str) -> None:
    subprocess.run(["bash", "-n", str(cluster / name)], check=True)


def test_slurms_script_is_the_one_that_submit_fills_in(cluster: Path) -> None:
    assert (cluster / "slurm" / "sweep.sbatch").samefile(TEMPLATE)
