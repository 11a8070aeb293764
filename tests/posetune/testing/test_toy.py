"""The toy follows the laws of a trainable."""

from __future__ import annotations

from pathlib import Path

import pytest

from posetune.testing.conformance import TrainableConformance
from posetune.testing.toy import Toy


class TestToy(TrainableConformance):
    trainable = Toy

    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        store = tmp_path_factory.mktemp("stores") / "toy"
        importer = Toy.importers()["toy"]
        importer.run(None, store, importer.options(), lambda done, total, note="": None)
        return store
