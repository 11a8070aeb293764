"""Trains the paper's size on one GPU beside its supervised twin, evaluates both, draws the curves.

    python tests/benchmarks/measure_paper.py                          # procedural bodies
    python tests/benchmarks/measure_paper.py --mocap mocap17.h5       # and real motion

The same command again goes on where the one before ended, after `--minutes` or because it was cut
off; paper.json in `--out` has every epoch as soon as it is trained. The test split of a training is
opened once, when its last epoch is over. What comes first says most: each model, then the twins. A
training that has failed is not tried again with the same commit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from posetune.api import BadInputError, TrialFailedError
from posetune.provenance import collect
from posetune.spec.loading import load_sweep
from posetune.trial.run import require_device
from posetune.workflow.train import Training, train

ROOT = Path(__file__).parents[2]
OBJECTIVE = "val/p_mpjpe_mm"
TWIN = {
    "mode": "supervised",
    "pretrain_bodies": 0,
    "pretrain_pairs": 0,
    "loss_weights.read": 0,
    "learning_rate": 2e-4,  # at the model's it ended with one pose for all frames, on a CPU
}
LIMIT = 8000
"""Frames in a split of a store that is made here, at most."""


@dataclass(frozen=True)
class Case:
    """One training of the file."""

    data: str
    """What the pictures show; it names the store too."""
    is_twin: bool
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """The training's name, and its key in the JSON."""
        return f"paper-{self.data}-{'twin' if self.is_twin else 'model'}"


def main(words: Sequence[str] | None = None) -> int:
    """Train what is missing, until the time is over.

    Returns:
        1 while something is missing or has failed, 2 where nothing can be trained here.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    file = ROOT / "search_spaces" / "selfpose" / "paper_gpu.yaml"
    parser.add_argument("--file", type=Path, default=file)
    parser.add_argument("--mocap", type=Path, help="a file of real motion, as mocap17 has it")
    parser.add_argument("--stores", type=Path, default=Path("data"), help="folder of the stores")
    parser.add_argument("--out", type=Path, default=Path("out/paper_gpu"))
    parser.add_argument("--minutes", type=float, default=9.0, help="for this call")
    given = parser.parse_args(words)
    try:
        return _measure(given)
    except BadInputError as error:
        print(f"measure_paper: {error}", file=sys.stderr)
        return 2


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Leaves the module's text as it is."""


def _measure(given: argparse.Namespace) -> int:
    ends = time.monotonic() + 60 * given.minutes
    where = collect()
    facts = {key: where[key] for key in ("commit", "dirty", "processor", "gpus", "versions")}
    kept = Kept(given.out / "paper.json", facts)
    spec, _, _ = load_sweep(given.file)
    cases = _cases(given.mocap)
    ran = False
    for case in cases:
        if kept.is_over(case.name):
            continue
        if ran and time.monotonic() >= ends:
            break
        require_device(spec.resources)  # before thousands of pictures are drawn
        store = given.stores / f"paper-{case.data}"
        _import(case.data, store, given.mocap)
        minutes = max(0.0, (ends - time.monotonic()) / 60)
        model = _train(case, kept, file=given.file, store=store, minutes=minutes)
        ran = True
        if model and kept.is_trained(case.name):
            _evaluate(case, kept, model=model, store=store, out=given.out)
        draw_curves(kept.content, given.out / "curves.png")
    missing = [case.name for case in cases if not kept.is_over(case.name)]
    if missing:
        print(f"not done yet: {', '.join(missing)}; the same command goes on", flush=True)
    return int(not all("test" in kept.content.get(case.name, {}) for case in cases))


