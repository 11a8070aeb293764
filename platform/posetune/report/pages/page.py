"""Writes one page about one sweep: a single HTML file that needs no network.

`build_page` puts the sections in order; each is a function of the sweep that returns blocks, and
`templates/page.html` turns them into HTML. Each chart is there twice: as a picture from `charts`,
for print and where scripts are off, and as a figure from `interactive`, which the page's script
draws over it. A text says what it shows, and the same stands in words or as a table, so that
nothing can only be seen.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from posetune.api import Evaluation
from posetune.report.findings.importance import matched_values, param_importance
from posetune.report.findings.pruning import pruning_balance
from posetune.report.findings.search_notes import health_lines, patience_line, pause_lines
from posetune.report.leaderboard import selection_note
from posetune.report.pages import charts, interactive, interactive_search
from posetune.report.pages.blocks import (
    Block,
    Code,
    Folded,
    Grid,
    Heading,
    PageTable,
    Paragraph,
    Picture,
)
from posetune.report.pages.script import packed_plotly
from posetune.report.steering import steering_lines
from posetune.report.tables import budget_used, changed_params
from posetune.report.wording import count_epochs, format_measure, short_names
from posetune.study.states import TrialState
from posetune.study.view import SweepView
from posetune.visible import visible

__all__ = ["BestTrial", "build_page"]

SHEETS = 2
"""How many pictures of poses are shown at once; the others are folded away."""
_SHEET_QUALITY = 70
"""Quality of the pictures of poses as WebP, of 100."""
MOST_ROWS = 1000
"""How many trials the table has; the others are in the study."""


@dataclass(frozen=True)
class BestTrial:
    """Holds what is known of the best trial beyond the study."""

    number: int | None = None
    evaluation: Evaluation | None = None
    """Evaluation of the trial's model on the whole validation split; None without one."""
    figures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG files by name, as the trial drew them."""
    missing: str = ""
    """Why there is no evaluation; empty where there is one."""


def build_page(
    view: SweepView,
    best: BestTrial,
    *,
    commands: Sequence[str],
    refresh_s: int = 0,
    cost: str = "",
) -> str:
    """Return the page.

    Args:
        view: the sweep.
        best: its best trial.
        commands: how to repeat and continue it.
        refresh_s: seconds after which the page loads itself again; 0 for never.
        cost: what it has cost so far, in words; empty where that is not known.
    """
    epoch, values = matched_values(view)
    rows: list[dict[str, list[Block]]] = [
        {"Learning curves": _curves(view)},
        {"Baselines": _baselines(view), "Pruning": _pruning(view), "Failures": _failures(view)},
        {"Parameters": _parameters(view, epoch, values)},
        {"Poses": _poses(view, best)},
        {"Trials": _trials(view)},
        {"Record": _record(view, commands)},
    ]
    data = {
        "key": f"posetune {view.name} {view.started}",
        "metric": view.spec.objective.metric,
        "trials": interactive.trial_facts(view),
        "refresh_s": refresh_s,
    }
    page = _template().render(
        name=view.name,
        facts={**_facts(view), **({"cost so far": cost} if cost else {})},
        rows=rows,
        data=data,
        plotly=packed_plotly(),
        refresh_s=refresh_s,
    )
    return visible(page) + "\n"


@functools.cache
def _template() -> Template:
    """Return the page's template; every text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("posetune.report.pages"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["anchor"] = lambda title: title.lower().replace(" ", "-")
    return environment.get_template("page.html")


def _facts(view: SweepView) -> dict[str, str]:
    """Return what stands at the top of the page."""
    objective = view.spec.objective
    states = Counter(trial.state.lower() for trial in view.trials)
    facts = {
        "state": view.state.lower(),
        "trials": ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none yet",
        "budget used": budget_used(view),
    }
    notes = [*pause_lines(view), *health_lines(view)]
    if patience := patience_line(view):
        notes.append(patience)
    if notes:
        facts["search"] = "; ".join(notes)
    if view.best is None or view.best.chosen is None:
        return facts
    value = (
        f"{view.best.chosen.value:.4g}, trial {view.best.number} after {view.best.chosen.epoch} of "
        f"{view.best.last_epoch} epochs"
    )
    return {f"best {objective.metric} ({objective.better_word} is better)": value, **facts}


def _curves(view: SweepView) -> list[Block]:
    if not view.reports:
        return [Paragraph("No epoch was reported yet.")]
    objective = view.spec.objective.metric
    curves = Picture.of_svg(
        charts.learning_curves(view),
        f"{objective} of each trial on validation after each epoch; the grey lines are ASHA's "
        "rungs, dashed ones the baselines. A star marks the epoch of each trial that counts, a "
        "cross where it was cut.",
        figure=interactive.learning_curves(view),
    )
    by_best = view.spec.objective.select == "best"
    among = "of all trials at any epoch" if by_best else "among complete trials"
    so_far = Picture.of_svg(
        charts.best_so_far(view),
        f"The best {objective} {among} against what all trials had cost by then.",
        figure=interactive.so_far(view),
    )
    return [Grid([[curves], [so_far]])]


