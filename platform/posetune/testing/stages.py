"""Builds stages in plain folders, for tests that train without the platform."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from posetune.api import Stage, StageWork, silent

__all__ = ["build_stages"]


def build_stages(stages: Sequence[Stage], folder: Path) -> dict[str, Path]:
    """Build each stage in a folder of its name, unless the folder exists.

    Args:
        stages: the stages to build.
        folder: where the stages' folders are.

    Returns:
        The folder of each product, by the stage's name, as `TrialContext.products` takes it.
    """
    products = {stage.name: folder / stage.name for stage in stages}
    for stage in stages:
        if not products[stage.name].exists():
            products[stage.name].mkdir(parents=True)
            stage.build(products[stage.name], silent, StageWork())
    return products
