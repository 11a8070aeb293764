"""Every public function of tensors in the method and the networks says their shapes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "trainables" / "selfpose"
MODULES = sorted([*(ROOT / "method").glob("*.py"), *(ROOT / "networks").glob("*.py")])
TENSOR = re.compile(r"\b(Tensor|NDArray)\b")
SHAPE = re.compile(r"\(\)|\((?:\d*[A-Z0-9]+(?:, ?)?)+\)|\([A-Z],\)")
"""`()`, `(B,)` or `(B, J, 3)`."""


def public_functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    """Yield the public functions and methods below a module or a public class."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child)
        elif isinstance(child, ast.FunctionDef) and is_public(child.name):
            yield child


def is_public(name: str) -> bool:
    return name == "__call__" or not name.startswith("_")


def annotation(node: ast.expr | None) -> str:
    return "" if node is None else ast.unparse(node)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_public_function_says_the_shape_of_every_tensor(module: Path) -> None:
    silent = []
    for function in public_functions(ast.parse(module.read_text())):
        text = " ".join((ast.get_docstring(function) or "").split())
        given = [*function.args.args, *function.args.kwonlyargs]
        tensors = [a.arg for a in given if TENSOR.search(annotation(a.annotation))]
        returns = bool(TENSOR.search(annotation(function.returns)))
        if len(SHAPE.findall(text)) < len(tensors) + returns:
            silent.append(function.name)

    assert silent == []
