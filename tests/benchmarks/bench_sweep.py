"""Whole sweeps beside their rivals; `make bench-sweep` runs both, and replays searches: hours.

Each test adds its part to `results/sweep.json`, so one of them can be measured again by itself.
BENCH_TRIALS in the environment sets how many quickstart trials there are, BENCH_SHORTER by what
their steps are divided.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from rich.table import Table

from posetune.provenance import collect
from posetune.study.reading import read_sweep
from posetune.study.tables.database import open_database

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "sweep.json"

ROWS = {
    "quickstart": (
        "quickstart trials to the end, two at a time",
        "plain Tune, no shared stages",
        2,
    ),
    "stages": ("pre-trainings of 100 trials over 5 depths", "one per trial", 20),
}
"""What is measured, beside what, and how many times less ours is meant to take."""


def recorded() -> dict[str, Any]:
    """Return the parts that were measured, at any time."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return dict(found)


def keep(part: str, ours: str, rival: str, *, ratio: float, **details: Any) -> None:
    """Put a part of the results beside the others."""
    where = collect()
    keys = ("commit", "dirty", "processor", "usable_cores", "versions")
    facts = {**{key: where[key] for key in keys}, "load": os.getloadavg()[0]}
    found = {"ours": ours, "rival": rival, "ratio": ratio, **details, **facts}
    RESULTS.parent.mkdir(exist_ok=True)
    partial = RESULTS.with_name(".sweep.json.partial")
    text = json.dumps(finite({**recorded(), part: found}), indent=1, sort_keys=True)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(RESULTS)


@pytest.fixture(scope="module", autouse=True)
def table_of_all() -> Iterator[None]:
    """Print one table when the last part is measured; a part of another time names its commit."""
    yield
    table = Table("what", "ours", "rival", "", "ratio", "aim", "machine")
    for part, (what, rival, aim) in ROWS.items():
        found = recorded().get(part)
        if found is None:
            table.add_row(what, "not measured", "", rival, "", f"{aim}", "")
            continue
        machine = f"{found['processor']}, {found['usable_cores']} cores, {found['commit'][:7]}"
        if part == "quickstart":
            divided = found["steps_divided_by"]
            what = f"{found['trials']} {what}" + f", 1/{divided} of the steps" * (divided > 1)
        ratio = f"{found['ratio']:.3g}"
        note = f"\n{found['note']}" if "note" in found else ""
        table.add_row(what + note, found["ours"], found["rival"], rival, ratio, f"{aim}", machine)
    Console(width=150).print(table)


def finite(value: Any) -> Any:
    """Return what JSON can hold: null for what never ends."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


COUNTED = """
import os
from selfpose.trainable import SelfPose

class Counted(SelfPose):
    '''SelfPose, which notes each stage that is built.'''

    @classmethod
    def stages(cls, config, store):
        return [noting(stage) for stage in super().stages(config, store)]

def noting(stage):
    import dataclasses

    def build(folder, progress, work):
        with open(os.environ["BUILT"], "a") as file:
            file.write(stage.name + "\\n")
        stage.build(folder, progress, work)

    return dataclasses.replace(stage, build=build)
