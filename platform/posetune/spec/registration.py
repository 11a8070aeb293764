"""Which trainables there are: the shipped ones, and those that a package or the user registers."""

from __future__ import annotations

import importlib
import importlib.metadata
import os

from posetune.api import BadInputError, Trainable

__all__ = [
    "DEFAULT_TRAINABLE",
    "SHIPPED_TRAINABLES",
    "TRAINABLES_VARIABLE",
    "import_trainable",
    "load_trainable",
]

DEFAULT_TRAINABLE = "selfpose.trainable:SelfPose"
SHIPPED_TRAINABLES = (
    DEFAULT_TRAINABLE,
    "posetune.testing.toy:Toy",
    "posetune.testing.example:OnePose",
)
TRAINABLES_GROUP = "posetune.trainables"
"""Entry points of this group register the trainables of installed packages."""
TRAINABLES_VARIABLE = "POSETUNE_TRAINABLES"
"""Registers trainables of packages that are not installed, separated by commas."""


def load_trainable(name: str) -> type[Trainable]:
    """Import the registered class that `package.module:Class` names.

    Raises:
        BadInputError: it is not registered, there is no such module or class, or it does not offer
            what `Trainable` asks.
    """
    _require_registered(name)
    return import_trainable(name)


def import_trainable(name: str) -> type[Trainable]:
    """Import a class whose name is trusted: of a promoted model, which is code itself.

    Raises:
        BadInputError: there is no such module or class, or it does not offer what `Trainable` asks.
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


def _require_registered(name: str) -> None:
    """A sweep file may come from anyone: it cannot have any module of this machine imported."""
    if name in SHIPPED_TRAINABLES:
        return
    named = [part.strip() for part in os.environ.get(TRAINABLES_VARIABLE, "").split(",")]
    installed = [point.value for point in importlib.metadata.entry_points(group=TRAINABLES_GROUP)]
    if name not in (*named, *installed):
        known = ", ".join(sorted({*SHIPPED_TRAINABLES, *filter(None, named), *installed}))
        raise BadInputError(
            f"trainable {name}: is not registered; registered are {known}. Its package registers "
            f'it in its pyproject.toml: [project.entry-points."{TRAINABLES_GROUP}"] '
            f'mine = "{name}"; without installing it, set {TRAINABLES_VARIABLE}={name}'
        )