def _baselines(view: SweepView) -> list[Block]:
    best = view.best
    rows = [(name, value) for name, value in view.baselines.items()]
    if best is not None and best.chosen is not None:
        rows.append((f"best: trial {best.number}", best.chosen.value))
    rows.sort(key=lambda row: view.spec.objective.sign * row[1])
    place = next((i for i, (name, _) in enumerate(rows) if name.startswith("best: ")), None)
    shown = [(name, f"{value:.4g}") for name, value in rows]
    note = (
        "These are trivial answers on the same frames, best first. A model that beats none of "
        "them has learned nothing; those with “truth” or “true” in their name use the truth and "
        "are references."
    )
    return [Paragraph(note), PageTable(["", view.spec.objective.metric], shown, place)]


def _parameters(view: SweepView, epoch: int, values: Mapping[int, float]) -> list[Block]:
    blocks = _importance(view)
    if len(values) < 3:
        return blocks
    blocks.append(Heading(f"{len(values)} trials, all after {count_epochs(epoch)}"))
    across = (
        "Each line is a trial from parameter to parameter to its value; the more a line stands "
        "out from the page, the better, and the thick one is the best."
    )
    lines = interactive_search.parallel_coordinates(view, values)
    svg = charts.parallel_coordinates(view, values)
    blocks.append(Picture.of_svg(svg, across, wide=True, figure=lines))
    objective = view.spec.objective.metric
    figures = interactive_search.slices(view, values)
    pictures = [
        Picture.of_svg(svg, f"{objective} against {name}.", figure=figures[name])
        for name, svg in charts.slices(view, values)
    ]
    for x, y in _pairs(view, list(param_importance(view).params)):
        surface = interactive_search.contour(view, values, x, y)
        svg = charts.contour(view, values, x, y)
        says = f"{objective} over {x} and {y}; the star is the best trial."
        pictures.append(Picture.of_svg(svg, says, figure=surface))
    blocks.append(Grid([[picture] for picture in pictures]))
    return blocks


def _importance(view: SweepView) -> list[Block]:
    """Return the best trial beside the defaults, and which parameters mattered."""
    rows = [(name, _number(a), _number(b)) for name, (a, b) in changed_params(view).items()]
    changes: list[Block] = [Heading("The best trial against the defaults (trial 0)")]
    if rows:
        changes.append(PageTable(["parameter", "default", "best"], rows))
    else:
        changes.append(Paragraph(_no_change(view)))
    found = param_importance(view)
    if not found.params:
        reason = f"Importance: nothing to say yet ({found.reason})."
        return [*changes, Paragraph(reason)]
    text = (
        "How much of the difference between the best tenth and the others each parameter "
        f"explains (PED-ANOVA): {found.trials} trials, all compared after "
        f"{count_epochs(found.epoch)}."
    )
    bars = interactive_search.importance_bars(found)
    return [Grid([changes, [Picture.of_svg(charts.importance_bars(found), text, figure=bars)]])]


def _no_change(view: SweepView) -> str:
    return "The best trial has the defaults' parameters." if view.best else "There is none yet."


