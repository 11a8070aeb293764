"""Every option of an importer can be given on the command line."""

from __future__ import annotations

import inspect

import pytest

from posetune.cli.commands.setup.data import import_
from selfpose.trainable import SelfPose


@pytest.mark.parametrize("form", sorted(SelfPose.importers()))
def test_the_command_has_every_option_of_an_importer(form: str) -> None:
    options = SelfPose.importers()[form].options
    assert set(options.model_fields) <= set(inspect.signature(import_).parameters)
