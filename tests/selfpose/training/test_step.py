"""The fast training steps beside the readable ones: the same terms and gradients."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from posetune.api import TrialContext, silent
from posetune.testing.stages import build_stages
from selfpose.config import SelfPoseConfig
from selfpose.cuda import kernels
from selfpose.cuda.graph import PLAIN_STEPS
from selfpose.data.metadata import read_metadata, write_metadata
from selfpose.method.losses import LOSS_TERMS
from selfpose.trainable import SelfPose
from selfpose.training.acceleration import PLAIN
from selfpose.training.modes.terms import bone_share
from selfpose.training.reference import ReferenceTraining
from selfpose.training.trial import Trial

SMALL: dict[str, Any] = {
    "image_size": 32,
    "width": 4,
    "batch_size": 4,
    "steps_per_epoch": 1,
    "learning_rate": 1e-4,
    "lifting": {"width": 16},
    "discriminator": {"width": 4, "noise": 0.2, "noise_steps": 20},
    "flow": {"depth": 2, "hidden": 8, "steps": 5, "batch_size": 16},
}
OURS: dict[str, Any] = {
    "lift_prior": 4,
    "couple_skeleton": True,
    "detach_pose": True,
    "pretrain_keypoints": 2,
    "pretrain_silhouette": 2,
    "renderer": {"side_coding": True},
    "keypoint": {"map_px": 8, "jitter": 0.1},
    "loss_weights": {
        "adversarial": 0.5,
        "keypoint": 3,
        "silhouette": 2,
        "reprojection_2d": 0.7,
        "consistency_3d": 1.5,
        "deformation": 0.3,
        "flow": 0.2,
        "bone": 4,
        "symmetry": 2,
    },
}


READ: dict[str, Any] = {
    **OURS,
    "pretrain_keypoints": 0,
    "pretrain_silhouette": 0,
    "pretrain_bodies": 2,
    "pretrain_pairs": 2,
    "pretrain_batch": 4,
    "distort_images": True,
    "silhouette_hue": 1,
    "loss_weights": {**OURS["loss_weights"], "read": 1.3},
}
WARMED_UP: dict[str, Any] = {
    "mode": "lifting",
    "lifting": {"width": 16, "bone_warmup_steps": 3},
    "loss_weights": {"bone": 4},
}
WITHOUT_D: dict[str, Any] = {"loss_weights": {"adversarial": 0}}
KINDS: dict[str, dict[str, Any]] = {
    "paper": {},
    "options": OURS,
    "uncoupled options": {**OURS, "couple_skeleton": False},
    "read": READ,
    "without D": WITHOUT_D,
    "lifting": {"mode": "lifting", "lifting": {"width": 16, "elevation": "uniform"}},
    "bone warming up": WARMED_UP,
    "supervised": {"mode": "supervised"},
}
PRECISIONS = {
    # how far a term may be off, relative and absolute, and a gradient, relative and of the largest
    "double": {"terms": (1e-5, 1e-6), "gradients": (1e-3, 1e-5)},
    "single": {"terms": (1e-3, 1e-4), "gradients": (1e-2, 1e-2)},
    "bf16": {"terms": (0.1, 0.02), "gradients": None},
}
RECORDED = PLAIN_STEPS + 1
"""How many steps it takes until one is recorded and replayed on a GPU."""


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.slow
def test_a_step_equals_the_reference(
    options: dict[str, Any], tiny_store: Path, tmp_path: Path
) -> None:
    """To rounding, which Adam magnifies where a gradient is nearly zero: so in double precision."""
    config = SelfPoseConfig.model_validate({**SMALL, **options})
    products = build_stages(SelfPose.stages(config, tiny_store), tmp_path)
    trial = Trial(config, TrialContext(store=tiny_store, seed=0, work=tmp_path, products=products))
    reference = ReferenceTraining(trial)
    for step in range(3):
        fast = trial.train(silent)
        slow = {name: float(term.detach()) for name, term in reference.step().items()}
        assert {name: fast[name] for name in slow} == pytest.approx(slow, rel=1e-5, abs=1e-6)
        if step == 0:  # later, Adam has magnified the rounding of gradients that are nearly zero
            assert_same_gradients(trial.model, reference.model)
            if "discriminator" in slow:
                assert_same_gradients(trial.networks["judge"], reference.judge)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_on_a_gpu_equals_the_reference(
    precision: str,
    options: dict[str, Any],
    tiny_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Launched and recorded. Not run on a GPU yet: the bounds of float32 and bf16 are guesses."""
    if precision == "double":
        request.getfixturevalue("double_precision")
        monkeypatch.setattr(kernels, "run_on", lambda device: False)  # they compute in float32
    tolerance = PRECISIONS[precision]
    config = SelfPoseConfig.model_validate(
        {**SMALL, "width": 8, "bf16": precision == "bf16", **options}
    )
    products = build_stages(SelfPose.stages(config, tiny_store), tmp_path)
    context = TrialContext(tiny_store, 0, tmp_path, products=products, device="cuda")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        trial = Trial(config, context)
        reference = ReferenceTraining(trial)
        for step in range(RECORDED if precision == "double" else 1):
            fast = trial.train(silent)
            slow = {name: float(term.detach()) for name, term in reference.step().items()}
            rel, smallest = tolerance["terms"]
            assert {name: fast[name] for name in slow} == pytest.approx(slow, rel=rel, abs=smallest)
            if step == 0 and tolerance["gradients"]:
                assert_same_gradients(trial.model, reference.model, *tolerance["gradients"])