"""


def test_pre_trainings_of_a_hundred_trials_over_five_depths(tmp_path: Path) -> None:
    (tmp_path / "counted.py").write_text(COUNTED)
    content = {
        "trainable": "counted:Counted",
        "objective": {"metric": "val/p_mpjpe_mm", "mode": "min"},
        "search": {
            "flow.depth": {"choice": [2, 4, 6, 8, 10]},
            "learning_rate": {"float": [1e-4, 1e-2], "log": True},
        },
        "fixed": {
            "mode": "lifting",
            "image_size": 32,
            "batch_size": 16,
            "steps_per_epoch": 2,
            "val_frames": 20,
            "lifting": {"width": 16},
            "flow": {"hidden": 16, "steps": 20, "batch_size": 32},
        },
        "sampler": {"name": "random"},
        "pruner": {"name": "none", "max_epochs": 1},
        "budget": {"trials": 100},
    }
    file, store, home = tmp_path / "sweep.yaml", tmp_path / "store", tmp_path / "home"
    file.write_text(yaml.safe_dump(content))
    environment = {
        **os.environ,
        "BUILT": str(tmp_path / "built"),
        "POSETUNE_TRAINABLES": "counted:Counted",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    }
    posetune = [sys.executable, "-m", "posetune.cli"]
    small = ["--format", "procedural", "--image-size", "32", "--limit", "100"]
    for command in (
        ["data", "import", *small, "--out", str(store)],
        ["sweep", str(file), "--store", str(store), "--home", str(home), "--name", "counted"],
    ):
        subprocess.run([*posetune, *command], check=True, env=environment)
    view = read_sweep(open_database(f"sqlite:///{home / 'study.db'}"), "counted")
    assert all(trial.state == "COMPLETE" for trial in view.trials)
    depths = {trial.params["flow.depth"] for trial in view.trials}
    built = (tmp_path / "built").read_text().split().count("flow")
    needed = view.stages["flow"].trained + view.stages["flow"].reused
    assert (len(view.trials), len(depths), needed) == (100, 5, 100)
    keep("stages", str(built), str(needed), ratio=needed / built)


SWEEP_TRIALS = int(os.environ.get("BENCH_TRIALS", "32"))
SHORTER = int(os.environ.get("BENCH_SHORTER", "1"))
"""By what the steps of epochs and stages are divided, where there is no time for all of them."""
SLOTS = 2


@dataclass(frozen=True)
class Took:
    """What a sweep took, from the command to its end."""

    clock_s: float
    processor_s: float
    """Of all processes."""
    epochs: int
    best_mm: float


class Meter:
    """Counts the processor time of a command and of everything that it starts.

    Ray's processes leave their parents, so they are known by a variable of the environment. What
    a process takes in its last second is missing.
    """

    def __init__(self) -> None:
        self.mark = f"BENCH_RUN={uuid.uuid4()}"
        self.seconds: dict[int, float] = {}
        self._over = threading.Event()

    def run(self, command: list[str], environment: dict[str, str]) -> tuple[str, float, float]:
        """Return what a command printed, its seconds by the clock and of the processor."""
        name, _, value = self.mark.partition("=")
        watch = threading.Thread(target=self._watch)
        started = time.monotonic()
        watch.start()
        try:
            done = subprocess.run(
                command,
                env={**environment, name: value},
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
        finally:
            clock_s = time.monotonic() - started
            self._over.set()
            watch.join()
        return done.stdout, clock_s, sum(self.seconds.values())

    def _watch(self) -> None:
        ticks = os.sysconf("SC_CLK_TCK")
        while not self._over.wait(0.5):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    if self.mark.encode() in (folder / "environ").read_bytes():
                        fields = (folder / "stat").read_text().rpartition(")")[2].split()
                        used = (int(fields[11]) + int(fields[12])) / ticks
                        self.seconds[int(folder.name)] = used
                except OSError:
                    continue  # it has ended, or is somebody else's


def run_ours(file: Path, store: Path, folder: Path) -> Took:
    command = [sys.executable, "-m", "posetune.cli", "sweep", str(file), "--store", str(store)]
    command += ["--home", str(folder), "--name", "ours", "--json"]
    _, clock_s, processor_s = Meter().run(command, dict(os.environ))
    view = read_sweep(open_database(f"sqlite:///{folder / 'study.db'}"), "ours")
    values = [report.value for report in view.reports if report.value is not None]
    assert len(view.trials) == SWEEP_TRIALS
    return Took(clock_s, processor_s, len(view.reports), min(values))


def run_plain(file: Path, store: Path, folder: Path) -> Took:
    folder.mkdir()
    command = [sys.executable, str(HERE / "plain_sweep.py"), str(file), "--store", str(store)]
    command += ["--out", str(folder), "--trials", str(SWEEP_TRIALS), "--slots", str(SLOTS)]
    printed, clock_s, processor_s = Meter().run(command, dict(os.environ))
    found = json.loads(printed.splitlines()[-1])
    assert found["trials"] == SWEEP_TRIALS
    return Took(clock_s, processor_s, found["epochs"], found["best"])


@pytest.mark.timeout(0)
def test_quickstart_trials_to_the_end(tmp_path: Path, repository: Path) -> None:
    given = repository / "search_spaces" / "selfpose" / "quickstart.yaml"
    content = yaml.safe_load(given.read_text(encoding="utf-8"))
    content["budget"] = {"trials": SWEEP_TRIALS}
    content["resources"] = {"cpu": 1, "concurrent": SLOTS}
    fixed = content["fixed"]
    for steps in ("steps_per_epoch", "decay_steps", "pretrain_bodies", "pretrain_pairs"):
        fixed[steps] //= SHORTER
    fixed["flow"]["steps"] //= SHORTER
    file, store = tmp_path / "quickstart.yaml", repository / "data" / "procedural"
    file.write_text(yaml.safe_dump(content))
    imported = ["data", "import", "--format", "procedural", "--image-size", "64"]
    imported += ["--level", "plain", "--limit", "2000", "--out", str(store)]  # as `make sweep` does
    subprocess.run([sys.executable, "-m", "posetune.cli", *imported], check=True)
    took = {"ours": run_ours(file, store, tmp_path / "ours")}
    took["plain Tune"] = run_plain(file, store, tmp_path / "plain")
    shutil.rmtree(tmp_path / "plain")
    ours, plain = took["ours"], took["plain Tune"]
    keep(
        "quickstart",
        f"{ours.clock_s:.0f} s",
        f"{plain.clock_s:.0f} s",
        ratio=plain.clock_s / ours.clock_s,
        ratio_processor=plain.processor_s / ours.processor_s,
        trials=SWEEP_TRIALS,
        steps_divided_by=SHORTER,
        sweeps={name: asdict(found) for name, found in took.items()},
    )
