"""The whole trainable on a tiny store: stages, epochs, continuation, export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from posetune.api import BadInputError, TrialContext, TrialFailedError, silent
from posetune.stages.cache import StageCache, stage_key
from posetune.storage import open_storage
from posetune.testing.stages import build_stages
from selfpose.config import SelfPoseConfig
from selfpose.data.store import Split, open_store
from selfpose.trainable import SelfPose
from selfpose.training.prior import prior_poses

SMALL: dict[str, Any] = {
    "image_size": 32,
    "width": 4,
    "batch_size": 4,
    "steps_per_epoch": 3,
    "val_frames": 16,
    "lifting": {"width": 16},
    "discriminator": {"width": 4, "noise": 0.2, "noise_steps": 20},
    "flow": {"depth": 2, "hidden": 8, "steps": 5, "batch_size": 16},
}
COMPLETE = SelfPoseConfig.model_validate(
    {
        **SMALL,
        "pretrain_keypoints": 2,
        "pretrain_silhouette": 2,
        "lift_prior": 4,
        "mirror_prior": True,
        "decay_steps": 10,
        "couple_skeleton": True,
        "detach_pose": True,
        "renderer": {"side_coding": True},
        "keypoint": {"map_px": 8, "jitter": 0.1},
        "loss_weights": {"silhouette": 1, "bone": 1},
    }
)
READ = SelfPoseConfig.model_validate(
    {
        **SMALL,
        "pretrain_bodies": 2,
        "pretrain_pairs": 2,
        "pretrain_batch": 4,
        "distort_images": True,
        "silhouette_hue": 1,
        "renderer": {"side_coding": True},
        "loss_weights": {"silhouette": 1, "read": 1},
    }
)
PAPER = SelfPoseConfig.model_validate(SMALL)
LIFTING = SelfPoseConfig.model_validate(
    {**SMALL, "mode": "lifting", "mirror_prior": True, "decay_steps": 10}
)
SUPERVISED = SelfPoseConfig.model_validate(
    {**SMALL, "mode": "supervised", "pretrain_keypoints": 2, "pretrain_silhouette": 2}
)

Start = Callable[[SelfPoseConfig], SelfPose]


@pytest.fixture
def start(tiny_store: Path, tmp_path: Path) -> Start:
    """Build a configuration's stages and start a trial on them."""

    def started(config: SelfPoseConfig) -> SelfPose:
        products = build_stages(SelfPose.stages(config, tiny_store), tmp_path / "products")
        trial = SelfPose()
        trial.start(
            config, TrialContext(store=tiny_store, seed=3, work=tmp_path, products=products)
        )
        return trial

    return started


def saved_tensors(trial: SelfPose, folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir()
    trial.save(folder)
    return load_file(folder / "state.safetensors")


def assert_bitwise_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (COMPLETE, ["baselines", "flow", "keypoints", "silhouette"]),
        (READ, ["baselines", "flow", "bodies"]),
        (PAPER, ["baselines", "flow"]),
        (LIFTING, ["baselines", "flow"]),
        (SUPERVISED, ["baselines", "keypoints", "silhouette"]),
        (LIFTING.model_copy(update={"loss_weights": {"flow": 0}}), ["baselines"]),
    ],
)
def test_a_configuration_has_the_stages_it_needs(
    config: SelfPoseConfig, expected: list[str], tiny_store: Path
) -> None:
    config = SelfPoseConfig.model_validate(config.model_dump())

    assert [stage.name for stage in SelfPose.stages(config, tiny_store)] == expected


def test_loss_weights_change_no_stage_and_the_flows_depth_only_its_own(tiny_store: Path) -> None:
    def read(**changes: Any) -> dict[str, Any]:
        config = SelfPoseConfig.model_validate(COMPLETE.model_dump() | changes)
        return {stage.name: stage.reads for stage in SelfPose.stages(config, tiny_store)}

    deeper = read(flow={**SMALL["flow"], "depth": 4})

    assert read(loss_weights={"keypoint": 3, "silhouette": 2}) == read()
    assert [name for name in deeper if deeper[name] != read()[name]] == ["flow"]


def test_bodies_are_read_though_no_hue_tells_their_sides(tiny_store: Path) -> None:
    config = READ.model_copy(update={"silhouette_hue": 0})

    assert "bodies" in {stage.name for stage in SelfPose.stages(config, tiny_store)}


