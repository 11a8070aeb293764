"""The wheel works without a checkout: installed with the pinned versions, run from nowhere."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.ports import find_free_port
from support.ray_nodes import Node

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.ray]

SWEEP = """\
trainable: posetune.testing.toy:Toy
store: {store}
objective: {{metric: val/error_mm, mode: min}}
search: {{x: {{float: [0.01, 1], log: true}}}}
pruner: {{max_epochs: 2}}
budget: {{trials: 2}}
"""


class Installed:
    """A new environment that holds the wheel and what it needs, and an empty folder to work in."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self.bin, self.folder = environment / "bin", folder
        hidden = ("POSETUNE_", "RAY_", "PYTHON", "MLFLOW_", "VIRTUAL_ENV")
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(hidden)},
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "COLUMNS": "160",
        }

    def __call__(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment; it must succeed."""
        done = subprocess.run(
            [str(self.bin / str(words[0])), *map(str, words[1:])],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
        return done


@pytest.fixture(scope="module")
def installed(
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
    required: Callable[[str, bool, str], None],
) -> Installed:
    """Build the wheel and install it with the pinned versions; skip without a registry."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    built = subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(repository)],
        capture_output=True,
        text=True,
    )
    is_away = "No matching distribution" in built.stderr or "Connection" in built.stderr
    required("registry", not is_away, "reach a package registry, for the build's own requirements")
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = folder.glob("posetune-*.whl")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    found = Installed(environment, folder / "empty")
    found.folder.mkdir()
    constraints = repository / "cluster" / "constraints.txt"
    found("python", "-m", "pip", "install", "--quiet", "--constraint", constraints, wheel)
    return found


@pytest.fixture
def head(installed: Installed, tmp_path: Path) -> Iterator[str]:
    """The job server of a head that the installed Ray runs."""
    ip, dashboard = (
        f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}.1",
        find_free_port(),
    )
    node = Node(ip, installed.environment, find_free_port())
    try:
        node.start(
            "--head",
            f"--port={find_free_port()}",
            "--num-cpus=2",
            f"--dashboard-host={ip}",
            f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={find_free_port()}",
        )
        yield f"http://{ip}:{dashboard}"
    finally:
        node.kill()


def test_a_sweep_is_run_promoted_and_submitted_from_an_empty_folder(
    installed: Installed, head: str
) -> None:
    where = installed("python", "-c", "import posetune, selfpose; print(posetune.__file__)").stdout
    package = Path(where.strip()).parent
    assert package.is_relative_to(installed.bin.parent), "not the checkout's"
    typed = [p.parent.name for p in package.parent.glob("selfpose/py.typed")]
    typed += [p.parent.name for p in package.glob("py.typed")]
    assert typed == ["selfpose", "posetune"], "type checkers read both packages' annotations"
    installed("python", "-c", "import posetune.testing.toy as t; import pathlib; "
              "i = t.Toy.importers()['toy']; i.run(None, pathlib.Path('store'), i.options(), "
              "lambda *a, **k: None)")  # fmt: skip
    (installed.folder / "toy.yaml").write_text(SWEEP.format(store=installed.folder / "store"))

    installed("posetune", "sweep", "toy.yaml", "--name", "first")
    shown = json.loads(installed("posetune", "show", "first", "--json").stdout)
    assert (shown["state"], len(shown["trials"])) == ("COMPLETE", 2)
    promoted = installed("posetune", "promote", "first", "--model", "pose", "--json")
    assert json.loads(promoted.stdout)["version"] == 1

    script = installed("posetune", "submit", "toy.yaml", "--slurm", "--dry-run").stdout
    assert f"VENV={installed.bin.parent}" in script

    home = installed.folder / "cluster-home"
    at = ("--address", head, "--home", home)
    sent = installed("posetune", "submit", "toy.yaml", "--name", "sent", "--follow", *at)
    assert "2 of 2 trials" in sent.stderr
    shown = json.loads(installed("posetune", "show", "sent", "--json", "--home", home).stdout)
    assert shown["state"] == "COMPLETE"
