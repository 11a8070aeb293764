"""Makes the tables of learning on real motion from what `measure_learning.py` has kept."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from support.learning_cases import read_cases, read_figures

__all__ = [
    "NOT_MEASURED",
    "aims_table",
    "curves_table",
    "interval",
    "level_table",
    "measured_on",
    "metric_mean",
    "wrists_table",
]

NOT_MEASURED = "not measured yet"

AIMS = {"plain": 105.0, "clothes": 125.0, "rooms": 130.0, "lifting": 50.0}
"""P-MPJPE on the test split that was aimed at, frame mean, mm."""
REMOVED = "rooms-removed"
"""The case that is held against the aim of its level beside the level's own."""
HEAD = (
    "what",
    "seed",
    "processor, s",
    "validation, mm",
    "**test**, mm",
    "test, macro",
    "mirrors allowed",
    "2D error, px",
    "better of left/right",
    "lifting of true 2D, macro",
)
NO_2D = (7, 8, 9)
"""Columns that say nothing of models that are given the true 2D poses."""

Figures = dict[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def level_table(level: str, table: Table) -> str:
    """Return every training of a level, and what needs no training.

    Args:
        level: `lifting`, `plain`, `clothes` or `rooms`.
        table: makes the text of a table of its head and rows.
    """
    found = _measured(level)
    rows = [_row(title, seed, figures) for _, title, seed, figures in found]
    rows += _baselines(_tested(level)[0])
    shown = [i for i in range(len(HEAD)) if level != "lifting" or i not in NO_2D]
    text = table([HEAD[i] for i in shown], [[row[i] for i in shown] for row in rows])
    return f"{text}\n\n{measured_on([figures for *_, figures in found])}"


def aims_table(table: Table) -> str:
    """Return what was aimed at on the test split, and what our seeds came to."""
    rows = []
    for name, level, label in _aimed():
        tested, aim = _tested(name), AIMS[level]
        errors = [metric_mean(f, "test", "p_mpjpe_frame_mm") for f in tested]
        base = "flat_depth_true_2d_frame" if level == "lifting" else "mean_shape_frame"
        constant = tested[0]["test"]["baselines"][base]["mean"]
        held = "held" if max(errors) <= aim else "missed"
        said = ", ".join(f"{error:.1f}" for error in errors)
        mean = f"**{statistics.mean(errors):.1f}**"
        rows.append((label, f"{aim:g}", said, mean, f"{constant:.1f}", held))
    head = (
        "level",
        "aim, mm",
        "seeds 0, 1, 2",
        "their mean",
        "constant; flat depth",
        "held or missed",
    )
    return table(head, rows)


def curves_table(table: Table) -> str:
    """Return the error on validation after each epoch of our seeds."""
    rows = []
    for level in AIMS:
        for name, _, seed, figures in _measured(level):
            if name == level:
                errors = [epoch["val/p_mpjpe_mm"] for epoch in figures["epochs"]]
                rows.append((level, seed, ", ".join(f"{error:.1f}" for error in errors)))
    return table(("level", "seed", "after each epoch, mm, macro"), rows)


def wrists_table(table: Table) -> str:
    """Return how far the wrists of our seeds are off on the test split, in the picture."""
    rows = [
        (label, seed, *(interval(found, 2) for found in figures["test"]["wrists_px"].values()))
        for name, _, label in _aimed()
        for seed, figures in read_figures(name).items()
        if figures.get("test", {}).get("wrists_px")
    ]
    return table(("level", "seed", "left wrist, px", "right wrist, px"), rows)


def metric_mean(figures: Figures, split: str, metric: str) -> float:
    """Return the mean of a metric that was measured on a split."""
    return float(figures[split]["metrics"][f"{split}/{metric}"]["mean"])


def interval(found: dict[str, float], digits: int = 1) -> str:
    """Return a mean with its interval as words."""
    mean, low, high = (f"{found[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def measured_on(found: Sequence[Figures]) -> str:
    """Return the sentence about the machines and commits of figures."""
    where = sorted({f"{figures['processor']}, {figures['commit'][:7]}" for figures in found})
    return f"Measured on {'; '.join(where)}."


def _aimed() -> list[tuple[str, str, str]]:
    """Return name, level and label of the cases that are held against an aim."""
    cases = {name: case for name, case in read_cases().items() if case.level in AIMS}
    return [
        (name, case.level, case.level if name == case.level else f"{case.level}, {case.title}")
        for name, case in cases.items()
        if name in (case.level, REMOVED)
    ]


def _tested(name: str) -> list[Figures]:
    """Return the figures of the seeds of a case that were tested.

    Raises:
        FileNotFoundError: there are none.
    """
    tested = [figures for figures in read_figures(name).values() if "test" in figures]
    if not tested:
        raise FileNotFoundError(
            f"nothing was tested of {name}; run "
            f"`python tests/benchmarks/measure_learning.py {name} --test`"
        )
    return tested


def _measured(level: str) -> list[tuple[str, str, str, Figures]]:
    """Return name, title, seed and figures of what was measured of a level, in the file's order."""
    return [
        (name, case.title, seed, figures)
        for name, case in read_cases().items()
        if case.level == level
        for seed, figures in read_figures(name).items()
    ]


def _row(title: str, seed: str, figures: Figures) -> tuple[str, ...]:
    spent = f"{figures['processor_s']:.0f}"
    if figures["failed"]:
        return (title, seed, spent, f"failed: {figures['failed']}", *[""] * (len(HEAD) - 4))
    split = "test" if "test" in figures else "val"
    tested = split == "test"
    return (
        title,
        seed,
        spent,
        f"{metric_mean(figures, 'val', 'p_mpjpe_frame_mm'):.1f}",
        interval(figures["test"]["metrics"]["test/p_mpjpe_frame_mm"]) if tested else "not opened",
        f"{metric_mean(figures, 'test', 'p_mpjpe_mm'):.1f}" if tested else "",
        f"{metric_mean(figures, 'test', 'p_mpjpe_mirrored_mm'):.1f}" if tested else "",
        *(
            f"{metric_mean(figures, split, name):.{digits}f}" + ("" if tested else " (validation)")
            for name, digits in (
                ("error_2d_px", 2),
                ("error_2d_side_swap_px", 2),
                ("lifted_true_mm", 1),
            )
        ),
    )


def _baselines(figures: Figures) -> list[tuple[str, ...]]:
    val, test = (figures[split]["baselines"] for split in ("val", "test"))
    rows = []
    for name, title in (
        ("mean_shape", "mean shape (constant)"),
        ("flat_depth_true_2d", "flat depth on the true 2D poses"),
    ):
        frame = f"{name}_frame"
        means = f"{val[frame]['mean']:.1f}", interval(test[frame]), f"{test[name]['mean']:.1f}"
        rows.append((title, "", "", *means, "", "", "", ""))
    if "mean_2d_pose_px" in test and figures["test"]["wrists_px"]:
        mean_2d = f"{test['mean_2d_pose_px']['mean']:.2f}"
        rows.append(("mean 2D pose", *[""] * 6, mean_2d, "", ""))
    return rows
