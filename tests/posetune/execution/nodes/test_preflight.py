"""`posetune check --address` on real Ray nodes, one of which is not as it should be."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OWN_FOLDERS = """
for folder in "$STORAGE" "$STORE"; do mount -t tmpfs tmpfs "$folder"; done
echo '{"image_size": 9}' > "$STORE/toy.json"
exec "$@"
"""
"""Runs a command in which two folders are other ones than everywhere else."""


@pytest.mark.long
@pytest.mark.usefixtures("own_mounts")
def test_every_fault_is_a_line_with_node_and_remedy_and_nothing_is_spent(
    ray_cluster: Any,
    toy_sweep: Callable[..., Path],
    toy_store: Path,
    tmp_path: Path,
    free_port: Callable[[], int],
) -> None:
    cluster, home = ray_cluster, ray_cluster.folder / "home"
    cluster.start_head()
    cluster.start_workers(1, cpus=10_000)
    first = cluster.network + ".2 (" + socket.gethostname() + ")"

    good = cluster.posetune("check", toy_sweep(cpu=5000), "--address", cluster.address)
    assert good.returncode == 0, good.stderr
    assert first in good.stderr
    assert "good on 2 nodes: " in good.stderr
    assert "4 configurations" in good.stderr
    assert not home.exists()

    (home / "storage").mkdir(parents=True)
    planted = tmp_path / "site" / "optuna-0.0.1.dist-info"
    planted.mkdir(parents=True)
    (planted / "METADATA").write_text("Metadata-Version: 2.1\nName: optuna\nVersion: 0.0.1\n")
    cluster.start_workers(
        1,
        within=("unshare", "--mount", "sh", "-ec", OWN_FOLDERS, "sh"),
        STORAGE=str(home / "storage"),
        STORE=str(toy_store),
        PYTHONPATH=f"{planted.parent}:{os.environ.get('PYTHONPATH', '')}",
    )
    database, tracking = free_port(), free_port()
    bad = cluster.posetune(
        "check",
        toy_sweep(trials=10**12),
        "--address",
        cluster.address,
        POSETUNE_DATABASE=f"postgresql://me@127.0.0.1:{database}/study",
        MLFLOW_TRACKING_URI=f"http://127.0.0.1:{tracking}",
    )
    assert bad.returncode == 4, bad.stderr
    second = cluster.network + ".3 (" + socket.gethostname() + ")"
    storage = home / "storage"
    for begin, remedy in [
        (
            f"the driver: database: study database postgresql+psycopg://me@127.0.0.1:{database}",
            "start",
        ),
        (f"the driver: tracking: MLflow at http://127.0.0.1:{tracking}: no connection", "start it"),
        (f"node {second}: versions: optuna 0.0.1 (the driver has", "pip install"),
        (f"node {second}: storage: {storage}: what the driver has written is not", "mount"),
        (
            f"node {second}: store: {toy_store}: has digest",
            "put the same store on every node, or nothing",
        ),
        (f"node {first}: disk: {storage} has ", "make space"),
        (f"node {first}: memory: 10000 trials at a time of ", "raise resources.cpu"),
    ]:
        (line,) = [line for line in bad.stderr.splitlines() if line.startswith(begin)]
        assert remedy in line
    assert "good on" not in bad.stderr
    assert not any(path.is_file() for path in home.rglob("*"))
