"""Draws the list of mutants in `mutants.json` by a seed, with the operators of cosmic-ray.

`python tests/mutants/draw.py` writes the list anew. It is drawn once and kept: a list that is drawn
from changed code cannot be compared with an older one. Where a line that was drawn is gone, `edits`
holds the same change of the line that has its meaning today, chosen by hand, and `first` the one
that was drawn.

Left out is what no test can find or what every test finds: annotations, imports, `__all__`, type
aliases, decorators, the pieces of f-strings, code for type checkers, replacements by an operator of
another family (a sum by a shift, an equality by an identity), the tables' columns in `schema.py`,
and what does not compile. Every module gets its share of a group by its lines that can be changed,
at least one. A position is drawn first and its replacement second, or comparisons with their many
replacements would fill the list; no line is drawn twice.
"""

from __future__ import annotations

import ast
import difflib
import json
import random
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from planting import enclosing, find_lines

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SEED = 16
DRAWN = {"study": 36, "projection": 8, "losses": 8, "procrustes": 8}
"""How many of each group of `groups.json`."""

FAMILIES = (
    {"Add", "Sub", "Mul", "Div", "FloorDiv"},
    {"BitOr", "BitAnd", "BitXor"},
    {"Eq", "NotEq", "Lt", "LtE", "Gt", "GtE"},
    {"Is", "IsNot"},
)
"""Operators that may replace each other."""


@dataclass(frozen=True)
class Position:
    """A place in a file that operators of one kind can change."""

    file: Path
    line: int
    column: int
    kind: str


Changes = dict[Position, list[tuple[str, int]]]
"""For each position the operators that can change it, each with its count of the place."""


def main() -> None:
    """Draw the list and write it."""
    generator = random.Random(SEED)
    groups = json.loads((HERE / "groups.json").read_text())
    mutants = []
    for name, count in DRAWN.items():
        files = sorted(ROOT.glob(groups[name]["code"]))
        changes = {f: found for f in files if f.name != "schema.py" and (found := find_changes(f))}
        drawn = [
            mutant
            for file, share in shares(changes, count).items()
            for mutant in draw(changes[file], share, generator)
        ]
        mutants += [{"id": f"{name}-{i:02d}", "group": name, **m} for i, m in enumerate(drawn, 1)]
    (HERE / "mutants.json").write_text(json.dumps(mutants, indent=1, ensure_ascii=False) + "\n")


def shares(changes: Mapping[Path, Changes], count: int) -> dict[Path, int]:
    """Divide a count among files by their lines that can be changed; at least one each."""
    lines = {file: len({position.line for position in found}) for file, found in changes.items()}
    given = dict.fromkeys(lines, 1)
    while sum(given.values()) < count:
        given[max(lines, key=lambda file: lines[file] / (given[file] + 1))] += 1
    return given


def draw(changes: Changes, count: int, generator: random.Random) -> list[dict[str, object]]:
    """Draw mutants of that many lines of one file, in the order of the lines."""
    positions = sorted(changes, key=lambda p: (p.line, p.column, p.kind))
    generator.shuffle(positions)
    drawn: dict[int, dict[str, object]] = {}
    for position in positions:
        if len(drawn) < count and position.line not in drawn:
            operator, occurrence = generator.choice(changes[position])
            mutant = describe(position, operator, occurrence)
            if mutant is not None:
                drawn[position.line] = mutant
    return [drawn[line] for line in sorted(drawn)]


def find_changes(file: Path) -> Changes:
    """Find all changes of a file that a test can be expected to find."""
    source = file.read_text()
    left_out = list(ranges_left_out(ast.parse(source)))
    nodes = list(ast_nodes(get_ast(source)))
    changes: Changes = {}
    for name in operator_names():
        if not is_of_one_family(name):
            continue
        starts = (p[0] for node in nodes for p in get_operator(name)().mutation_positions(node))
        for occurrence, (line, column) in enumerate(starts):
            if not any(first <= (line, column) < last for first, last in left_out):
                position = Position(file, line, column, kind=name.split("_")[0])
                changes.setdefault(position, []).append((name, occurrence))
    return changes


def is_of_one_family(operator: str) -> bool:
    """Tell whether an operator needs no arguments and replaces like by like."""
    kind, *pair = operator.split("_")
    if kind.endswith(("VariableReplacer", "VariableInserter", "RemoveDecorator")):
        return False
    if "Binary" in kind or "Comparison" in kind:
        return any(set(pair) <= family for family in FAMILIES)
    return True


def ranges_left_out(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield from where to where (line, column) nothing is drawn."""
    for node in ast.walk(tree):
        for part in parts_left_out(node):
            yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


def parts_left_out(node: ast.AST) -> list[ast.AST]:
    """Return the parts of a node in which nothing is drawn."""
    if isinstance(node, ast.FunctionDef):
        return [*node.decorator_list, *([node.returns] if node.returns else [])]
    if isinstance(node, ast.ClassDef):
        return list(node.decorator_list)
    if isinstance(node, ast.arg | ast.AnnAssign):
        return [node.annotation] if node.annotation else []
    is_words = isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom)
    return [node] if is_words or is_declaration(node) else []


def is_declaration(node: ast.AST) -> bool:
    """Tell whether a node is `__all__`, a type alias or variable, or code for type checkers."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    if not isinstance(node, ast.Assign):
        return False
    value = ast.unparse(node.value)
    types = ("Literal[", "TypeVar(", "Callable[", "tuple[", "dict[", "list[", "Mapping[")
    return ast.unparse(node.targets[0]) == "__all__" or value.startswith(types)


def describe(position: Position, operator: str, occurrence: int) -> dict[str, object] | None:
    """Return a mutant as data that outlives moves of its file; None if it does not compile."""
    source = position.file.read_text()
    mutated = mutate_code(source, get_operator(operator)(), occurrence)
    try:
        compile(mutated, str(position.file), "exec")
    except SyntaxError:
        return None
    lines, changed = source.splitlines(), mutated.splitlines()
    matcher = difflib.SequenceMatcher(a=lines, b=changed, autojunk=False)
    blocks = [block for block in matcher.get_opcodes() if block[0] != "equal"]
    first, last, last_changed = blocks[0][1], blocks[-1][2], blocks[-1][4]
    within = enclosing(ast.parse(source), position.line)
    while is_repeated(position.file, "\n".join(lines[first:last]), within):
        last, last_changed = last + 1, last_changed + 1  # the lines after tell it from the others
    edit = {
        "file": position.file.name,
        "within": within,
        "before": textwrap.dedent("\n".join(lines[first:last])),
        "after": textwrap.dedent("\n".join(changed[first:last_changed])),
    }
    return {"what": operator.removeprefix("core/"), "edits": [edit]}


def is_repeated(file: Path, text: str, within: str) -> bool:
    """Tell whether lines stand more than once in a function."""
    return sum(place.within == within for place in find_lines(file, text)) > 1


if __name__ == "__main__":
    main()
