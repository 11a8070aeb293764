"""Makes the tables of trainings that share their stages, a row for each change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from support.learning_cases import read_cases, read_figures
from support.learning_table import NOT_MEASURED, Figures, measured_on, metric_mean

__all__ = ["trainings_table"]

COLUMNS = (("P-MPJPE, mm", "p_mpjpe_mm", 1), ("2D error, px", "error_2d_px", 2))
LIFTED = ("lifting of true 2D, mm", "lifted_true_mm", 1)

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def trainings_table(
    level: str,
    table: Table,
    *,
    first: Mapping[str, str] = MappingProxyType({}),
    what: str = "what",
    sees_images: bool = True,
) -> str:
    """Return a row for each case of a level, measured on the whole validation split.

    Args:
        level: the table that the cases stand in.
        table: makes the text of a table of its head and rows.
        first: cases of other levels that are shown before them, and what they are called here.
        what: head of the first column.
        sees_images: whether the models see pictures; the others predict no 2D poses.
    """
    cases = read_cases()
    titles = {**first, **{n: case.title for n, case in cases.items() if case.level == level}}
    columns = (*COLUMNS, LIFTED) if sees_images else COLUMNS[:1]
    head = (what, "seeds", "processor, s, without the stages", *(title for title, *_ in columns))
    found = {name: read_figures(name) for name in titles}
    rows = [_row(title, cases[name].seeds, found[name], columns) for name, title in titles.items()]
    measured = [figures for name in titles for figures in found[name].values()]
    text = table(head, rows)
    return f"{text}\n\n{_baselines(measured)}{measured_on(measured)}" if measured else text


def _row(
    title: str,
    case_seeds: Sequence[int],
    found: dict[str, Figures],
    columns: Sequence[tuple[str, str, int]],
) -> tuple[str, ...]:
    seeds = [str(seed) for seed in case_seeds]
    start = (title, ", ".join(seeds))
    if not any(seed in found for seed in seeds):
        return (*start, NOT_MEASURED, *[""] * len(columns))
    spent = [f"{found[seed]['processor_s']:.0f}" if seed in found else "-" for seed in seeds]
    cells = [
        ", ".join(_cell(found.get(seed), metric, digits, says_why=i == 0) for seed in seeds)
        for i, (_, metric, digits) in enumerate(columns)
    ]
    return (*start, ", ".join(spent), *cells)


def _cell(figures: Figures | None, metric: str, digits: int, *, says_why: bool) -> str:
    if figures is None:
        return NOT_MEASURED if says_why else "-"
    if figures["failed"]:
        return f"failed: {figures['failed'].partition(' (')[0]}" if says_why else "-"
    if "val" not in figures:
        return "not evaluated yet" if says_why else "-"
    return f"{metric_mean(figures, 'val', metric):.{digits}f}"


def _baselines(measured: Sequence[Figures]) -> str:
    """Return where the answers are that need no training, on the validation split."""
    for figures in measured:
        if "val" in figures:
            found = figures["val"]["baselines"]
            constant, flat = (found[n]["mean"] for n in ("mean_shape", "flat_depth_true_2d"))
            return (
                f"The mean shape is at {constant:.1f} mm, flat depth on the true 2D poses at "
                f"{flat:.1f}. "
            )
    return ""
