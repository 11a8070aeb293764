"""Runs on one GPU all that only a GPU can show, part by part; results in one JSON.

    python tests/support/gpu_check.py                          # what `make gpu-check` does
    python tests/support/gpu_check.py --device cpu             # the parts that need no GPU
    python tests/support/gpu_check.py --only recorded faults   # some parts

Each part is a process of its own, since an error of CUDA spoils the process that meets it. The file
is written before and after each part, so a run that is cut off loses no more than the part under
way; the same command again does what is missing. A part is taken to be done if the file has its
result from the same commit, without changes, on the same device; one that has reached its own limit
is done, too. The parts that say most come first. Where the package is not installed, any Python
with its dependencies will do. It ends with 1 while a part is missing, has failed or has reached its
limit, and with 2 where there is no CUDA device.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

sys.path.append(str(Path(__file__).parents[2] / "platform"))  # where it is not installed

from posetune.provenance import collect

__all__ = ["PARTS", "Part", "Record", "main", "run_part"]

ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT / folder) for folder in ("platform", "trainables", "tests")]
OUT = ROOT / "runs" / "bench" / "gpu_check.json"
DONE = ("passed", "failed", "timed out", "skipped")
"""Outcomes of parts that are not run again."""
TAIL = 4000
"""Characters of a part's output that are kept."""
LEAST_S = 5.0
"""No part begins with less time left, in seconds."""
PYTEST = ("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--tb=short")
DEVICE = """
import json, platform, subprocess, torch
found = {"python": platform.python_version(), "torch": torch.__version__}
found["cuda"] = torch.version.cuda
try:
    import triton
    found["triton"] = triton.__version__
except ImportError:
    found["triton"] = ""
found["count"] = torch.cuda.device_count()
if found["count"]:
    one = torch.cuda.get_device_properties(0)
    found |= {"device": one.name, "capability": f"{one.major}.{one.minor}"}
    found |= {"bytes": one.total_memory, "cudnn": torch.backends.cudnn.version()}
    ask = ["nvidia-smi", "--query-gpu=driver_version,compute_mode", "--format=csv,noheader"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, timeout=20).stdout
    except OSError:
        said = ""
    found["driver"] = said.strip().splitlines()[0] if said.strip() else ""
else:
    found["device"] = "cpu"
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Part:
    """One process of tests or measurements, and what it needs."""

    name: str
    says: str
    """What it shows."""
    tests: tuple[str, ...]
    """What pytest is given."""
    limit_s: float
    """It is ended after so many seconds."""
    gpus: int = 1
    """How many GPUs it needs; 0 runs on a processor too."""
    leaves: tuple[str, ...] = ()
    """Names of JSON files in runs/bench that it writes, and that become part of the result."""
    under: tuple[str, ...] = ()
    """A program that runs it, with its options."""
    environment: tuple[tuple[str, str], ...] = ()


BENCH = ("-s", "--override-ini", "python_files=bench_*.py")
CUDA = "tests/selfpose/cuda"
PARTS = (
    Part(
        "kernels", "Triton's programs beside torch's", (f"{CUDA}/kernels", "-m", "not long"), 150, 0
    ),
    Part(
        "steps",
        "a step beside the reference, each mode, float64, float32, bf16",
        ("tests/selfpose/training/test_step.py", "-k", "on_a_gpu"),
        150,
    ),
    Part(
        "recorded",
        "recorded steps bitwise as launched ones, each mode",
        (f"{CUDA}/test_graph.py", "-k", "replayed"),
        120,
    ),
    Part(
        "continued",
        "a continuation after save and load, bitwise; images resident by share",
        (f"{CUDA}/test_graph.py", "-k", "continued or share"),
        120,
    ),
    Part(
        "faults",
        "a number that is none; a full GPU in the middle of a step",
        (f"{CUDA}/test_graph.py", "-k", "none or fills"),
        90,
    ),
    Part(
        "bodies",
        "the stage of bodies and its reader beside the processor",
        ("tests/selfpose/training/bodies/test_stage_on_gpu.py",),
        60,
    ),
    Part(
        "speed",
        "the step at the paper's size beside its twin",
        (*BENCH, "tests/benchmarks/bench_gpu.py", "-k", "papers_size and not profile"),
        180,
        leaves=("gpu_parts.json", "gpu.json"),
    ),
    Part(
        "profile",
        "what the step's time goes to, and each convolution beside its own rate",
        (*BENCH, "tests/benchmarks/bench_gpu.py", "-k", "profile"),
        90,
        leaves=("gpu_profile.json",),
    ),
    Part(
        "together",
        "1, 2, 4, 8 trials at a time, with and without MPS",
        (*BENCH, "tests/benchmarks/bench_gpu.py", "-k", "together"),
        200,
        leaves=("gpu_together.json",),
    ),
    Part(
        "training",
        "short trainings, fast and plain",
        (*BENCH, "tests/benchmarks/bench_gpu.py", "-k", "short_training"),
        150,
        leaves=("gpu_training.json",),
    ),
    Part(
        "sharing",
        "two trials of a sweep on one GPU; sharing by measured memory",
        ("tests/posetune/execution/nodes/test_sharing_a_real_gpu.py",),
        150,
    ),
    Part(
        "two-gpus",
        "two GPUs learn what one learns",
        ("tests/selfpose/training/test_data_parallel.py", "-k", "two_gpus"),
        90,
        gpus=2,
    ),
    Part(
        "sanitizer",
        "no kernel reads or writes beside its memory",
        (f"{CUDA}/kernels", "-m", "not long and not slow"),
        150,
        under=("compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9"),
        environment=(("PYTORCH_NO_CUDA_MEMORY_CACHING", "1"),),
    ),
)
"""In the order in which they run: what says most first, what takes long for little last."""


class Record:
    """The JSON of all parts.

    Args:
        file: where it is; what another commit or device has left there is put beside it, under a
            name with its commit. Of changed files only the newest results of a commit are kept.
        facts: of this run: commit, dirty, device.
    """

    def __init__(self, file: Path, facts: Mapping[str, Any]) -> None:
        self.file = file
        before: dict[str, Any] = {}
        if file.exists():
            before = json.loads(file.read_text(encoding="utf-8"))
        self.content = {**facts, "parts": []}
        same = all(before.get(key) == facts.get(key) for key in ("commit", "device"))
        if before and same and _is_clean(before) and _is_clean(facts):
            self.content["parts"] = before["parts"]
        elif before:
            file.replace(self._place_for(before))

    def is_done(self, name: str) -> bool:
        """Return whether a part has a result."""
        return any(p["name"] == name and p["outcome"] in DONE for p in self.content["parts"])

    def put(self, result: Mapping[str, Any]) -> None:
        """Write a part's result, in place of an earlier one of it."""
        others = [p for p in self.content["parts"] if p["name"] != result["name"]]
        self.content["parts"] = [*others, dict(result)]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_name(f".{self.file.name}.partial")
        partial.write_text(json.dumps(self.content, indent=1), encoding="utf-8")
        partial.replace(self.file)

    def _place_for(self, before: Mapping[str, Any]) -> Path:
        """Return where earlier results are put."""
        stem = f"{self.file.stem}.{(before['commit'] or 'unknown')[:9].replace('/', '-')}"
        if not _is_clean(before):
            return self.file.with_name(f"{stem}-changed.json")
        places = (self.file.with_name(f"{stem}-{n}.json") for n in itertools.count(1))
        return next(place for place in places if not place.exists())