class Kept:
    """The figures of all trainings, written whenever there is a new one.

    Args:
        file: a JSON file.
        facts: what stands beside the figures: commit, machine, versions.
    """

    def __init__(self, file: Path, facts: Mapping[str, Any]) -> None:
        self.file = file
        self.facts = facts
        self.content: dict[str, dict[str, Any]] = {}
        if file.exists():
            self.content = json.loads(file.read_text(encoding="utf-8"))

    def put(self, name: str, **figures: Any) -> None:
        """Add figures of a training."""
        self.content.setdefault(name, {}).update(figures)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_name(f".{self.file.name}.partial")
        partial.write_text(json.dumps(self.content, indent=1), encoding="utf-8")
        partial.replace(self.file)

    def is_trained(self, name: str) -> bool:
        """Return whether the last epoch of a training is over."""
        found = self.content.get(name, {})
        last = found["epochs"][-1]["epoch"] if found.get("epochs") else 0
        return bool(last) and last == found["max_epochs"]

    def is_over(self, name: str) -> bool:
        """Return whether nothing is left to be done for a training."""
        found = self.content.get(name, {})
        failed = found.get("failed") and found.get("commit") == self.facts["commit"]
        return bool(failed) or "test" in found


def _cases(mocap: Path | None) -> list[Case]:
    data = ["procedural", *(["plain", "rooms"] if mocap else [])]
    cases = []
    for twin in (False, True):
        for name in data:
            settings = dict(TWIN) if twin else {"mode": "complete"}
            if name == "rooms":  # both sides look alike there
                settings["silhouette_hue"] = 0
            cases.append(Case(name, twin, settings))
    return cases


def _import(data: str, store: Path, mocap: Path | None) -> None:
    size = ("--image-size", 128, "--limit", LIMIT, "--out", store)
    if store.exists():
        return
    if data == "procedural":
        _posetune("data", "import", "--format", "procedural", "--level", "plain", *size)
    else:
        motion = (mocap, "--format", "mocap17", "--views", 4, "--level", data)
        _posetune("data", "import", *motion, *size)


def _train(case: Case, kept: Kept, *, file: Path, store: Path, minutes: float) -> str:
    """Train a case for some minutes, at least for an epoch; return where its model is."""

    def started(training: Training) -> None:
        figures = {"max_epochs": training.max_epochs, "baselines": training.baselines}
        kept.put(case.name, **figures, **kept.facts, failed="")

    def trained(training: Training) -> None:
        kept.put(case.name, epochs=training.epochs)
        newest = training.epochs[-1]
        print(f"{case.name}: epoch {newest['epoch']} {newest[OBJECTIVE]:.1f} mm", flush=True)

    try:
        training = train(
            file,
            case.name,
            settings=case.settings,
            store=str(store),
            minutes=minutes,
            on_start=started,
            on_epoch=trained,
        )
    except TrialFailedError as error:
        kept.put(case.name, failed=str(error), **kept.facts)
        print(f"{case.name}: failed: {error}", flush=True)
        return ""
    kept.put(case.name, epochs=training.epochs)  # a call before may have ended between two writes
    return training.model


def _evaluate(case: Case, kept: Kept, *, model: str, store: Path, out: Path) -> None:
    folder = out / case.name
    said = _posetune("evaluate", model, "--store", store, "--out", folder, "--json")
    found = json.loads(said)
    kept.put(case.name, test={part: found[part] for part in ("metrics", "baselines")})
    print(f"{case.name}: evaluated on test, in {folder}", flush=True)


def draw_curves(trainings: dict[str, dict[str, Any]], file: Path) -> None:
    """Draw the objective of each training by its seconds, and the baselines as lines."""
    figure = Figure(figsize=(8, 4.5))
    axes = figure.subplots()
    levels: dict[str, float] = {}
    for name, found in sorted(trainings.items()):
        epochs = found.get("epochs", [])
        seconds = [sum(e["seconds"] for e in epochs[: i + 1]) for i in range(len(epochs))]
        axes.plot(seconds, [epoch[OBJECTIVE] for epoch in epochs], marker=".", label=name)
        data = name.split("-")[1]
        levels |= {f"{n}, {data}": value for n, value in found.get("baselines", {}).items()}
    for name, value in levels.items():
        axes.axhline(value, linestyle=":", linewidth=1, color="grey")
        axes.annotate(name, (0, value), fontsize=7)
    axes.set_xlabel("seconds of training, stages not counted")
    axes.set_ylabel("P-MPJPE on validation, mm")
    if axes.lines:
        axes.legend(fontsize=7)
    figure.savefig(file, dpi=120, bbox_inches="tight")


def _posetune(*words: object) -> str:
    command = [sys.executable, "-m", "posetune.cli", *map(str, words)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
