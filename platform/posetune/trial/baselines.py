"""Asks a trainable for its baselines, whose code runs in the process of a driver or a command."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from posetune.api import Trainable
from posetune.metrics import read_metrics

__all__ = ["ask_baselines"]


def ask_baselines(
    trainable: type[Trainable], products: Mapping[str, Path], metric: str
) -> tuple[dict[str, float], str]:
    """Return the trivial baselines of one metric, and why there are none.

    A fault of the trainable's code costs the baselines and nothing else: no trial needs them.

    Args:
        trainable: the class.
        products: folders of finished stage products, by the stage's name.
        metric: name of the metric.

    Returns:
        The baselines that are finite numbers, by name, and what went wrong in one line; empty if
        nothing did.
    """
    try:
        found = read_metrics(trainable.baselines(products, metric), declared=())
    except Exception as error:  # noqa: BLE001 - a trainable's code, at the border of our process
        return (
            {},
            f"no baselines of {metric}: {type(error).__name__}: {' '.join(str(error).split())}",
        )
    return {name: value for name, value in found.items() if math.isfinite(value)}, ""
