"""Stages built in plain folders: what a trial stands on where no platform runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from posetune.api import Stage, silent

__all__ = ["build_stages"]


def build_stages(stages: Sequence[Stage], folder: Path) -> dict[str, Path]:
    """Build each stage in a folder of its name, if that is not there, and return the folders."""
    products = {stage.name: folder / stage.name for stage in stages}
    for stage in stages:
        if not products[stage.name].exists():
            products[stage.name].mkdir(parents=True)
            stage.build(products[stage.name], silent)
    return products
