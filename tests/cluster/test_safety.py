"""What `cluster/` starts listens on loopback only, and no secret stands on a command line."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

from posetune.cli.commands.results.ui import ui

FILES = [p for p in sorted((Path(__file__).parents[2] / "cluster").rglob("*")) if p.is_file()]
INSIDE_A_CONTAINER = {"compose.yaml", "raycluster.yaml", "sweep.yaml"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_opens_a_server_to_the_network(file: Path) -> None:
    assert ("0.0.0.0" in file.read_text()) <= (file.name in INSIDE_A_CONTAINER)


def test_what_containers_publish_is_published_on_loopback() -> None:
    (compose,) = (file for file in FILES if file.name == "compose.yaml")
    services = yaml.safe_load(compose.read_text())["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    for file in FILES:
        if "kuberay" in file.parts:
            assert "LoadBalancer" not in file.read_text()
            assert "NodePort" not in file.read_text()


def test_the_ui_listens_on_loopback_unless_told() -> None:
    assert inspect.signature(ui).parameters["host"].default == "127.0.0.1"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
@pytest.mark.parametrize("flag", ["--from-literal", "--password=", "PASSWORD=$", "AUTH_TOKEN=$"])
def test_no_command_takes_a_secret_as_an_argument(file: Path, flag: str) -> None:
    assert flag not in file.read_text()
