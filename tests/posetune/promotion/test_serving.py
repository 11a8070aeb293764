"""The promoted model behind MLflow's own HTTP server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from posetune.promotion.decision import promote
from posetune.promotion.request import Request
from posetune.testing.toy import Toy

pytestmark = pytest.mark.slow


@pytest.fixture
def address(scene: Any, tmp_path: Path, free_port: Callable[[], int]) -> Iterator[str]:
    """`mlflow models serve` on the candidate; its address."""
    scene.run_all()
    promote(scene.database, scene.home, Request("first", "selfpose"), trainable=Toy)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", "models:/selfpose@candidate", "--host", "127.0.0.1", "--port", str(port)]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"MLFLOW_TRACKING_URI": scene.home.tracking, "MLFLOW_DISABLE_TELEMETRY": "true"}
    # MLflow starts `uvicorn` and `mlflow` by name: those beside this Python.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with (tmp_path / "serve.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=elsewhere, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, tmp_path / "serve.log")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/ping", timeout=5):
                return
        except OSError:
            time.sleep(0.3)


def ask(url: str, content: object) -> tuple[int, Any]:
    """Post to the server as a client does."""
    request = urllib.request.Request(
        f"{url}/invocations", json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def program_of_the_manual(page: Path, address: str) -> str:
    """Return the manual's program, with the address and the image side of the server here."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    (program,) = [block for block in blocks if "/invocations" in block]
    for written, here in (("http://127.0.0.1:5001", address), ("SIDE = 32", "SIDE = 8")):
        assert written in program
        program = program.replace(written, here)
    return program


def test_images_go_in_and_poses_come_out(address: str, repository: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    status, answer = ask(address, {"inputs": images.tolist()})
    assert status == 200, answer
    np.testing.assert_array_equal(answer["predictions"], [[[0, 0, 0], [-1, 0, 0], [1, 0, 0]]] * 3)
    status, answer = ask(address, {"inputs": images[:, :5].tolist()})
    assert status == 400
    assert "shape" in answer["message"]

    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photos" / "me.jpg")
    program = program_of_the_manual(repository / "docs" / "use-a-model.md", address)
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "  0.00   0.00   0.00\n -1.00   0.00   0.00\n  1.00   0.00   0.00\n"
