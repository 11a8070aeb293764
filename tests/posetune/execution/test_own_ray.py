"""A driver that its dead Ray keeps waiting is ended after its last words; another is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import subprocess, sys, threading
from posetune.execution import own_ray

own_ray.LOOK_S, own_ray.LEAVE_S = 0.01, float(sys.argv[2])
gcs = subprocess.Popen(["sleep", "1000"])
noticed = threading.Event()

def on_death(why):
    print(why, flush=True)
    noticed.set()

watch = own_ray.OwnRayWatch(
    lambda: ["gcs_server"] if gcs.poll() is not None else [],
    on_death=on_death,
    last_words=lambda: print("the same command again", flush=True),
)
with watch.leaving():
    with watch.looking():
        if sys.argv[1] != "outlives the sweep":
            gcs.kill()
        if sys.argv[1] == "keeps it waiting":
            threading.Event().wait()
        if sys.argv[1] == "dies and lets it go":
            noticed.wait()
        if sys.argv[1] == "dies at the end":
            gcs.wait()
    gcs.kill()
    if sys.argv[1] == "dies at the end":
        threading.Event().wait()
print("out")
"""

DIED = "Ray on this machine has died (gcs_server is gone)\n"


@pytest.mark.parametrize(
    ("ray", "leave_s", "code", "said"),
    [
        ("keeps it waiting", 0.1, 1, DIED + "the same command again\n"),
        ("dies and lets it go", 1000, 0, DIED + "out\n"),
        ("dies at the end", 0.1, 1, DIED + "the same command again\n"),
        ("outlives the sweep", 0.1, 0, "out\n"),
    ],
)
def test_a_driver_whose_ray(ray: str, leave_s: float, code: int, said: str) -> None:
    command = [sys.executable, "-c", PROGRAM, ray, str(leave_s)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (code, said), ended.stderr
