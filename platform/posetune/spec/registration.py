"""Finds a trainable by its name, among those that are shipped or that somebody registered.

A package registers its trainables as entry points; the user registers more in an environment
variable.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from collections.abc import Sequence
from typing import Any

from posetune.api import BadInputError, Trainable

__all__ = [
    "DEFAULT_TRAINABLE",
    "SHIPPED_TRAINABLES",
    "TRAINABLES_VARIABLE",
    "import_trainable",
    "load_extension",
    "load_trainable",
]

DEFAULT_TRAINABLE = "selfpose.trainable:SelfPose"
"""Trainable of a sweep file that names none."""
SHIPPED_TRAINABLES = (
    DEFAULT_TRAINABLE,
    "posetune.testing.toy:Toy",
    "posetune.testing.example:OnePose",
)
"""Trainables of this distribution, which are always registered."""
TRAINABLES_GROUP = "posetune.trainables"
"""Group of the entry points with which installed packages register their trainables."""
TRAINABLES_VARIABLE = "POSETUNE_TRAINABLES"
"""Environment variable that registers trainables of packages that are not installed: their names,
separated by commas."""


def load_trainable(name: str) -> type[Trainable]:
    """Import the registered class that `package.module:Class` names.

    Raises:
        BadInputError: the name is not registered, there is no such module or class, or the class
            lacks something that `Trainable` asks for.
    """
    _require_registered(name)
    return import_trainable(name)


def import_trainable(name: str) -> type[Trainable]:
    """Import the class that `package.module:Class` names without asking whether it is registered.

    Only a name that is trusted may be given, such as that of a promoted model: the model is loaded
    by its own code in any case.

    Raises:
        BadInputError: there is no such module or class, or the class lacks something that
            `Trainable` asks for.
    """
    module_name, _, class_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise BadInputError(
            f"trainable {name}: no module {error.name!r}; is its package installed?"
        ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        raise BadInputError(f"trainable {name}: {module_name} has no class {class_name!r}")
    offered = ("config_model", "metrics", "stages", "start", "epoch", "save", "load", "export")
    missing = [attribute for attribute in offered if not hasattr(found, attribute)]
    if missing:
        raise BadInputError(
            f"trainable {name}: is no trainable, it lacks {', '.join(missing)} "
            "(see posetune.api.Trainable)"
        )
    return found


def load_extension(name: str, what: str, offered: Sequence[str]) -> type[Any]:
    """Import the class of a sampler or a pruner, which is registered as trainables are.

    Args:
        name: `package.module:Class`.
        what: what it is, for messages.
        offered: what it must have.

    Raises:
        BadInputError: the name is not registered, there is no such module or class, or the class
            lacks something.
    """
    _require_registered(name, what)
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name, None)
    except ModuleNotFoundError as error:
        raise BadInputError(
            f"{what} {name}: no module {error.name!r}; is its package installed?"
        ) from error
    if not isinstance(found, type):
        raise BadInputError(f"{what} {name}: {module_name} has no class {class_name!r}")
    missing = [attribute for attribute in offered if not hasattr(found, attribute)]
    if missing:
        raise BadInputError(
            f"{what} {name}: is no {what}, it lacks {', '.join(missing)} "
            "(see posetune.study.search.contracts)"
        )
    return found


def _require_registered(name: str, what: str = "trainable") -> None:
    """Refuse a name that is not registered.

    A sweep file may come from anyone, so it must not decide which module is imported.
    """
    if name in SHIPPED_TRAINABLES:
        return
    named = [part.strip() for part in os.environ.get(TRAINABLES_VARIABLE, "").split(",")]
    installed = [point.value for point in importlib.metadata.entry_points(group=TRAINABLES_GROUP)]
    if name not in (*named, *installed):
        known = ", ".join(sorted({*SHIPPED_TRAINABLES, *filter(None, named), *installed}))
        raise BadInputError(
            f"{what} {name}: is not registered; registered are {known}. Its package registers "
            f'it in its pyproject.toml: [project.entry-points."{TRAINABLES_GROUP}"] '
            f'mine = "{name}"; without installing it, set {TRAINABLES_VARIABLE}={name}'
        )
