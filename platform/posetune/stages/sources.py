"""Finds the code that a stage can reach, from imports, so that a change of it changes the key.

Nobody lists modules by hand: a list that forgets one shares a product that the code of today would
not make.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Collection, Iterator
from pathlib import Path

from posetune.storage.digest import digest_json

__all__ = ["reachable_modules", "source_digest"]

PLATFORM = "posetune"


@functools.lru_cache(maxsize=64)
def source_digest(module: str) -> str:
    """Return the digest of a module's source and of all that it can reach.

    It is worked out once a process: what the process has imported is what it runs, though the
    files may change meanwhile.

    Raises:
        ValueError: there is no such module.
    """
    return digest_json({name: _text(name) for name in reachable_modules(module)})


@functools.lru_cache(maxsize=64)
def reachable_modules(module: str) -> tuple[str, ...]:
    """Return the modules of our packages that a module can import, itself included, sorted.

    Ours are the module's own package and `posetune`; imports inside functions count, imports for
    type checkers do not. A package counts where something is imported from it by name, and not
    where it is only on the way to a module: its `__init__` gathers what its users may want, and
    the module does not use that.

    Raises:
        ValueError: there is no such module.
    """
    ours = {_package(module), PLATFORM}
    if _file(module) is None:
        raise ValueError(f"stage source {module}: no such module")
    found, waiting = {module}, [module]
    while waiting:
        for name in _imports(waiting.pop(), ours):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return tuple(sorted(found))


def _package(module: str) -> str:
    return module.partition(".")[0]


def _imports(module: str, ours: Collection[str]) -> Iterator[str]:
    """Yield our modules that a module imports, by any statement but those for type checkers.

    Others are not looked for: to find one, Python imports the packages that it lies in.
    """
    waiting: list[ast.AST] = [ast.parse(_text(module))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if _package(alias.name) in ours]
            yield from (name for name in names if _file(name))
        elif isinstance(node, ast.ImportFrom):
            yield from _imported_from(module, node, ours)
        waiting.extend(ast.iter_child_nodes(node))


def _imported_from(module: str, node: ast.ImportFrom, ours: Collection[str]) -> Iterator[str]:
    origin = node.module or ""
    if node.level:
        is_package = (_file(module) or Path()).name == "__init__.py"
        parts = module.split(".")
        above = parts[: len(parts) - node.level + is_package]
        origin = ".".join([*above, *([origin] if origin else [])])
    if _package(origin) not in ours:
        return
    modules = [f"{origin}.{alias.name}" for alias in node.names]
    yield from (name for name in modules if _file(name))
    if any(_file(name) is None for name in modules):
        yield origin


def _text(module: str) -> str:
    file = _file(module)
    return "" if file is None else file.read_text(encoding="utf-8")


@functools.lru_cache(maxsize=1024)
def _file(module: str) -> Path | None:
    """Return a module's source file; None where there is no such module, or it has no source."""
    if not _package(module):
        return None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)
