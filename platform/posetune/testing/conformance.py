"""Tests the laws that every trainable must keep.

Subclass `TrainableConformance` in a test module and give the trainable and a store:

    class TestMine(TrainableConformance):
        trainable = Mine
        quick = {"steps_per_epoch": 2}        # fields that make an epoch last a second or less

        @pytest.fixture(scope="class")
        def store(self, tmp_path_factory): ...  # a small store
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from posetune.api import Trainable, TrialContext, is_reusable
from posetune.spec.loading import configure
from posetune.stages.cache import StageCache, stage_key
from posetune.storage import open_storage
from posetune.storage.digest import digest_folder
from posetune.testing.reuse import LEFT_FILE, LEFT_THREAD, Request

__all__ = ["TrainableConformance"]


class _BrokenOffError(Exception):
    pass


class _Calls:
    """Is a `Progress` that counts its calls and raises an error at call number `until`."""

    def __init__(self, until: int | None = None) -> None:
        self.made, self.until = 0, until

    def __call__(self, done: int, total: int, note: str = "") -> None:
        if self.made == self.until:
            raise _BrokenOffError
        self.made += 1


def _run_in_a_process(request: Request, folder: Path) -> dict[str, Any]:
    """Run a trial in a new process, and return what it came to."""
    file = folder / "request.json"
    file.write_text(json.dumps(asdict(request)), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "posetune.testing.reuse", str(file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    # As text, in which NaN equals NaN.
    outcome: dict[str, Any] = json.loads(ended.stdout, parse_constant=str)
    return outcome


class TrainableConformance:
    """Holds the tests that every trainable must pass; a subclass names the trainable."""

    trainable: ClassVar[type[Trainable]]
    """The trainable to test."""
    quick: ClassVar[Mapping[str, Any]] = {}
    """Fields of its configuration, by dotted name, with which an epoch lasts a second or less."""

    @pytest.fixture(scope="class")
    @classmethod
    def config(cls) -> Any:
        """Return the configuration to test with: the defaults with the fields of `quick`."""
        return configure(cls.trainable.config_model, cls.quick, {})

    @pytest.fixture(scope="class")
    @classmethod
    def products(
        cls, config: Any, store: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> dict[str, Path]:
        """Build the stage products that the configuration needs; return their folders by name."""
        stages = cls.trainable.stages(config, store)
        digest = cls.trainable.describe_store(store).digest
        cache = StageCache(open_storage(tmp_path_factory.mktemp("storage")))
        wanted = [(stage, stage_key(stage, digest)) for stage in stages]
        return {name: found.folder for name, found in cache.obtain_all(wanted).items()}

    @pytest.fixture
    def context(self, store: Path, products: dict[str, Path], tmp_path: Path) -> TrialContext:
        """Return a context for a trial of two epochs."""
        return TrialContext(store=store, seed=3, work=tmp_path, products=products, max_epochs=2)

    def begin(self, config: Any, context: TrialContext) -> Trainable:
        """Return a started trial."""
        trial = self.trainable()
        trial.start(config, context)
        return trial

    def test_the_configuration_is_frozen_and_knows_its_fields(self, config: Any) -> None:
        """The configuration must refuse unknown fields, or a misspelt key would do nothing."""
        assert self.trainable.config_model.model_config.get("frozen")
        assert self.trainable.config_model.model_config.get("extra") == "forbid"

    def test_stage_keys_do_not_change_from_call_to_call(self, config: Any, store: Path) -> None:
        """Two calls of `stages` must give equal keys, or no product would be shared."""
        first, second = (
            [stage_key(stage, "digest") for stage in self.trainable.stages(config, store)]
            for _ in range(2)
        )
        assert first == second

    def test_an_epoch_reports_exactly_the_metrics_it_declares(
        self, config: Any, context: TrialContext
    ) -> None:
        """An epoch must report every declared metric, since each can be a sweep's objective."""
        metrics = self.begin(config, context).epoch()
        unavailable = self.trainable.describe_store(context.store).unavailable
        assert set(metrics) == set(self.trainable.metrics) - set(unavailable)
        assert all(isinstance(value, float) for value in metrics.values())

    def test_a_trial_continues_exactly_where_it_was_saved(
        self, config: Any, context: TrialContext, tmp_path: Path
    ) -> None:
        """A save and a load between two epochs must change no bit of metrics and model."""
        straight = self.begin(config, context)
        straight.epoch()
        (tmp_path / "middle").mkdir()
        straight.save(tmp_path / "middle")
        expected = dict(straight.epoch())
        (tmp_path / "straight").mkdir()
        straight.export(tmp_path / "straight")
        resumed = self.begin(config, context)
        resumed.load(tmp_path / "middle")
        found = dict(resumed.epoch())
        (tmp_path / "resumed").mkdir()
        resumed.export(tmp_path / "resumed")
        assert {k: v for k, v in found.items() if not math.isnan(v)} == {
            k: v for k, v in expected.items() if not math.isnan(v)
        }
        assert digest_folder(tmp_path / "resumed") == digest_folder(tmp_path / "straight")

    def test_an_epoch_that_is_broken_off_continues_exactly_where_it_was_saved(
        self, config: Any, context: TrialContext, tmp_path: Path
    ) -> None:
        """A save and a load within an epoch, as when a worker is taken away, must change no bit."""
        calls, rest = _Calls(), _Calls()
        straight = self.begin(config, replace(context, progress=calls))
        expected = dict(straight.epoch())
        (tmp_path / "straight").mkdir()
        straight.export(tmp_path / "straight")
        broken = self.begin(config, replace(context, progress=_Calls(until=calls.made // 2)))
        with pytest.raises(_BrokenOffError):
            broken.epoch()
        (tmp_path / "middle").mkdir()
        broken.save(tmp_path / "middle")
        resumed = self.begin(config, replace(context, progress=rest))
        resumed.load(tmp_path / "middle")
        found = dict(resumed.epoch())
        (tmp_path / "resumed").mkdir()
        resumed.export(tmp_path / "resumed")
        assert rest.made < calls.made
        assert found == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
        assert digest_folder(tmp_path / "resumed") == digest_folder(tmp_path / "straight")

    def test_trials_with_one_seed_are_equal(self, config: Any, context: TrialContext) -> None:
        """Two trials with one seed must report the same, so that a trial can be reproduced."""
        first, second = (dict(self.begin(config, context).epoch()) for _ in range(2))
        assert first == second

    @pytest.mark.slow
    def test_a_trial_in_a_reused_process_is_as_in_a_new_one(
        self, store: Path, products: dict[str, Path], tmp_path: Path
    ) -> None:
        """A trial after another one, which changed all that a process keeps, must change no bit.

        It holds for classes that declare `reusable`; others never share a process.
        """
        if not is_reusable(self.trainable):
            pytest.skip("the trainable does not declare that its process may be reused")
        alone, after = (
            _run_in_a_process(
                Request(
                    trainable=f"{self.trainable.__module__}:{self.trainable.__qualname__}",
                    fields=self.quick,
                    store=str(store),
                    products={name: str(folder) for name, folder in products.items()},
                    after_another=after_another,
                ),
                tmp_path,
            )
            for after_another in (False, True)
        )
        named = after.pop("left")
        assert alone.pop("left") == []
        assert after == alone
        assert named == [
            f"a thread {LEFT_THREAD} still runs",
            f"a file is still open: {LEFT_FILE}",
        ]

    def test_an_exported_model_predicts_centred_poses_of_unit_size(
        self, config: Any, context: TrialContext, tmp_path: Path
    ) -> None:
        """A registered model must predict as `Predictor` says: shape, type, root and limbs."""
        trial = self.begin(config, context)
        trial.epoch()
        (tmp_path / "model").mkdir()
        trial.export(tmp_path / "model")
        predictor = self.trainable.load_model(tmp_path / "model")
        side = predictor.image_size
        images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
        poses = predictor(images)
        assert poses.shape == (3, len(predictor.joint_names), 3)
        assert all(0 <= joint < poses.shape[1] for limb in predictor.limbs for joint in limb)
        assert poses.dtype == np.float32
        np.testing.assert_allclose(poses[:, 0], 0.0, atol=1e-6)
        assert np.isfinite(poses).all()

    def test_an_evaluation_has_what_the_gate_reads(
        self, config: Any, context: TrialContext, store: Path, tmp_path: Path
    ) -> None:
        """An evaluation must have the columns by which promotion compares models frame by frame."""
        trial = self.begin(config, context)
        trial.epoch()
        (tmp_path / "model").mkdir()
        trial.export(tmp_path / "model")
        found = self.trainable.evaluate(tmp_path / "model", store, "test")
        assert found.metrics
        assert all(name.startswith("test/") for name in found.metrics)
        if found.contest is None:
            return
        wanted = (found.contest.score, "motion", "activity", "group")
        columns = [found.records[name] for name in (*wanted, *found.contest.rivals.values())]
        assert {len(column) for column in columns} == {len(columns[0])}
        assert set(np.unique(found.records["group"])) == set(
            range(found.records["group"].max() + 1)
        )
        assert found.records["activity"].max() < len(found.contest.activities)

    def test_figures_are_pictures(self, config: Any, context: TrialContext, tmp_path: Path) -> None:
        """A trial must draw at least one picture, and each must be a PNG file."""
        trial = self.begin(config, context)
        trial.epoch()
        (tmp_path / "figures").mkdir()
        trial.draw(tmp_path / "figures")
        pictures = list((tmp_path / "figures").glob("*.png"))
        assert pictures
        assert all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)

    def test_the_forecast_is_positive(self, config: Any, context: TrialContext) -> None:
        """A forecast must be positive, since `posetune check` multiplies it by the epochs."""
        cost = self.trainable.forecast(config, context)
        assert cost.epoch_s >= 0
        assert cost.checkpoint_bytes > 0
        assert cost.model_bytes > 0
        assert all(seconds >= 0 for seconds in cost.stages_s.values())
