"""Reads the metrics that a trainable returns, and refuses what is no metric, by its name.

Everything behind this point (study, rungs, tables, MLflow) may rely on it: each name is a short
text that no number of the platform's has, and each value is a float. NaN and infinity are floats: a
trial whose objective is no number goes on to the next rung.
"""

from __future__ import annotations

import numbers
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["MetricError", "check_metric_name", "read_metrics"]

_OWN_NAMES = ("trial", "epoch", "seconds")
"""Columns that stand beside a trial's metrics in tables and JSON."""
_OWN_PREFIXES = ("best/", "time/", "system/", "baseline/")
"""How the names of the metrics begin that the platform itself logs to MLflow."""
_MOST_CHARACTERS = 250
"""Length of the longest name that MLflow takes."""
_TIMES = ("m", "M")
"""Kinds of NumPy's types that hold a length of time or a date."""
_MOST_METRICS = 10_000
"""How many metrics an epoch may report; each is a row in MLflow."""


class MetricError(ValueError):
    """What a trainable returned as its metrics cannot be taken; the message says why."""


def read_metrics(
    reported: Any, *, declared: Collection[str], objective: str = "", is_first: bool = True
) -> dict[str, float]:
    """Return the metrics of an epoch as floats.

    Real numbers are taken in every form: Python's, NumPy's scalars, arrays and tensors without
    dimensions.

    Args:
        reported: what `Trainable.epoch` returned.
        declared: names of the metrics that the trainable declares and that the store allows.
        objective: name of the metric that the sweep optimises; empty if there is none.
        is_first: whether this is the trial's first epoch, in which no declared metric may be
            missing. Later on only the objective must be there.

    Raises:
        MetricError: it is no mapping, a metric is missing, a name cannot be used, or a value is no
            real number.
    """
    if not isinstance(reported, Mapping):
        raise MetricError(
            f"epoch() returned {_describe(reported)}; it must return a mapping from the names of "
            "metrics to numbers"
        )
    if len(reported) > _MOST_METRICS:
        raise MetricError(
            f"epoch() reported {len(reported)} metrics, more than {_MOST_METRICS}; report averages"
        )
    for name in reported:
        check_metric_name(name)
    wanted = [*declared, objective] if is_first else [objective]
    missing = [name for name in dict.fromkeys(wanted) if name and name not in reported]
    if missing:
        raise MetricError(
            f"epoch() did not report {', '.join(missing)}; it reported "
            f"{', '.join(reported) or 'nothing'}. A trainable reports every metric that it "
            "declares in `metrics`"
        )
    return {str(name): _number(name, value) for name, value in reported.items()}


def check_metric_name(name: Any) -> None:
    """Refuse a metric's name that is no text, or that means a number of the platform's.

    Raises:
        MetricError: the name cannot be used.
    """
    if not isinstance(name, str) or not name:
        raise MetricError(f"metric {name!r}: a metric's name must be a text that is not empty")
    shown = repr(name[:60])
    if len(name) > _MOST_CHARACTERS or not name.isprintable():
        raise MetricError(
            f"metric {shown}: a metric's name takes 1 to {_MOST_CHARACTERS} characters, all of "
            "them printable"
        )
    if name in _OWN_NAMES or name.startswith(_OWN_PREFIXES):
        raise MetricError(
            f"metric {shown}: the platform has a number of this name (its own are "
            f"{', '.join(_OWN_NAMES)} and what begins with {', '.join(_OWN_PREFIXES)}); give the "
            "metric another name"
        )


def _number(name: str, value: Any) -> float:
    """Return a metric's value as a float."""
    try:
        plain = _plain(value)
        if not isinstance(plain, bool) and isinstance(plain, numbers.Real):
            return float(plain)
    except Exception as error:  # noqa: BLE001 - the value's own code, which may raise anything
        cause = " ".join(str(error).split()) or type(error).__name__
        fault = "" if isinstance(error, OverflowError) else f", which cannot be read ({cause:.100})"
    else:
        fault = ""
    raise MetricError(
        f"metric {name!r} is {_describe(value)}{fault}; it must be one real number (a float, a "
        "NumPy scalar, or an array or tensor without dimensions)"
    )


def _plain(value: Any) -> Any:
    """Return what an array or a tensor without dimensions holds, None of what is no number.

    Other values are returned as they are.
    """
    # Known by its form, because NumPy and torch take their time to import.
    if getattr(value, "shape", None) != () or not callable(getattr(value, "item", None)):
        return value
    is_time = getattr(getattr(value, "dtype", None), "kind", "") in _TIMES
    if is_time or bool(getattr(value, "mask", False)):
        return None  # NumPy gives a time as the number of its nanoseconds, a masked value as any
    return value.item()


def _describe(value: Any) -> str:
    """Return what a value is, in a few words: its type, and its shape or beginning."""
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    try:
        shape = getattr(value, "shape", None)
        text = repr(value)
    except Exception:  # noqa: BLE001 - the value's own code, which may raise anything
        return f"a {name}"
    if isinstance(shape, tuple) and shape:
        return f"a {name} of shape {tuple(shape)}"
    return f"a {name}: {text if len(text) <= 60 else f'{text[:57]}...'}"
