"""Runs a function as soon as somebody imports a module, without importing it.

Some packages take seconds to import, and a trainable may import them late or never.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["after_import", "forget_import"]


def after_import(module: str, key: str, call: Callable[[], None]) -> None:
    """Call a function when a module is imported; at once if it already is.

    Args:
        module: name of the module.
        key: name of the call; another one of the same name, which waits, is replaced.
        call: the function.
    """
    if module in sys.modules:
        call()
        return
    for finder in sys.meta_path:
        if isinstance(finder, _AfterImport) and finder.module == module:
            finder.calls[key] = call
            return
    sys.meta_path.insert(0, _AfterImport(module, {key: call}))


def forget_import(module: str, key: str) -> None:
    """Take back a call that still waits for its module; nothing if none does."""
    for finder in sys.meta_path:
        if isinstance(finder, _AfterImport) and finder.module == module:
            finder.calls.pop(key, None)


@dataclass
class _AfterImport(MetaPathFinder):
    """Finds one module as the other finders do, and makes its loader run functions at the end."""

    module: str
    calls: dict[str, Callable[[], None]] = field(default_factory=dict)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module, once."""
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        run: Callable[[ModuleType], None] = spec.loader.exec_module

        def run_and_call(module: ModuleType) -> None:
            run(module)
            for call in list(self.calls.values()):
                call()

        spec.loader.exec_module = run_and_call  # type: ignore[method-assign]
        return spec