def _is_clean(facts: Mapping[str, Any]) -> bool:
    """Return whether the commit says which code was run."""
    return facts["dirty"] is False or "commit_given" in facts


def main(words: Sequence[str] | None = None, *, parts: Sequence[Part] = PARTS) -> int:
    """Run what is missing.

    Returns:
        1 while a part is missing, has failed or was too slow; 2 without a CUDA device.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts together")
    parser.add_argument("--out", type=Path, default=OUT, help="the JSON (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in parts])
    parser.add_argument("--commit", help="of the code, where git cannot say it")
    parser.add_argument("--again", action="store_true", help="also what is done already")
    given = parser.parse_args(words)
    ends = time.monotonic() + 60 * given.minutes
    environment = _environment(given.device)
    facts = _facts(environment, given.commit)
    if given.device == "cuda" and not facts["device"].get("count"):
        print("gpu-check: no CUDA device here; nothing was run (--device cpu runs what needs none)")
        return 2
    record = Record(given.out, facts)
    missing = []
    for part in parts:
        if given.only and part.name not in given.only:
            continue
        if record.is_done(part.name) and not given.again:
            print(f"{part.name}: done before", flush=True)
            continue
        left_s = ends - time.monotonic()
        if left_s < LEAST_S:
            missing.append(part.name)
            continue
        record.put({"name": part.name, "says": part.says, "outcome": "cut off", "seconds": 0.0})
        result = run_part(part, facts["device"], environment=environment, left_s=left_s)
        record.put(result)
        print(f"{part.name}: {result['outcome']} ({result['seconds']:.0f} s) {result['message']}")
        sys.stdout.flush()
        if result["outcome"] not in DONE:
            missing.append(part.name)
    print(f"results: {given.out}")
    if missing:
        print(f"not done yet: {', '.join(missing)}; the same command goes on", flush=True)
    faults = [p for p in record.content["parts"] if p["outcome"] in ("failed", "timed out")]
    return int(bool(missing or faults))


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Leaves the module's text as it is."""


