"""Writes an evaluation's tables as Markdown and CSV, in the form of the supplementary's Table 1."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from selfpose.evaluation.averages import Average, Averager, Averages
from selfpose.evaluation.literature import ACTIVITIES, CHEN_NOTE, PUBLISHED, short_name
from selfpose.evaluation.scores import Row

__all__ = [
    "BOOTSTRAP",
    "Header",
    "activity_table",
    "interval_text",
    "mean_text",
    "pck_table",
    "write_csv",
]

_PCK_COLUMNS = {
    "pck_150": "PCK@150 mm, share, root and scale aligned",
    "auc": "AUC to 150 mm, share, root and scale aligned",
    "p_pck_150": "PCK@150 mm, share, P-aligned",
    "p_auc": "AUC to 150 mm, share, P-aligned",
    "p_mpjpe_mm": "P-MPJPE, mm, P-aligned",
    "n_mpjpe_mm": "N-MPJPE, mm, root and scale aligned",
}

BOOTSTRAP = (
    "Bootstrap over motions (a motion with all its cameras is one unit); - where one motion is all "
    "there is."
)


@dataclass(frozen=True)
class Header:
    """Holds what is said above a table, and what decides its columns."""

    source: str
    """Sentence about data, split and model."""
    activities: Sequence[str]
    """Names of all activities of the store, in the order of their indices."""
    is_human36m: bool
    """Whether the store is Human3.6M, so that published values can be quoted."""


@dataclass(frozen=True)
class _Line:
    """Holds one row of a table."""

    method: str
    assumptions: str
    cells: list[Average]
    """One cell for each activity, and the average in the last one."""


def activity_table(
    rows: Sequence[Row], averages: Mapping[str, Averages], *, averager: Averager, header: Header
) -> tuple[str, str]:
    """Return the per-activity table as Markdown and as CSV.

    Args:
        rows: the rows of the table, in order.
        averages: averages of each column that `rows` names, by the column's name.
        averager: gives the activities' counts, and which of them the macro average pools.
        header: what is said above the table.

    Returns:
        The Markdown has the means, with published values if the store is Human3.6M, and then the
        95 % intervals. The CSV has a line each for mean, low and high of every row.
    """
    order = _columns(header)
    lines = [_line(row, averages[row.column], order) for row in rows]
    published = [
        _Line(p.method, p.assumptions, [_exact(mm) for mm in (*p.activities_mm, p.average_mm)])
        for p in PUBLISHED
        if header.is_human36m
    ]
    names = [name for name, _ in order]
    pooled = [name for name, i in order if i in averager.groups.pooled]
    unit = rows[0].column.rpartition("_")[2]
    title = f"{'P-MPJPE' if unit == 'mm' else '2D error'} per activity, {unit}"
    count = {name: averager.counts.get(i, (0, 0)) for name, i in order}
    sizes = [f"| motions | | {' | '.join(str(count[n][1]) for n in names)} | {averager.motions} |"]
    frames = sum(n for n, _ in averager.counts.values())
    sizes += [f"| frames | | {' | '.join(str(count[n][0]) for n in names)} | {frames} |"]
    heads = [f"{name} ({_measured(unit)})" for name in (*names, "Avg.")]
    head = _head(["Method", "Assumptions", *heads])
    text = [
        f"# {title}",
        "",
        header.source,
        "",
        *head,
        *(_markdown(line, mean_text) for line in lines),
        *(_markdown(line, mean_text) for line in published),
        *sizes,
        "",
        *_notes(pooled, unit, header.is_human36m),
        "",
        "## 95 % intervals",
        "",
        BOOTSTRAP,
        "",
        *head,
        *(_markdown(line, interval_text) for line in lines),
    ]
    return "\n".join(text) + "\n", _csv(heads, [*lines, *published])


def _measured(unit: str) -> str:
    """Return unit and alignment of a table's numbers, for the heads of its columns."""
    return "mm, P-aligned" if unit == "mm" else "px, not aligned"


