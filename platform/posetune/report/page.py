"""One page about one sweep: a single HTML file that needs no network and no script.

`build_page` puts the sections in order; each is a function of the sweep that returns HTML. Charts
come from `charts` and are embedded as images with a text that says what they show; below each
stands the same in words or as a table, so that nothing can only be seen.
"""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posetune.api import Evaluation
from posetune.report import charts
from posetune.report.importance import matched_values, param_importance
from posetune.report.pruning import pruning_balance
from posetune.report.tables import budget_used, changed_params, count_epochs, short_names
from posetune.study.view import SweepView

__all__ = ["BestTrial", "build_page"]

_CSS = """
:root { color-scheme: light; font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; }
body { margin: 0 auto; max-width: 1360px; padding: 0 16px 48px; background: #fff; }
a { color: #00528c; } :focus-visible { outline: 3px solid #d55e00; outline-offset: 2px; }
.skip { position: absolute; left: -9999px; } .skip:focus { position: static; }
h1 { margin: 24px 0 4px; font-size: 1.7rem; overflow-wrap: anywhere; }
h2 { margin: 40px 0 8px; font-size: 1.25rem; border-bottom: 2px solid #ddd; }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 16px; padding: 0; list-style: none; }
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; }
.facts div { background: #f3f5f7; border-radius: 6px; padding: 8px 14px; }
.facts dt { font-size: .8rem; color: #444; } .facts dd { margin: 0; font-size: 1.15rem; }
.grid { display: grid; gap: 20px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 370px),
 1fr)); align-items: start; }
figure { margin: 0; } figure img { width: 100%; height: auto; }
figcaption { font-size: .85rem; color: #444; }
.wide { overflow-x: auto; } .wide img { min-width: 560px; max-width: 900px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: 4px 12px 4px 0; text-align: left; border-bottom: 1px solid #e4e4e4; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.best td { font-weight: 700; } code, pre { font-size: .88rem; }
@media (max-width: 480px) { table { font-size: .82rem; } th, td { padding-right: 7px; } }
pre { background: #f3f5f7; padding: 10px; overflow-x: auto; border-radius: 6px; }
"""
_SHEETS = 2
"""Pictures of poses that are shown at once; the others are folded away."""
_MOST_ROWS = 50


