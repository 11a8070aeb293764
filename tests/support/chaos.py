"""Kills a sweep's driver, workers, raylet and GCS at seeded moments, and looks at what is left.

After each kill that ends the driver the same command is given again. In the end every trial is
there once, every epoch once, nothing has failed, and MLflow holds all of it.

    python tests/support/chaos.py --kills 200 --out docs/results/chaos.md
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where it is run as a program

from support.commands import command_environment
from support.processes import in_session
from support.sweeps import Driver, events, until, view

from posetune.study.events import AttemptPlaced, Reported, TrialEnded

__all__ = ["KINDS", "Kill", "run_round"]

TRIALS, EPOCHS = 12, 6

SWEEP = """\
trainable: posetune.testing.toy:Toy
store: {store}
objective: {{metric: val/error_mm, mode: min}}
search:
  x: {{float: [0.01, 1], log: true}}
  depth: {{int: [2, 8], step: 2}}
fixed: {{epoch_s: 0.5}}
sampler: {{name: tpe, seed: {seed}}}
pruner: {{name: asha, max_epochs: {epochs}, grace_epochs: 2, reduction_factor: 3}}
resources: {{cpu: {cpu}}}
budget: {{trials: {trials}}}
"""

BUSY = 1.5 * (os.cpu_count() or 1)
"""More processes than this want a core only where the machine does other work as well."""

ENDS_DRIVER = ("driver", "raylet", "gcs")
KINDS = (*ENDS_DRIVER, "worker in mid-epoch", "worker between trials", "worker twice within 10 ms")


@dataclass(frozen=True)
class Kill:
    """One kill of a round."""

    kind: str
    code: int | None
    """How the driver ended by it; None where it went on."""
    noticed_s: float
    """Seconds until the driver was out; 0 where it went on."""


class Round:
    """One sweep that is killed again and again."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.home, self.random = folder, folder / "home", random.Random(seed)
        (folder / "store").mkdir(parents=True)
        (folder / "store" / "toy.json").write_text('{"image_size": 8, "seed": 0}')
        file = folder / "chaos.yaml"
        cpu = (os.cpu_count() or 1) / 2  # two trials at a time
        file.write_text(
            SWEEP.format(store=folder / "store", seed=seed, epochs=EPOCHS, cpu=cpu, trials=TRIALS)
        )
        self.command = ("sweep", file, "--name", "s")
        self.driver = Driver(folder, *self.command)
        self.kills: list[Kill] = []

    def kill(self, kind: str) -> None:
        """Kill at a seeded moment, and give the command again where that ended the driver."""
        self._await_moment(kind)
        began = time.monotonic()
        self._strike(kind)
        if kind not in ENDS_DRIVER:
            self.kills.append(Kill(kind, None, 0.0))
            return
        until(lambda: not self.driver.lives)
        self.kills.append(Kill(kind, self.driver.end(), time.monotonic() - began))
        self.driver = Driver(self.folder, *self.command)

    def _await_moment(self, kind: str) -> None:
        between = kind == "worker between trials"
        kinds = TrialEnded if between else Reported
        before = len(events(self.home, kinds))
        self.driver.until(lambda: len(events(self.home, kinds)) > before)
        if not between:
            time.sleep(self.random.uniform(0.0, 1.0))  # anywhere in the epochs that follow

    def _strike(self, kind: str) -> None:
        session = self.driver.pid
        victims = {
            "driver": lambda: [session],
            "raylet": lambda: in_session(session, "raylet"),
            "gcs": lambda: in_session(session, "gcs_server"),
            "worker in mid-epoch": lambda: self._workers()[:1],
            "worker between trials": lambda: [self._worker_of(events(self.home, TrialEnded)[-1])],
            "worker twice within 10 ms": lambda: self._workers()[:2],
        }
        for pid in self.driver.until(victims[kind]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)

    def _workers(self) -> list[int]:
        found = in_session(self.driver.pid, "ray::TrialActor")
        self.random.shuffle(found)
        return found

    def _worker_of(self, end: TrialEnded) -> int:
        placed = [one for one in events(self.home, AttemptPlaced) if one.trial == end.trial]
        return int(placed[-1].facts["pid"])

    def finish(self) -> list[str]:
        """Let the sweep end, and return what is wrong with it; empty where nothing was lost."""
        code = self.driver.end()
        track = [sys.executable, "-m", "posetune.cli", "track", "s"]
        environment = command_environment(self.folder)
        subprocess.run(track, cwd=self.folder, env=environment, capture_output=True, check=False)
        faults = [] if code == 0 else [f"the driver ended with {code}: {self.driver.output[-800:]}"]
        return faults + self._look()

    def _look(self) -> list[str]:
        found = view(self.home)
        if found is None:
            return ["there is no sweep"]
        faults = []
        if [trial.number for trial in found.trials] != list(range(TRIALS)):
            faults.append(f"trials {[trial.number for trial in found.trials]}")
        states = sorted({str(trial.state) for trial in found.trials} - {"COMPLETE", "PRUNED"})
        if states:
            faults.append(f"trials that are {states}")
        epochs: dict[int, list[int]] = {}
        for report in found.reports:
            epochs.setdefault(report.trial, []).append(report.epoch)
        if epochs != {t.number: list(range(1, t.epochs + 1)) for t in found.trials}:
            faults.append(f"epochs {epochs}")
        tracked = sorted(mlflow_children(self.home))
        if tracked != [(str(number), "FINISHED") for number in sorted(range(TRIALS), key=str)]:
            faults.append(f"MLflow has {tracked}")
        return faults


