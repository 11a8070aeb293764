"""Says names, numbers and durations as people read them in a terminal or on a page."""

from __future__ import annotations

from typing import Any

__all__ = [
    "HUGE",
    "broken",
    "count_epochs",
    "count_times",
    "format_clock",
    "format_measure",
    "format_params",
    "format_seconds",
    "format_value",
    "short_names",
]


HUGE = 1e7
"""Values from here on are written as powers of ten."""

HEADER_CHARACTERS = 8
"""Number of characters up to which words share a line of a table's header."""


def count_epochs(count: int) -> str:
    """Return a number of epochs in words: `1 epoch`, `2 epochs`."""
    return "1 epoch" if count == 1 else f"{count} epochs"


def count_times(count: int) -> str:
    """Return how often in words: `once`, `2 times`."""
    return "once" if count == 1 else f"{count} times"


def short_names(names: list[str]) -> list[str]:
    """Return the shortest endings of dotted names that are different from each other."""
    parts = [name.split(".") for name in names]
    for length in range(1, max(map(len, parts), default=1) + 1):
        short = [".".join(part[-length:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return names


def broken(header: str) -> str:
    """Break a header between its words, so that no terminal breaks it inside of one."""
    lines = [""]
    for word in header.replace("_", "_ ").split():
        if lines[-1] and len(lines[-1] + word.rstrip("_")) > HEADER_CHARACTERS:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip("_") for line in lines)


def format_params(params: dict[str, Any]) -> str:
    """Return parameters as `name=value` in one line, with short names and rounded values."""
    short = short_names(list(params))
    return " ".join(f"{n}={format_value(v)}" for n, v in zip(short, params.values(), strict=True))


def format_value(value: Any) -> str:
    """Return a parameter's value, a real number with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def format_measure(value: float, digits: int = 2) -> str:
    """Return a metric's value with so many digits behind its point; a huge one as a power of ten.

    A training that diverges reports numbers of up to 309 digits.
    """
    return f"{value:.{digits}f}" if abs(value) < HUGE else f"{value:.3e}"


def format_clock(seconds: float) -> str:
    """Return a duration as a clock shows it, `1:02` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def format_seconds(seconds: float) -> str:
    """Return a duration in words, in its one or two largest units, e.g. `10 min 35 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
