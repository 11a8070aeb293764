"""Makes the tables of whole sweeps from what `measure_learning.py` has kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from support.learning_cases import read_cases, read_figures
from support.learning_table import NOT_MEASURED, Figures, interval, measured_on, metric_mean

__all__ = ["ablation_table", "sweep_table", "sweep_wrists_table"]

HEAD = (
    "seed of sampler and stages",
    "the sweep by the clock",
    "validation, frames of the sweep",
    "whole split",
    "**test**, mm",
    "mirror allowed",
    "own 2D poses laid flat",
    "gain on the mean shape",
    "gain on its own 2D, flat",
)

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def sweep_table(name: str, table: Table) -> str:
    """Return every seed of a sweep, and the answers that need no training.

    Args:
        name: the case of kind `sweep`.
        table: makes the text of a table of its head and rows.
    """
    found = read_figures(name)
    rows = [_row(str(seed), found.get(str(seed))) for seed in read_cases()[name].seeds]
    lines = [_baselines(found)] if found else []
    return "\n\n".join([table(HEAD, rows), *lines])


def sweep_wrists_table(name: str, table: Table) -> str:
    """Return how far the wrists of every seed are off on the test split, beside the mean 2D pose.

    Args:
        name: the case of kind `sweep`.
        table: makes the text of a table of its head and rows.
    """
    found = read_figures(name)
    farther = "the mean 2D pose is farther off by"
    rows = []
    for seed in map(str, read_cases()[name].seeds):
        cells = [NOT_MEASURED, "", "", ""]
        if "test" in found.get(seed, {}):
            errors, gains = (found[seed]["test"][part] for part in ("wrists_px", "wrists_gain_px"))
            sides = ("left_wrist", "right_wrist")
            cells = [interval(part[side], 2) for side in sides for part in (errors, gains)]
        rows.append((seed, *cells))
    return table(("seed", "left wrist, px", farther, "right wrist, px", farther), rows)


def ablation_table(name: str, table: Table) -> str:
    """Return every trial of a sweep that changes one field at a time, and what it came to.

    Args:
        name: the case of kind `ablation`.
        table: makes the text of a table of its head and rows.
    """
    seeds = [str(seed) for seed in read_cases()[name].seeds]
    found = {seed: figures for seed, figures in read_figures(name).items() if seed in seeds}
    head = ("changed", *(f"seed {seed}, mm" for seed in seeds))
    if not found:
        return table(head, [(NOT_MEASURED, *[""] * len(seeds))])
    trials = {seed: figures["trials"] for seed, figures in found.items()}
    first = next(iter(trials.values()))
    rows = [
        (
            _changed(first[0]["params"], trial["params"]),
            *(_value(trials[seed][k]) if seed in trials else NOT_MEASURED for seed in seeds),
        )
        for k, trial in enumerate(first)
    ]
    return f"{table(head, rows)}\n\n{measured_on(list(found.values()))}"


def _changed(default: Mapping[str, object], params: Mapping[str, object]) -> str:
    changes = [f"`{field}: {value}`" for field, value in params.items() if value != default[field]]
    return ", ".join(changes) or "nothing"


def _value(trial: Mapping[str, float | None]) -> str:
    return "failed" if trial["value"] is None else f"{trial['value']:.1f}"


def _row(seed: str, figures: Figures | None) -> tuple[str, ...]:
    if figures is None:
        return (seed, NOT_MEASURED, *[""] * (len(HEAD) - 2))
    minutes, seconds = divmod(round(figures["clock_s"]), 60)
    start = (
        seed,
        f"{minutes} min {seconds} s",
        f"{figures['best']['value']:.1f}",
        f"{figures['val']['whole_value']:.1f}" if "val" in figures else NOT_MEASURED,
    )
    if "test" not in figures:
        return (*start, "not opened", "", "", "", "")
    test = figures["test"]
    refused = ", refused by the gate" if test["gate"] == "refused" else ""
    return (
        *start,
        interval(test["metrics"]["test/p_mpjpe_mm"]) + refused,
        f"{metric_mean(figures, 'test', 'p_mpjpe_mirrored_mm'):.1f}",
        interval(test["metrics"]["test/flat_predicted_mm"]),
        *(interval(test["gains"][rival]) for rival in ("mean shape", "own 2D, flat")),
    )


def _baselines(found: dict[str, Figures]) -> str:
    """Return where the mean shape and flat depth are, and the machines."""
    seed, first = next(iter(found.items()))
    parts = [(f"the frames of the sweep with seed {seed}", first["val_baselines"])]
    for figures in found.values():
        if "test" in figures:
            tested = figures["test"]["baselines"]
            parts.append(("the test split", {name: tested[name]["mean"] for name in tested}))
            break
    said = "; ".join(
        f"on {where} the mean shape is at {value['mean_shape']:.1f} mm, flat depth on the true 2D "
        f"poses at {value['flat_depth_true_2d']:.1f}"
        for where, value in parts
    )
    loads = ", ".join(f"{figures['load']:g}" for figures in found.values())
    where = measured_on(list(found.values()))
    return f"{said[0].upper()}{said[1:]}. {where} The machine's load after each sweep: {loads}."
