"""A shared stage's key changes with the code that makes its product, and with no other code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from posetune.api import StageWork, silent
from posetune.stages.sources import reachable_modules
from posetune.stages.work import KeptWork
from posetune.storage import open_storage
from posetune.storage.digest import digest_folder
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
OF_STEPS = CONFIG.model_copy(
    update={
        "pretrain_keypoints": 3,
        "pretrain_silhouette": 3,
        "pretrain_bodies": 3,
        "pretrain_pairs": 3,
        "pretrain_batch": 4,
        "flow": CONFIG.flow.model_copy(update={"steps": 30}),
    }
)
STATES = {"flow": 31, "keypoints": 4, "silhouette": 4, "bodies": 4}
"""How many states an undisturbed part saves: one after each step, and one at its end."""
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
    "training.checkpoint": EVERY - {"baselines"},
    "training.stages.part": EVERY - {"baselines"},
    "training.stages.pretraining": {"keypoints", "silhouette", "bodies"},
    "training.bodies.drawing": {"bodies"},
    "training.modes.complete": set(),
    "training.modes.lifting": set(),
    "training.trial": set(),
    "training.stages.needed": set(),
    "cuda.kernels.drawing": {"keypoints", "bodies"},
    "data.pictures.images": {"silhouette", "bodies"},
    "data.metadata": EVERY,
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
    stage.build(
        tmp_path / "warm-up", silent, StageWork()
    )  # so that torch loads nothing while calls are noted
    with modules_that_run() as ran:
        stage.build(tmp_path / "product", silent, StageWork())

    assert f"selfpose.training.stages.{name}" in ran
    assert ran <= set(reachable_modules(*stage.sources))


class Killed(Exception):
    """Ends a build as if its process were killed."""


class ShortLived(KeptWork):
    """Saves a state after every step; after a number of states of one part the process is gone."""

    def __init__(self, folder: Path, part: str, states: int) -> None:
        super().__init__(open_storage(folder), "work", every_s=0)
        self.part, self.left = part, states

    def save(self, part: str, write: Callable[[Path], None]) -> None:
        super().save(part, write)
        self.left -= part == self.part
        if self.left == 0:
            raise Killed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "part", "states"),
    [
        ("flow", "steps", 2),
        ("flow", "steps", 29),
        ("keypoints", "steps", 2),
        ("silhouette", "steps", 2),
        ("bodies", "reader", 2),
        ("bodies", "masks", 2),
        ("bodies", "pairs", 2),
    ],
)
def test_a_stage_that_was_killed_goes_on_to_the_very_product_of_an_undisturbed_one(
    name: str,
    part: str,
    states: int,
    tiny_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("selfpose.training.bodies.reading._ROWS_AT_ONCE", 24)  # of 64: three steps
    (stage,) = (s for s in needed_stages(OF_STEPS, tiny_store) if s.name == name)
    straight, killed, continued = (tmp_path / each for each in ("straight", "killed", "continued"))
    for folder in (straight, killed, continued):
        folder.mkdir()

    stage.build(straight, silent, StageWork())
    with pytest.raises(Killed):
        stage.build(killed, silent, ShortLived(tmp_path, part, states))
    last = ShortLived(tmp_path, part, -1)
    stage.build(continued, silent, last)

    assert digest_folder(continued) == digest_folder(straight)
    assert last.left == -1 - (STATES[name] - states), "it began anew"


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