def run_part(
    part: Part, device: Mapping[str, Any], *, environment: Mapping[str, str], left_s: float
) -> dict[str, Any]:
    """Run a part in a process of its own; return its result.

    Args:
        part: what to run.
        device: what is known of the device.
        environment: of the process.
        left_s: seconds until it is ended, if its own limit is not shorter.
    """
    result: dict[str, Any] = {"name": part.name, "says": part.says, "seconds": 0.0, "tests": []}
    why = _why_not(part, device)
    if why:
        return {**result, "outcome": "skipped", "message": why}
    report = ROOT / "runs" / "bench" / f"gpu_check_{part.name}.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    for name in part.leaves:
        (report.parent / name).unlink(missing_ok=True)
    command = [*part.under, sys.executable, *PYTEST, f"--junitxml={report}", *part.tests]
    begun, limit_s = time.monotonic(), min(part.limit_s, left_s)
    code, output = _run(command, {**environment, **dict(part.environment)}, limit_s)
    result["seconds"] = round(time.monotonic() - begun, 1)
    result["tests"] = _tests(report)
    result["figures"] = _figures(report.parent, part.leaves)
    report.unlink(missing_ok=True)
    if code is None:
        outcome = "timed out" if part.limit_s <= left_s else "cut off"
        message = f"ended after {limit_s:.0f} s"
    else:
        outcome, message = _judge(code, output, result["tests"])
    shown = {} if outcome == "passed" else {"output": output[-TAIL:]}
    return {**result, "outcome": outcome, "message": message, **shown}


def _why_not(part: Part, device: Mapping[str, Any]) -> str:
    """Return why a part cannot run here; empty where it can."""
    if part.gpus > device.get("count", 0):
        return f"needs {part.gpus} CUDA device{'s' if part.gpus > 1 else ''}"
    if part.under and not shutil.which(part.under[0]):
        return f"needs {part.under[0]}, which is not on the PATH"
    return ""


def _judge(code: int, output: str, tests: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the outcome of a part that came to its end, and a line about it."""
    counted = {
        outcome: sum(test["outcome"] == outcome for test in tests)
        for outcome in ("passed", "failed", "skipped")
    }
    said = ", ".join(f"{count} {outcome}" for outcome, count in counted.items() if count)
    if code == 0 and not counted["passed"]:
        return "skipped", said or "no test ran"
    if code == 0:
        return "passed", said
    first = next((test["message"] for test in tests if test["outcome"] == "failed"), "")
    last = output.strip().rpartition("\n")[2]
    return "failed", f"{said or f'exit code {code}'}: {(first or last)[:300]}"


def _run(
    command: Sequence[str], environment: Mapping[str, str], limit_s: float
) -> tuple[int | None, str]:
    """Run a command and all that it starts; return its exit code, None if it was ended."""
    log = ROOT / "runs" / "bench" / "gpu_check.log"
    with log.open("w+", encoding="utf-8", errors="replace") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        code: int | None
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # also where this program itself is told to end
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        file.seek(0)
        return code, file.read()


def _tests(report: Path) -> list[dict[str, Any]]:
    """Return each test's name, outcome, seconds and first line of what was wrong."""
    if not report.exists():
        return []
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        faults = [c for c in case if c.tag in ("failure", "error")]
        skips = [c for c in case if c.tag == "skipped"]
        outcome = "failed" if faults else "skipped" if skips else "passed"
        message = next((c.get("message", "") for c in (*faults, *skips)), "")
        found.append(
            {
                "name": case.get("name"),
                "outcome": outcome,
                "seconds": round(float(case.get("time", 0)), 2),
                "message": " ".join((message or "").split())[:500],
            }
        )
    return found


def _figures(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    files = {name: folder / name for name in names}
    return {
        name.removesuffix(".json"): json.loads(file.read_text(encoding="utf-8"))
        for name, file in files.items()
        if file.exists()
    }


def _environment(device: str) -> dict[str, str]:
    """Return the variables of a part's process: it finds the packages, and a GPU or none."""
    kept = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*PATHS, *([kept] if kept else [])])
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "160", **hidden}


def _facts(environment: Mapping[str, str], commit: str | None) -> dict[str, Any]:
    """Return what tells one run from another: code, device and versions."""
    words = [sys.executable, "-c", DEVICE]
    asked = subprocess.run(words, env=dict(environment), capture_output=True, text=True)
    if asked.returncode:
        sys.exit(f"gpu-check: torch does not start here:\n{asked.stderr[-TAIL:]}")
    where = collect()
    given = {"commit": commit, "commit_given": True} if commit else {}
    return {
        "commit": where["commit"],
        "dirty": where["dirty"],
        **given,
        "device": json.loads(asked.stdout.splitlines()[-1]),
        "processor": where["processor"],
        "pytest": importlib.metadata.version("pytest"),
    }


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("gpu-check: ended; what was done is kept"))
    sys.exit(main())
