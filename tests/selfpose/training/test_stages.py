"""A shared stage's key changes with the code that makes its product, and with no other code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from posetune.api import silent
from posetune.stages.sources import reachable_modules
from selfpose.config import SelfPoseConfig
from selfpose.training.stages.needed import needed_stages

CONFIG = SelfPoseConfig.model_validate(
    {
        "image_size": 32,
        "width": 4,
        "batch_size": 4,
        "mirror_prior": True,
        "pretrain_keypoints": 1,
        "pretrain_silhouette": 1,
        "pretrain_bodies": 1,
        "silhouette_hue": 1,
        "renderer": {"side_coding": True},
        "flow": {"depth": 2, "hidden": 8, "steps": 1, "batch_size": 16},
    }
)
EVERY = {"baselines", "flow", "keypoints", "silhouette", "bodies"}
CHANGES = {
    "config": set(),
    "inference": set(),
    "method.losses": set(),
    "method.quantities": set(),
    "method.flow": {"flow"},
    "method.geometry": {"flow", "keypoints", "bodies"},
    "method.metrics": {"baselines"},
    "method.procrustes": {"baselines"},
    "method.renderer": {"keypoints", "silhouette", "bodies"},
    "method.skeleton": EVERY,
    "networks.discriminator": set(),
    "networks.lifter": set(),
    "networks.omega": {"keypoints", "bodies"},
    "networks.body_reader": {"bodies"},
    "networks.phi": {"silhouette", "bodies"},
    "networks.initialisation": EVERY - {"baselines"},
    "training.optimiser": {"keypoints", "silhouette", "bodies"},
    "training.stages.pretraining": {"keypoints", "silhouette", "bodies"},
    "training.bodies.drawing": {"bodies"},
    "training.complete": set(),
    "training.lifting": set(),
    "training.trial": set(),
    "training.stages.needed": set(),
    "cuda.kernels.drawing": {"keypoints", "bodies"},
    "data.images": {"silhouette", "bodies"},
    "data.store": EVERY,
    "evaluation.evaluate": set(),
}
"""Which stages' keys an edit of a module changes, for those modules that one may wonder about."""
EDIT_EACH = """
import json, sys
from pathlib import Path
from posetune.stages.sources import source_digest

root, stages = Path(sys.argv[1]), sys.argv[2:]

def digests():
    source_digest.cache_clear()  # what imports what stays the same
    return {stage: source_digest(f"selfpose.training.stages.{stage}") for stage in stages}

before, changed = digests(), {}
for file in sorted((root / "selfpose").rglob("*.py")):
    text = file.read_text()
    file.write_text(text + "# edited\\n")
    after = digests()
    name = str(file.relative_to(root).with_suffix("")).replace("/", ".")
    changed[name.removesuffix(".__init__")] = [s for s in stages if after[s] != before[s]]
    file.write_text(text)
assert digests() == before
print(json.dumps(changed))
"""


@pytest.mark.slow
def test_an_edit_of_a_module_changes_the_keys_of_the_stages_that_reach_it_and_no_other(
    repository: Path, tmp_path: Path
) -> None:
    shutil.copytree(repository / "trainables" / "selfpose", tmp_path / "selfpose")
    found = subprocess.run(
        [sys.executable, "-c", EDIT_EACH, str(tmp_path), *sorted(EVERY)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    changed = {name: set(stages) for name, stages in json.loads(found.stdout).items()}

    assert {name: changed[f"selfpose.{name}"] for name in CHANGES} == CHANGES
    for stage in EVERY:
        reached = reachable_modules(f"selfpose.training.stages.{stage}")
        assert {name for name, stages in changed.items() if stage in stages} == {
            name for name in reached if name.startswith("selfpose.")
        }


@pytest.mark.parametrize("name", sorted(EVERY))
def test_no_code_runs_in_a_stage_that_its_key_does_not_hold(
    name: str, tiny_store: Path, tmp_path: Path
) -> None:
    (stage,) = (s for s in needed_stages(CONFIG, tiny_store) if s.name == name)
    for folder in ("warm-up", "product"):
        (tmp_path / folder).mkdir()
    stage.build(tmp_path / "warm-up", silent)  # so that torch loads nothing while calls are noted
    with modules_that_run() as ran:
        stage.build(tmp_path / "product", silent)

    assert f"selfpose.training.stages.{name}" in ran
    assert ran <= set(reachable_modules(*stage.sources))


@contextmanager
def modules_that_run() -> Iterator[set[str]]:
    """Collect the modules of selfpose of which a function is called meanwhile."""
    ran: set[str] = set()

    def note(frame: Any, event: str, argument: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("selfpose."):
            ran.add(module)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield ran
    finally:
        sys.setprofile(before)