@pytest.mark.slow
def test_the_total_is_the_weighted_sum_of_what_is_reported(
    tiny_store: Path, tmp_path: Path
) -> None:
    weights = {term.name: 0.5 + place for place, term in enumerate(LOSS_TERMS)}
    read = {"pretrain_bodies": 1, "silhouette_hue": 1}
    config = SelfPoseConfig.model_validate({**SMALL, **read, "loss_weights": weights})
    products = build_stages(SelfPose.stages(config, tiny_store), tmp_path)
    trial = Trial(config, TrialContext(store=tiny_store, seed=0, work=tmp_path, products=products))
    reported = trial.train(silent)

    expected = sum(weight * reported[name] for name, weight in weights.items())
    assert reported["total"] == pytest.approx(expected, rel=1e-5)


def test_limbs_are_held_to_the_lengths_that_the_store_says(
    tiny_store: Path, tmp_path: Path
) -> None:
    of_others = tmp_path / "of others"
    shutil.copytree(tiny_store, of_others)
    metadata, *_ = read_metadata(of_others)
    ratios = (0.5, 1.5) * 8
    write_metadata(of_others, metadata.model_copy(update={"bone_ratios": ratios}))
    terms = {}
    for store in (tiny_store, of_others):
        config = SelfPoseConfig.model_validate(
            {**SMALL, "mode": "lifting", "loss_weights": {"bone": 1, "symmetry": 1}}
        )
        products = build_stages(SelfPose.stages(config, store), tmp_path / store.name)
        trial = Trial(config, TrialContext(store=store, seed=0, work=tmp_path, products=products))
        reference = ReferenceTraining(trial)
        batch = trial.mode.draw_batch(trial.order)
        terms[store] = trial.mode.step(batch, PLAIN.branches)
        torch.testing.assert_close(reference.step()["bone"], terms[store]["bone"])

    assert trial.bone_ratios == ratios
    assert terms[tiny_store]["bone"] != terms[of_others]["bone"]
    assert terms[tiny_store]["symmetry"] == terms[of_others]["symmetry"]


def test_each_skeleton_is_judged_once_in_a_step(tiny_store: Path, tmp_path: Path) -> None:
    """Phi's for D and for Phi; the drawn ones for D alone."""
    config = SelfPoseConfig.model_validate(SMALL)
    products = build_stages(SelfPose.stages(config, tiny_store), tmp_path)
    trial = Trial(config, TrialContext(store=tiny_store, seed=0, work=tmp_path, products=products))
    judged: list[int] = []
    whole_image = trial.networks["judge"].networks[0]  # of D's scales
    whole_image.register_forward_hook(lambda d, given, maps: judged.append(len(given[0])))
    trial.train(silent)

    assert judged == [config.batch_size] * 2


def assert_same_gradients(
    network: nn.Module, twin: nn.Module, rtol: float = 1e-3, of_largest: float = 1e-5
) -> None:
    pairs = list(zip(network.parameters(), twin.parameters(), strict=True))
    largest = max(float(slow.grad.abs().max()) for _, slow in pairs if slow.grad is not None)
    assert largest > 0
    for fast, slow in pairs:
        torch.testing.assert_close(fast.grad, slow.grad, rtol=rtol, atol=of_largest * largest)


def test_the_weight_of_bone_rises_in_the_second_half_of_its_warm_up() -> None:
    config = SelfPoseConfig.model_validate({"lifting": {"bone_warmup_steps": 8}})

    assert [bone_share(config, step) for step in (0, 4, 5, 6, 8, 9)] == [0, 0, 0.25, 0.5, 1, 1]
    assert bone_share(SelfPoseConfig(), 0) == 1