@dataclass(frozen=True)
class BestTrial:
    """What is known of the best complete trial beyond the study."""

    number: int | None = None
    evaluation: Evaluation | None = None
    """On the whole validation split."""
    figures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG files by name, as the trial drew them."""
    missing: str = ""
    """Why there is no evaluation."""


@dataclass(frozen=True)
class _Table:
    head: Sequence[str]
    rows: Iterable[Sequence[Any]]
    best: int | None = None
    """The row to set in bold."""


def build_page(view: SweepView, best: BestTrial, *, commands: Sequence[str]) -> str:
    """Return the page.

    Args:
        view: the sweep.
        best: its best complete trial.
        commands: how to repeat and continue it.
    """
    epoch, values = matched_values(view)
    sections = {
        "Learning curves": _curves(view),
        "Baselines": _baselines(view),
        "Parameters": _parameters(view, epoch, values),
        "Poses": _poses(view, best),
        "Pruning": _pruning(view),
        "Trials": _trials(view),
        "Failures": _failures(view),
        "Record": _record(view, commands),
    }
    links = "".join(
        f'<li><a href="#{_anchor(title)}">{_text(title)}</a></li>' for title in sections
    )
    body = "".join(
        f'<section id="{_anchor(title)}"><h2>{_text(title)}</h2>{content}</section>'
        for title, content in sections.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>posetune: {_text(view.name)}</title><style>{_CSS}</style></head><body>"
        '<a class="skip" href="#main">Skip to the content</a>'
        f"<header>{_head(view)}<nav aria-label='Sections'><ul>{links}</ul></nav></header>"
        f'<main id="main">{body}</main></body></html>\n'
    )


def _head(view: SweepView) -> str:
    objective = view.spec.objective
    states = Counter(trial.state.lower() for trial in view.trials)
    facts = {
        "state": view.state.lower(),
        "trials": ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none yet",
        "budget used": budget_used(view),
    }
    if view.best is not None and view.best.value is not None:
        facts = {
            f"best {objective.metric} ({'lower' if objective.mode == 'min' else 'higher'} is "
            "better)": f"{view.best.value:.4g}, trial {view.best.number} "
            f"after {view.best.epochs} of {view.spec.pruner.max_epochs} epochs",
            **facts,
        }
    shown = "".join(f"<div><dt>{_text(n)}</dt><dd>{_text(v)}</dd></div>" for n, v in facts.items())
    return f'<h1>Sweep {_text(view.name)}</h1><dl class="facts">{shown}</dl>'


def _curves(view: SweepView) -> str:
    if not view.reports:
        return "<p>No epoch was reported yet.</p>"
    objective = view.spec.objective.metric
    return _grid(
        _chart(
            charts.learning_curves(view),
            f"{objective} of each trial on validation after each epoch; the grey lines are ASHA's "
            "rungs, dashed ones the baselines.",
        ),
        _chart(
            charts.best_so_far(view),
            f"The best {objective} among complete trials against what all trials had cost by then.",
        ),
    )


def _baselines(view: SweepView) -> str:
    best = view.best
    rows = [(name, value) for name, value in view.baselines.items()]
    if best is not None and best.value is not None:
        rows.append((f"best: trial {best.number}", best.value))
    sign = 1 if view.spec.objective.mode == "min" else -1
    rows.sort(key=lambda row: sign * row[1])
    place = next((i for i, (name, _) in enumerate(rows) if name.startswith("best: ")), None)
    shown = [(name, f"{value:.4g}") for name, value in rows]
    note = "<p>Trivial answers on the same frames, best first. A model that beats none of them "
    note += "has learned nothing; those with <em>truth</em> or <em>true</em> in their name use the "
    note += "truth and are references.</p>"
    return note + _table(_Table(["", view.spec.objective.metric], shown, place))


def _parameters(view: SweepView, epoch: int, values: Mapping[int, float]) -> str:
    changes = changed_params(view)
    rows = [(name, _number(a), _number(b)) for name, (a, b) in changes.items()]
    parts = ["<h3>The best trial against the defaults (trial 0)</h3>"]
    parts.append(_table(_Table(["parameter", "default", "best"], rows)) if rows else _same(view))
    found = param_importance(view)
    if found.params:
        text = "How much of the difference between the best tenth and the others each parameter "
        text += f"explains (PED-ANOVA): {found.trials} trials, all compared after "
        text += f"{count_epochs(found.epoch)}."
        parts = [_grid(f"<div>{''.join(parts)}</div>", _chart(charts.importance_bars(found), text))]
    else:
        parts.append(f"<p>Importance: nothing to say yet ({_text(found.reason)}).</p>")
    if len(values) < 3:
        return "".join(parts)
    parts.append(f"<h3>{len(values)} trials, all after {count_epochs(epoch)}</h3>")
    across = "Each line is a trial from parameter to parameter to its value; darker is better, the "
    across += "thick one the best."
    parts.append(_chart(charts.parallel_coordinates(view, values), across, wide=True))
    pictures = [
        _chart(svg, f"{view.spec.objective.metric} against {name}.")
        for name, svg in charts.slices(view, values)
    ]
    pictures += [
        _chart(charts.contour(view, values, x, y), f"{view.spec.objective.metric} over {x} and {y}")
        for x, y in _pairs(view, list(found.params))
    ]
    return "".join([*parts, _grid(*pictures)])


def _pairs(view: SweepView, by_importance: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs to draw: all others against a depth, or else the two that matter most."""
    names = list(by_importance or view.spec.search)
    depth = next((name for name in names if name.rpartition(".")[2] == "depth"), None)
    if depth is not None:
        return [(name, depth) for name in view.spec.search if name != depth]
    return [(names[0], names[1])] if len(names) > 1 else []


def _same(view: SweepView) -> str:
    return (
        "<p>The best trial has the defaults' parameters.</p>" if view.best else "<p>None yet.</p>"
    )


def _poses(view: SweepView, best: BestTrial) -> str:
    parts = []
    if best.evaluation is None:
        parts.append(f"<p>The best trial was not evaluated: {_text(best.missing)}.</p>")
    else:
        parts.append(_evaluation(view, best, best.evaluation))
    evaluated = best.evaluation.pictures if best.evaluation else {}
    sheets = [
        _picture(data, "image/png", f"{name}: trial {best.number} on validation", wide=True)
        for name, data in (evaluated or best.figures).items()
        if name.endswith(".png")
    ]
    parts += sheets[:_SHEETS]
    if sheets[_SHEETS:]:
        more = "".join(sheets[_SHEETS:])
        parts.append(f"<details><summary>{len(sheets) - _SHEETS} more</summary>{more}</details>")
    return "".join(parts)