def mlflow_children(home: Path) -> list[tuple[str, str]]:
    """Return the trials' runs in the home's MLflow store: number and state of each."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    return [
        (run.data.tags["posetune.trial"], run.info.status)
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id])
        if "mlflow.parentRunId" in run.data.tags
    ]


def run_round(folder: Path, seed: int, kinds: Sequence[str]) -> tuple[list[Kill], list[str]]:
    """Run one sweep with these kills, and return them and what is wrong afterwards."""
    this, kind = Round(folder, seed), ""
    try:
        for kind in kinds:
            this.kill(kind)
        return this.kills, this.finish()
    except AssertionError as error:
        return this.kills, [f"at or after the kill of the {kind}: {error}"]
    finally:
        this.driver.kill()


def table(kills: Sequence[Kill], faults: Sequence[str], *, seed: int, load: float) -> str:
    """Return the page of docs/results; `load` is how many processes wanted a core, on average."""
    lines = [
        "# Chaos: what kills cost",
        "",
        f"`tests/support/chaos.py`, seed {seed}: {len(kills)} kills at seeded moments of toy "
        f"sweeps with {TRIALS} trials, two at a time, on this machine's own Ray, with MLflow. "
        "After each kill that ends the driver the same command is given again. In the end every "
        "trial and every epoch has to be there once, none FAILED, and MLflow complete.",
        "",
        f"The machine has {os.cpu_count()} cores; {load:.1f} processes wanted one on average while "
        f"this ran{', so it was busy with other work as well' if load > BUSY else ''}.",
        "",
        "| what was killed (SIGKILL) | kills | driver went on | driver ended itself | "
        "a signal ended it | median s until it was out | most |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        these = [kill for kill in kills if kill.kind == kind]
        ended = [kill.noticed_s for kill in these if kill.code is not None]
        by_itself = sum(kill.code is not None and kill.code >= 0 for kill in these)
        median, most = (
            (f"{statistics.median(ended):.1f}", f"{max(ended):.1f}") if ended else ("-", "-")
        )
        went_on = sum(kill.code is None for kill in these)
        by_signal = len(ended) - by_itself
        cells = (kind, len(these), went_on, by_itself, by_signal, median, most)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", f"Lost: {'nothing' if not faults else len(faults)}."]
    return "\n".join([*lines, *(f"- {fault}" for fault in faults)]) + "\n"


def main(say: Callable[[str], object] = print) -> None:
    """Run as many rounds as the kills need, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, help="where the folders of rounds with faults go")
    options = parser.parse_args()
    kills: list[Kill] = []
    page, faults = "", list[str]()
    loads: list[float] = []
    generator = random.Random(options.seed)
    while len(kills) < options.kills:
        kinds = list(KINDS)
        generator.shuffle(kinds)
        seed = generator.randrange(2**31)
        with tempfile.TemporaryDirectory(prefix="posetune-chaos-") as folder:
            done, wrong = run_round(Path(folder), seed, kinds[: options.kills - len(kills)])
            if wrong and options.keep is not None:
                shutil.copytree(folder, options.keep / str(seed), symlinks=True)
        kills += done
        loads.append(os.getloadavg()[1])
        faults += [f"seed {seed}: {fault}" for fault in wrong]
        say(f"{len(kills)} of {options.kills} kills, {len(faults)} faults")
        page = table(kills, faults, seed=options.seed, load=statistics.mean(loads))
        if options.out is not None:
            options.out.write_text(page)
    say(page)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