def test_more_components_than_joints_allow_are_refused(tiny_store: Path) -> None:
    config = SelfPoseConfig.model_validate({**SMALL, "flow": {"pca_dimensions": 40}})

    with pytest.raises(BadInputError, match="give 32 or fewer"):
        SelfPose.stages(config, tiny_store)


@pytest.mark.parametrize(
    "config",
    [COMPLETE, PAPER, LIFTING, SUPERVISED],
    ids=["options", "paper", "lifting", "supervised"],
)
def test_an_epoch_reports_every_metric_as_a_finite_number(
    config: SelfPoseConfig, start: Start
) -> None:
    reported = start(config).epoch()

    assert reported.keys() == SelfPose.metrics.keys()
    assert [name for name, value in reported.items() if not np.isfinite(value)] == []


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(COMPLETE, marks=pytest.mark.slow),
        LIFTING,
        pytest.param(SUPERVISED, marks=pytest.mark.slow),
    ],
    ids=["complete", "lifting", "supervised"],
)
def test_a_continued_training_gives_bitwise_the_same_weights(
    config: SelfPoseConfig, start: Start, tmp_path: Path
) -> None:
    straight = start(config)
    straight.epoch()
    before = saved_tensors(straight, tmp_path / "first")
    reported = straight.epoch()

    continued = start(config)
    continued.epoch()  # must leave no trace
    continued.load(tmp_path / "first")

    assert_bitwise_equal(saved_tensors(continued, tmp_path / "loaded"), before)
    assert continued.epoch() == reported
    assert_bitwise_equal(
        saved_tensors(continued, tmp_path / "continued"),
        saved_tensors(straight, tmp_path / "straight"),
    )


def test_the_sums_of_a_checkpoint_from_before_they_had_names_find_their_places(
    start: Start, tmp_path: Path
) -> None:
    trial = start(LIFTING)
    saved_tensors(trial, tmp_path / "state")
    file = tmp_path / "state" / "state.json"
    names = [
        *("adversarial", "keypoint", "flow", "reprojection_2d", "consistency_3d", "deformation"),
        *("bone", "silhouette", "total", "discriminator", "elevation_spread"),
    ]
    counters = json.loads(file.read_text())
    file.write_text(json.dumps(counters | {"sums": [float(i) for i in range(len(names))]}))
    trial.load(tmp_path / "state")
    saved_tensors(trial, tmp_path / "again")

    found = json.loads((tmp_path / "again" / "state.json").read_text())["sums"]
    later = dict.fromkeys(set(found) - set(names), 0.0)  # terms that there were not yet
    assert found == {name: float(i) for i, name in enumerate(names)} | later


@pytest.mark.slow
def test_stages_from_the_cache_give_bitwise_the_weights_of_stages_built_for_the_trial(
    start: Start, tiny_store: Path, tmp_path: Path
) -> None:
    alone = start(COMPLETE)
    alone.epoch()
    weights = COMPLETE.loss_weights.model_copy(update={"flow": 7.0})
    other = COMPLETE.model_copy(update={"loss_weights": weights, "learning_rate": 1e-5})
    digest = SelfPose.describe_store(tiny_store).digest
    cache = StageCache(open_storage(tmp_path / "storage"))
    products = [
        cache.obtain_all([(s, stage_key(s, digest)) for s in SelfPose.stages(config, tiny_store)])
        for config in (other, COMPLETE)  # another trial has built them, this one finds them
    ][1]
    assert not any(product.trained for product in products.values())
    shared = SelfPose()
    folders = {name: product.folder for name, product in products.items()}
    shared.start(COMPLETE, TrialContext(tiny_store, 3, tmp_path, folders))
    shared.epoch()
    assert_bitwise_equal(
        saved_tensors(shared, tmp_path / "shared"), saved_tensors(alone, tmp_path / "alone")
    )


def test_the_checkpoint_of_another_configuration_is_refused(start: Start, tmp_path: Path) -> None:
    saved_tensors(start(LIFTING), tmp_path / "state")

    with pytest.raises(BadInputError, match="not a checkpoint of this configuration"):
        start(PAPER).load(tmp_path / "state")