def pck_table(
    averages: Mapping[str, Averages], *, averager: Averager, header: Header
) -> tuple[str, str]:
    """Return a table of PCK, AUC and distances as Markdown and as CSV.

    It has a row for each activity and one for all frames.

    Args:
        averages: averages of each column of the table, by the column's name.
        averager: gives the activities' counts.
        header: what is said above the table.
    """
    named = {f"{header.activities[i]}": i for i in averager.counts}
    head = ["Activity", "frames", "motions", *_PCK_COLUMNS.values()]
    text = ["# PCK and AUC", "", header.source, "", *_head(head)]
    head_csv = ["activity", "frames", "motions", "statistic", *_PCK_COLUMNS.values()]
    flat: list[list[object]] = [[*head_csv]]
    total = (sum(frames for frames, _ in averager.counts.values()), averager.motions)
    for name, activity in {**named, "all frames": -1}.items():
        frames, motions = averager.counts.get(activity, total)
        cells = [
            averages[c].activities[activity] if activity >= 0 else averages[c].frame
            for c in _PCK_COLUMNS
        ]
        digits = [1 if column.endswith("_mm") else 3 for column in _PCK_COLUMNS]
        shown = [
            f"{mean_text(cell, d)} ({interval_text(cell, d)})"
            for cell, d in zip(cells, digits, strict=True)
        ]
        text.append(f"| {name} | {frames} | {motions} | {' | '.join(shown)} |")
        for statistic in ("mean", "low", "high"):
            values = [_number(getattr(cell, statistic), 4) for cell in cells]
            flat.append([name, frames, motions, statistic, *values])
    text += [
        "",
        f"In brackets the 95 % intervals. {BOOTSTRAP}",
        "",
        "PCK and AUC count head top, neck, shoulders, elbows, wrists, hips, knees and ankles; the "
        "distances all joints. Scaled: roots at 0 and the least-squares scale; P-aligned: after a "
        "proper similarity transform, which is easier.",
    ]
    return "\n".join(text) + "\n", write_csv(flat)


def _columns(header: Header) -> list[tuple[str, int]]:
    """Return name and index of each column's activity.

    If all activities of the store are among the 15 of Human3.6M, the columns are those 15, in
    their order; the index of an activity that the store does not have is -1 then.
    """
    short = {short_name(name): i for i, name in enumerate(header.activities)}
    if None not in short:
        return [(name, short.get(name, -1)) for name in ACTIVITIES.values()]
    return [(name, i) for i, name in enumerate(header.activities)]


def _line(row: Row, averages: Averages, order: Sequence[tuple[str, int]]) -> _Line:
    absent = _exact(math.nan)
    cells = [averages.activities.get(activity, absent) for _, activity in order]
    average = averages.macro if row.column.endswith("_mm") else averages.frame
    return _Line(row.method, row.assumptions, [*cells, average])


def _exact(mean: float) -> Average:
    """Return an `Average` with a mean and no interval."""
    return Average(mean, math.nan, math.nan)


def _notes(pooled: Sequence[str], unit: str, is_human36m: bool) -> list[str]:
    if unit != "mm":
        return ["Avg. is the mean over frames, as the sweep's objective is."]
    average = "Avg. is the mean over activities, as the sweep's objective is"
    if pooled:
        average += f"; those with few frames or motions count as one: {', '.join(pooled)}"
    notes = [f"{average}. The rotation is proper (no mirror image) unless a row says otherwise."]
    if is_human36m:
        notes += ["", "The last three methods are printed values, not measured here. " + CHEN_NOTE]
    return notes


def _head(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


def _markdown(line: _Line, show: Callable[[Average], str]) -> str:
    return f"| {line.method} | {line.assumptions} | {' | '.join(map(show, line.cells))} |"


def _number(value: float, digits: int = 1) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.{digits}f}" if math.isfinite(value) else "infinite"


def mean_text(average: Average, digits: int = 1) -> str:
    """Return a mean for a cell; - where there is none."""
    return _number(average.mean, digits)


def interval_text(average: Average, digits: int = 1) -> str:
    """Return a 95 % interval for a cell; - where there is none."""
    if math.isnan(average.low):
        return "-"
    return f"{_number(average.low, digits)} to {_number(average.high, digits)}"


def _csv(names: Sequence[str], lines: Sequence[_Line]) -> str:
    rows: list[list[object]] = [["method", "assumptions", "statistic", *names]]
    for line in lines:
        for statistic in ("mean", "low", "high"):
            values = [getattr(cell, statistic) for cell in line.cells]
            if not all(math.isnan(value) for value in values):
                cells = ["" if math.isnan(v) else _number(v, 4) for v in values]
                rows.append([line.method, line.assumptions, statistic, *cells])
    return write_csv(rows)


def write_csv(rows: Sequence[Sequence[object]]) -> str:
    """Return rows of cells as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()
