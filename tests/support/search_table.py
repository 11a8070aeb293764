"""Makes the table of searches that were replayed: epochs until a good point, beside random search.

Figures are interquartile means over the seeds, with their 95 % bootstrap interval.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

__all__ = ["BEFORE", "RANDOM", "search_row", "search_table", "whole_row", "whole_table"]

BEFORE, RANDOM = "random in full, points drawn again", "random in full"
HEAD = (
    "| world | search | slots | seeds | epochs (95 %) | fewer than random, points again | "
    "fewer than random | never | trials |\n" + "|---" * 9 + "|"
)

WHOLE_HEAD = (
    "| world | search | slots | seeds | trials | epochs (95 %) | fewer than random | "
    "best value, mm above the best end of all (95 %) | seeds within 1 mm |\n" + "|---" * 9 + "|"
)

_DRAWS = 10_000


def search_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the searches until a good point, random search first in each world."""
    rows = [search_row(r, found) for r in sorted(found.values(), key=_place) if not _whole(r)]
    return "\n".join([HEAD, *rows])


def whole_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the searches that spent their whole budget, random search first in each world."""
    rows = [whole_row(r, found) for r in sorted(found.values(), key=_place) if _whole(r)]
    return "\n".join([WHOLE_HEAD, *rows])


def whole_row(result: Mapping[str, Any], every: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one row of a budget that was spent; `every` has the random search to compare with."""
    epochs_n, above_n = _epochs(result), np.asarray(result["above"], dtype=np.float64)
    cells = [result["world"], result["method"], str(result["slots"]), str(len(epochs_n))]
    cells.append(f"{trim_mean(result['begun'], 0.25):.0f}")
    low, high = _ends(_resampled(tuple(epochs_n)))
    cells.append(f"{_middle(epochs_n):.0f} ({low:.0f} to {high:.0f})")
    (theirs,) = [
        _epochs(r)
        for r in every.values()
        if _whole(r)
        and (r["world"], r["method"], r["slots"]) == (result["world"], RANDOM, result["slots"])
    ]
    is_random = result["method"] == RANDOM
    cells.append("" if is_random else f"{_middle(theirs) / _middle(epochs_n):.2f}")
    low, high = _ends(_resampled(tuple(above_n)))
    cells.append(f"{_middle(above_n):.2f} ({low:.2f} to {high:.2f})")
    cells.append(f"{np.mean(above_n <= 1.0):.0%}")
    return "| " + " | ".join(cells) + " |"


def _whole(result: Mapping[str, Any]) -> bool:
    """Whether a search spent its whole budget."""
    return bool(result.get("whole"))


def _place(result: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return by what the rows are sorted."""
    of_random, method = (BEFORE, RANDOM), result["method"]
    rank = of_random.index(method) if method in of_random else len(of_random)
    return result["world"], result["slots"], rank, _middle(_epochs(result))


def search_row(result: Mapping[str, Any], every: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one row; `every` has the random searches to compare with."""
    epochs_n = _epochs(result)
    own = _resampled(tuple(epochs_n))
    low, high = _ends(own)
    cells = [result["world"], result["method"], str(result["slots"]), str(len(epochs_n))]
    middle = _number(float(_middle(epochs_n)), ".0f")
    cells.append(f"{middle} ({_number(low, '.0f')} to {_number(high, '.0f')})")
    for rival in (BEFORE, RANDOM):
        beside = [
            r
            for r in every.values()
            if (r["world"], r["method"], r["slots"]) == (result["world"], rival, result["slots"])
            and not _whole(r)
        ]
        if not beside or result["method"] in (rival, BEFORE):
            cells.append("")
            continue
        theirs = _epochs(beside[0])
        few, many = _ends(_resampled(tuple(theirs), seed=1) / own)
        fewer = _middle(theirs) / _middle(epochs_n)
        cells.append(_number(fewer, ".2f") + f" ({_number(few, '.2f')} to {_number(many, '.2f')})")
    cells.append(f"{np.mean(np.isinf(epochs_n)):.0%}")
    cells.append(f"{trim_mean(result['begun'], 0.25):.0f}")
    return "| " + " | ".join(cells) + " |"


def _number(value: float, form: str) -> str:
    """Return a number as text; infinite where too many seeds never got there."""
    return format(value, form) if np.isfinite(value) else "no end"


def _middle(epochs_n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the interquartile mean along the last axis; infinite where a quarter never ends."""
    return np.asarray(trim_mean(epochs_n, 0.25, axis=-1))


def _epochs(result: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the epochs of every seed; infinite where a search never got there."""
    return np.array([np.inf if e is None else e for e in result["epochs"]], dtype=np.float64)


@functools.cache  # a search is the rival of many
def _resampled(values: tuple[float, ...], seed: int = 0) -> NDArray[np.float64]:
    """Return the interquartile means of bootstrap samples of the seeds' values."""
    values_n = np.asarray(values)
    generator = np.random.default_rng(seed)
    return _middle(values_n[generator.integers(len(values_n), size=(_DRAWS, len(values_n)))])


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the 95 % interval."""
    low, high = np.quantile(values, [0.025, 0.975], method="nearest")
    return float(low), float(high)