@pytest.fixture
def poison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make NaN of all joints of the training images, however they are read, and forget stages."""

    def poisoned() -> None:
        read = Split._column

        def column(split: Split, name: str) -> Any:
            values = read(split, name)
            is_truth = split.name == "train" and name.startswith("joints")
            return np.full_like(values, np.nan) if is_truth else values

        monkeypatch.setattr(Split, "_column", column)
        for stage in ("flow", "keypoints", "silhouette", "bodies"):  # baselines are no training
            folder = tmp_path / "products" / stage
            if folder.exists():
                folder.rename(tmp_path / stage)

    return poisoned


@pytest.mark.parametrize(
    "config",
    [COMPLETE, pytest.param(READ, marks=pytest.mark.slow), PAPER, LIFTING],
    ids=["options", "read", "paper", "lifting"],
)
def test_training_never_sees_the_joints_of_the_training_images(
    config: SelfPoseConfig, start: Start, tmp_path: Path, poison: Callable[[], None]
) -> None:
    clean = start(config)
    clean.epoch()
    poison()
    trial = start(config)
    trial.epoch()

    assert_bitwise_equal(
        saved_tensors(trial, tmp_path / "poisoned"), saved_tensors(clean, tmp_path / "clean")
    )


def test_the_poison_kills_a_training_that_does_see_them(
    start: Start, poison: Callable[[], None]
) -> None:
    start(SUPERVISED)
    poison()

    with pytest.raises(TrialFailedError, match="total is nan"):
        start(SUPERVISED).epoch()


@pytest.fixture(scope="module")
def hand_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("stores") / "hand"
    importer = SelfPose.importers()["procedural_hand"]
    options = importer.options(image_size=32, limit=4, level="plain", workers=1)
    importer.run(None, store, options, silent)
    return store


@pytest.mark.parametrize("field", ["mirror_prior", "lifting"])
def test_a_hand_has_no_mirror_image(field: str, hand_store: Path) -> None:
    values = {"mirror_prior": True, "lifting": {"width": 16, "mirror_average": True}}
    config = SelfPoseConfig.model_validate({**SMALL, "mode": "lifting", field: values[field]})

    with pytest.raises(BadInputError, match="hand21 has no left and right joints"):
        SelfPose.stages(config, hand_store)


def test_the_mirrored_prior_holds_every_pose_and_its_mirror_image(tiny_store: Path) -> None:
    store = open_store(tiny_store)
    once_nj2, twice_nj2 = (prior_poses(store, mirrored=m) for m in (False, True))
    count = len(once_nj2)
    left, right = (store.layout.joints.index(f"{side}_wrist") for side in ("left", "right"))

    assert torch.equal(twice_nj2[:count], once_nj2)
    assert torch.equal(twice_nj2[count:, left, 0], -once_nj2[:, right, 0])
    assert torch.equal(twice_nj2[count:, left, 1], once_nj2[:, right, 1])


def test_rates_fall_by_half_a_cosine_and_stay_at_zero(start: Start) -> None:
    trial = start(LIFTING)._trial
    rates = []
    for step in (0, 5, 10, 1000):
        trial.steps = step
        trial.rates.set(trial.steps)
        rates.append([group["lr"] for group in trial.optimisers["model"].param_groups])

    full = LIFTING.learning_rate
    assert np.allclose(rates, [[full], [full / 2], [0], [0]])


def test_trials_with_different_seeds_differ(start: Start, tmp_path: Path) -> None:
    trial = start(LIFTING)
    first = saved_tensors(trial, tmp_path / "first")
    trial.start(LIFTING, TrialContext(**{**vars(trial._trial.context), "seed": 4}))

    assert not torch.equal(
        saved_tensors(trial, tmp_path / "second")["networks/model/lifter.shared.0.weight"],
        first["networks/model/lifter.shared.0.weight"],
    )


def test_progress_is_told_from_none_to_all_steps(start: Start) -> None:
    told: list[tuple[int, int]] = []
    start(LIFTING)._trial.train(lambda done, total, note="": told.append((done, total)))

    assert told[0] == (0, 3)
    assert told[-1] == (3, 3)


def test_baselines_are_read_from_their_stage_only(start: Start) -> None:
    products = start(LIFTING)._trial.context.products

    assert SelfPose.baselines(products, "val/p_mpjpe_mm")["mean_shape"] > 0
    assert SelfPose.baselines(products, "val/error_2d_px")["mean_2d_pose"] > 0
    assert SelfPose.baselines(products, "val/auc") == {}
    assert SelfPose.baselines({}, "val/p_mpjpe_mm") == {}


@pytest.mark.slow
def test_a_trial_draws_its_validation_frames(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    folder.mkdir()
    start(COMPLETE).draw(folder)

    assert (folder / "validation.png").stat().st_size > 1000
