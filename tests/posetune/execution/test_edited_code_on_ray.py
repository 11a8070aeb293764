"""A sweep that is continued after its code was edited keeps the products that it began with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.sweeps import Driver

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OURS = """\
from dataclasses import replace

from posetune.testing.toy import Toy


class Ours(Toy):
    @classmethod
    def stages(cls, config, store):
        return [replace(stage, sources=[__name__]) for stage in super().stages(config, store)]
"""


@pytest.mark.long
def test_an_edit_builds_the_products_of_new_sweeps_again_and_of_no_sweep_that_has_them(
    toy_sweep: Callable[..., Path], shown: Callable[[str], dict], ray_head: str, tmp_path: Path
) -> None:
    code = tmp_path / "ours.py"  # a driver's working folder is on its workers' path
    code.write_text(OURS)

    def sweep(name: str, trials: int) -> dict[str, dict[str, int]]:
        file = toy_sweep(trials=trials, max_epochs=1)
        text = file.read_text().replace("posetune.testing.toy:Toy", "ours:Ours")
        file.write_text(text.replace("depth: {int: [2, 8], step: 2}", "depth: {choice: [4]}"))
        command = ("sweep", file, "--name", name, "--address", ray_head, "--no-tracking")
        driver = Driver(tmp_path, *command, POSETUNE_TRAINABLES="ours:Ours")
        assert driver.end() == 0, driver.output
        return dict(shown(name)["stages"])

    assert sweep("first", trials=1) == {"floor": {"trained": 1, "reused": 0}}
    code.write_text(f"{OURS}# edited\n")
    assert sweep("first", trials=3) == {"floor": {"trained": 1, "reused": 2}}
    assert sweep("second", trials=2) == {"floor": {"trained": 1, "reused": 1}}