def _evaluation(view: SweepView, best: BestTrial, found: Evaluation) -> str:
    column = view.spec.objective.metric.rpartition("/")[2]
    parts = []
    rows: list[Sequence[Any]] = [
        (name, f"{value:.4g}", _interval(found.intervals.get(name)))
        for name, value in found.metrics.items()
    ]
    metrics = _table(_Table(["metric", "value", "95 % interval over motions"], rows))
    parts.append(f"<div>{metrics}</div>")
    averages = found.details.get("averages", {}).get(column, {}).get("activities", {})
    counts = found.details.get("activities", {})
    if averages:
        ordered = sorted(averages.items(), key=lambda item: item[1]["mean"])
        rows = [
            (
                name,
                f"{average['mean']:.1f}",
                _interval((average["low"], average["high"])),
                counts.get(name, {}).get("frames", ""),
                counts.get(name, {}).get("motions", ""),
            )
            for name, average in ordered
        ]
        head = ["activity", column, "95 % interval", "frames", "motions"]
        parts.append(f"<div>{_table(_Table(head, rows))}</div>")
    if column in found.records and len(found.records[column]) > 1:
        errors = [float(value) for value in found.records[column]]
        middle = sorted(errors)[len(errors) // 2]
        marks = {"median": middle, **{n: v for n, v in view.baselines.items() if "mean" in n}}
        text = f"{column} of {len(errors)} validation frames; the lines are the median and the "
        text += "baselines that do not look at the picture."
        parts.append(_chart(charts.distribution(errors, column, marks), text))
    said = f"<p>Trial {best.number} on every frame of the validation split.</p>"
    return said + _grid(*parts)


def _pruning(view: SweepView) -> str:
    balance = pruning_balance(view)
    said = str(balance)
    text = f"<p>{_text(said[0].upper() + said[1:])}.</p>"
    if not balance.audits:
        return text
    rows = [(a.trial, a.cut_at, f"{a.value:.4g}", f"{a.gain:+.4g}") for a in balance.audits]
    head = ["trial", "would have been cut at epoch", "ended at", "better than the best kept by"]
    return text + _table(_Table(head, rows))


def _trials(view: SweepView) -> str:
    names = list(view.spec.search)
    places = {trial.number for trial in view.ranked}
    rest = [trial for trial in view.trials if trial.number not in places]
    rows = [
        (
            trial.number,
            trial.state.lower(),
            f"{trial.epochs}/{view.spec.pruner.max_epochs}",
            "-" if trial.value is None else f"{trial.value:.2f}",
            *(_number(trial.params[name]) for name in names),
        )
        for trial in [*view.ranked, *rest][:_MOST_ROWS]
    ]
    head = ["trial", "state", "epochs", view.spec.objective.metric, *short_names(names)]
    epoch, leaders = view.leaders
    note = f"<p>The first {leaders} are compared after epoch {epoch}.</p>" if leaders else ""
    more = len(view.trials) - len(rows)
    note += f"<p>{more} more are in the study.</p>" if more > 0 else ""
    return _table(_Table(head, rows, 0 if view.best else None)) + note


def _failures(view: SweepView) -> str:
    reasons = Counter(trial.reason for trial in view.trials if trial.state == "FAILED")
    if not reasons:
        return "<p>No trial failed.</p>"
    rows = [(count, reason) for reason, count in reasons.most_common()]
    return _table(_Table(["trials", "reason"], rows))


def _record(view: SweepView, commands: Sequence[str]) -> str:
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
    lines = "\n".join(commands)
    return (
        _table(_Table(["", ""], rows))
        + f'<pre tabindex="0">{_text(lines)}</pre><h3>Sweep file</h3>'
        + f'<pre tabindex="0">{_text(view.source)}</pre>'
    )


# -- HTML --------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    return html.escape(str(value))


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _interval(ends: tuple[float, float] | None) -> str:
    if ends is None or any(end is None or end != end for end in ends):
        return "-"
    return f"{ends[0]:.4g} to {ends[1]:.4g}"


def _table(table: _Table) -> str:
    rows = [[str(cell) for cell in row] for row in table.rows]
    numeric = [
        bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(table.head))
    ]
    css = [' class="n"' if n else "" for n in numeric]
    head = "".join(
        f'<th scope="col"{c}>{_text(h)}</th>' for h, c in zip(table.head, css, strict=True)
    )
    body = "".join(
        f"<tr{' class=best' if i == table.best else ''}>"
        + "".join(f"<td{c}>{_text(cell)}</td>" for cell, c in zip(row, css, strict=True))
        + "</tr>"
        for i, row in enumerate(rows)
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _is_number(cell: str) -> bool:
    return cell == "-" or cell[:1].isdigit() or (cell[:1] in "+-" and cell[1:2].isdigit())


def _grid(*figures: str) -> str:
    return f'<div class="grid">{"".join(figures)}</div>'


def _chart(svg: str, text: str, *, wide: bool = False) -> str:
    return _picture(svg.encode(), "image/svg+xml", text, wide=wide)


def _picture(data: bytes, kind: str, text: str, *, wide: bool) -> str:
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    image = f'<img src="{source}" alt="{_text(text)}">'
    if wide:
        image = f'<div class="wide" tabindex="0" role="region" aria-label="Picture">{image}</div>'
    return f"<figure>{image}<figcaption>{_text(text)}</figcaption></figure>"