def _pairs(view: SweepView, by_importance: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs to draw: all others against a depth, or else the two that matter most."""
    names = list(by_importance or view.spec.search)
    depth = next((name for name in names if name.rpartition(".")[2] == "depth"), None)
    if depth is not None:
        return [(name, depth) for name in view.spec.search if name != depth]
    return [(names[0], names[1])] if len(names) > 1 else []


def _poses(view: SweepView, best: BestTrial) -> list[Block]:
    blocks: list[Block] = []
    if best.evaluation is None:
        blocks.append(Paragraph(f"The best trial was not evaluated: {best.missing}."))
    else:
        blocks += _evaluation(view, best, best.evaluation)
    evaluated = best.evaluation.pictures if best.evaluation else {}
    sheets: list[Block] = [
        Picture(
            _lighter(data), "image/webp", f"{name}: trial {best.number} on validation", wide=True
        )
        for name, data in (evaluated or best.figures).items()
        if name.endswith(".png")
    ]
    blocks += sheets[:SHEETS]
    if sheets[SHEETS:]:
        blocks.append(Folded(f"{len(sheets) - SHEETS} more", sheets[SHEETS:]))
    return blocks


def _lighter(png: bytes) -> bytes:
    """Return a picture as WebP, in which a sheet of poses weighs a fraction."""
    import cv2

    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None, "the trainable drew it"
    _, webp = cv2.imencode(".webp", decoded, [cv2.IMWRITE_WEBP_QUALITY, _SHEET_QUALITY])
    return webp.tobytes()


def _evaluation(view: SweepView, best: BestTrial, found: Evaluation) -> list[Block]:
    column = view.spec.objective.metric.rpartition("/")[2]
    rows = [
        (name, f"{value:.4g}", _interval(found.intervals.get(name)))
        for name, value in found.metrics.items()
    ]
    cells: list[list[Block]] = [
        [PageTable(["metric", "value", "95 % interval over motions"], rows)]
    ]
    by_activity = _activities(found, column)
    if by_activity is not None:
        cells.append([by_activity])
    if column in found.records and len(found.records[column]) > 1:
        errors = [float(value) for value in found.records[column]]
        middle = sorted(errors)[len(errors) // 2]
        marks = {"median": middle, **{n: v for n, v in view.baselines.items() if "mean" in n}}
        text = (
            f"{column} of {len(errors)} validation frames; the lines are the median and the "
            "baselines that do not look at the picture."
        )
        svg = charts.distribution(errors, column, marks)
        bars = interactive.distribution(errors, column, marks)
        cells.append([Picture.of_svg(svg, text, figure=bars)])
    said = Paragraph(f"Trial {best.number} on every frame of the validation split.")
    return [said, Grid(cells)]


def _activities(found: Evaluation, column: str) -> PageTable | None:
    averages = found.details.get("averages", {}).get(column, {}).get("activities", {})
    if not averages:
        return None
    counts = found.details.get("activities", {})
    rows = [
        (
            name,
            format_measure(average["mean"], 1),
            _interval((average["low"], average["high"])),
            counts.get(name, {}).get("frames", ""),
            counts.get(name, {}).get("motions", ""),
        )
        for name, average in sorted(averages.items(), key=lambda item: item[1]["mean"])
    ]
    return PageTable(["activity", column, "95 % interval", "frames", "motions"], rows)


def _pruning(view: SweepView) -> list[Block]:
    balance = pruning_balance(view)
    said = str(balance)
    blocks: list[Block] = [Paragraph(f"{said[0].upper() + said[1:]}.")]
    if balance.audits:
        rows = [(a.trial, a.cut_at, f"{a.value:.4g}", f"{a.gain:+.4g}") for a in balance.audits]
        head = ["trial", "would have been cut at epoch", "ended at", "better than the best kept by"]
        blocks.append(PageTable(head, rows))
    return blocks


def _trials(view: SweepView) -> list[Block]:
    names = list(view.spec.search)
    places = {trial.number for trial in view.ranked}
    rest = [trial for trial in view.trials if trial.number not in places]
    shown = [*view.ranked, *rest][:MOST_ROWS]
    rows = [
        (
            trial.number,
            trial.state.lower(),
            f"{trial.epochs}/{trial.last_epoch}",
            *(("-", "-") if at is None else (at.epoch, format_measure(at.value))),
            *(_number(trial.params[name]) for name in names),
        )
        for trial in shown
        for at in [trial.chosen]
    ]
    counted = f"{view.spec.objective.select} epoch"
    metric = view.spec.objective.metric
    head = ["trial", "state", "epochs", counted, metric, *short_names(names)]
    numbers = [trial.number for trial in shown]
    blocks: list[Block] = [PageTable(head, rows, 0 if view.best else None, numbers)]
    note = selection_note(view)
    if note:
        blocks.append(Paragraph(f"{note[0].upper()}{note[1:]}."))
    epoch, leaders = view.leaders
    if leaders:
        blocks.append(Paragraph(f"The first {leaders} are compared after epoch {epoch}."))
    more = len(view.trials) - len(rows)
    if more > 0:
        blocks.append(Paragraph(f"{more} more are in the study."))
    blocks += [Paragraph(f"{line[0].upper()}{line[1:]}") for line in steering_lines(view)]
    return blocks


def _failures(view: SweepView) -> list[Block]:
    reasons = Counter(trial.reason for trial in view.trials if trial.state == TrialState.FAILED)
    if not reasons:
        return [Paragraph("No trial failed.")]
    rows = [(count, reason) for reason, count in reasons.most_common()]
    return [PageTable(["trials", "reason"], rows)]


def _record(view: SweepView, commands: Sequence[str]) -> list[Block]:
    diff = view.provenance.get("diff") or {}
    facts = {
        "store": f"{view.store} (digest {view.store_digest[:12]})",
        "code": f"{view.provenance.get('commit', 'unknown')}"
        + (f" with changes {diff.get('sha256', '')[:12]}" if diff else ""),
        "machine": ", ".join(
            str(view.provenance[name])
            for name in ("processor", "usable_cores", "gpus", "host")
            if view.provenance.get(name)
        ),
        "versions": ", ".join(f"{n} {v}" for n, v in view.provenance.get("versions", {}).items()),
        "stages": ", ".join(
            f"{name}: {use.trained} trained, {use.reused} reused"
            for name, use in view.stages.items()
        ),
    }
    rows = [(name, value) for name, value in facts.items() if value]
    return [
        PageTable(["", ""], rows),
        Code("\n".join(commands)),
        Heading("Sweep file"),
        Code(view.source),
    ]


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _interval(ends: tuple[float, float] | None) -> str:
    if ends is None or any(end is None or end != end for end in ends):
        return "-"
    return f"{ends[0]:.4g} to {ends[1]:.4g}"
