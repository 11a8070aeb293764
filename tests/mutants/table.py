"""Writes the Markdown tables of the mutants and faults: what was found before, and what is now.

`python tests/mutants/table.py` prints them; it fails where what was found before survives now.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
TIMES = ("before", "after")
"""Of which `results` has a file for each list, where it was run."""

Results = dict[str, dict[str, str]]


def main() -> None:
    """Print one table for each list."""
    lost = []
    for name in ("faults", "mutants"):
        entries = json.loads((HERE / f"{name}.json").read_text())
        files = [RESULTS / f"{name}_{time}.json" for time in TIMES]
        results: list[Results] = [json.loads(f.read_text()) for f in files if f.exists()]
        print("\n".join(table(name, entries, results)), end="\n\n")
        lost += [e["id"] for e in entries if is_lost([r.get(e["id"], {}) for r in results])]
    if lost:
        sys.exit(f"found before, not any more: {', '.join(lost)}")


def table(name: str, entries: list[dict[str, Any]], results: list[Results]) -> list[str]:
    """Return the lines of one list's table, with the sums above it."""
    sums = [
        f"{time}: {sum(r['outcome'] == 'found' for r in result.values())} of {len(entries)} found"
        for time, result in zip(TIMES, results, strict=False)
    ]
    columns = [name.removesuffix("s"), "where", "change", *TIMES[: len(results)]]
    lines = ["; ".join(sums), "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for entry in entries:
        edit = entry["edits"][0]
        where = f"`{edit['file']}` {edit['within']}".strip()
        cells = [entry["id"], where, change(entry), *(said(r.get(entry["id"])) for r in results)]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return lines


def change(entry: dict[str, Any]) -> str:
    """Return what is changed: the fault in words, or the lines of a mutant."""
    if "group" not in entry:
        return str(entry["what"])
    changed = changed_line(entry["edits"][0])
    if "first" not in entry:
        return changed
    place = f"`{entry['first']['file']}` {entry['first']['within']}"
    return f"{changed} (before: {place}, {changed_line(entry['first'])})"


def changed_line(edit: dict[str, str]) -> str:
    """Return the first line that an edit changes, as it was and as it is then."""
    before, after = (edit[key].splitlines() for key in ("before", "after"))
    first = next(i for i, line in enumerate(before) if i >= len(after) or line != after[i])
    return f"`{before[first].strip()}` -> `{after[first].strip()}`"


def said(result: dict[str, str] | None) -> str:
    """Return a result in a cell's words."""
    if result is None:
        return "not run"
    if result["outcome"] != "found":
        return result["outcome"]
    return result["by"].rpartition("/")[2].replace(".py::", ": ")


def is_lost(results: list[dict[str, str]]) -> bool:
    """Tell whether something was found at first and survived later."""
    outcomes = [result.get("outcome") for result in results]
    return outcomes[:1] == ["found"] and "survived" in outcomes[1:]


if __name__ == "__main__":
    main()
