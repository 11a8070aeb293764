"""Says what people have written about a sweep, and what they want of it."""

from __future__ import annotations

from collections.abc import Mapping

from posetune.study.view import SweepView

__all__ = ["shown_tags", "steering_lines"]


def steering_lines(view: SweepView) -> list[str]:
    """Return tags, notes and requests that wait, a line each; empty where there are none."""
    lines = [f"tags: {shown_tags(view.tags)}"] if view.tags else []
    lines += [f"note by {remark.by}: {remark.text}" for remark in view.remarks]
    for trial in view.trials:
        if trial.tags:
            lines.append(f"trial {trial.number}: tags: {shown_tags(trial.tags)}")
        lines += [f"trial {trial.number}: note by {r.by}: {r.text}" for r in trial.remarks]
    if view.waiting_requests:
        wanted = ", ".join(f"{r.act.kind} by {r.by}" for r in view.waiting_requests)
        lines.append(f"waiting for a driver: {wanted}")
    return lines


def shown_tags(tags: Mapping[str, str]) -> str:
    """Return tags as people write them."""
    return ", ".join(f"{name}={value}" if value else name for name, value in tags.items())
