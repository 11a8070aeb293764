from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ValidationError

from posetune.spec.loading import configure, load_sweep
from selfpose import config as config_module
from selfpose.config import LossWeights, SelfPoseConfig
from selfpose.inference import build_model, export_model, load_model
from selfpose.method.skeleton import H36M_17


def fields(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from ((f"{name}.{inner}", f) for inner, f in fields(field.annotation))
        else:
            yield name, field


def test_every_field_says_what_it_is() -> None:
    assert [name for name, field in fields(SelfPoseConfig) if not field.description] == []


def test_every_number_has_bounds() -> None:
    unbounded = [
        name
        for name, field in fields(SelfPoseConfig)
        if field.annotation in (int, float) and len(field.metadata) < 2
    ]

    assert unbounded == []


@pytest.mark.parametrize("mode", ["complete", "lifting"])
def test_weights_that_are_all_zero_are_refused(mode: str) -> None:
    none = dict.fromkeys(LossWeights.model_fields, 0.0)
    with pytest.raises(ValidationError, match="nothing would be learned"):
        SelfPoseConfig(mode=mode, loss_weights={**none, "keypoint": float(mode == "lifting")})
    SelfPoseConfig(mode=mode, loss_weights={**none, "bone": 1.0})


def test_the_defaults_are_the_papers() -> None:
    config = SelfPoseConfig()

    assert config.model_dump()["loss_weights"] == {
        **dict.fromkeys(("adversarial", "keypoint", "flow", "reprojection_2d"), 1.0),
        **dict.fromkeys(("consistency_3d", "deformation"), 1.0),
        **dict.fromkeys(("bone", "silhouette", "read", "symmetry"), 0.0),
    }
    assert (config.image_size, config.batch_size, config.learning_rate) == (128, 96, 2e-4)
    assert (config.flow.depth, config.flow.pca_dimensions) == (8, 26)
    assert not config.needs_masks


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"image_size": 48}, "image_size"),
        ({"image_size": 128, "narrowest_px": 8}, "narrowest_px"),
        ({"keypoint": {"map_px": 5}}, "map_px"),
        ({"loss_weights": {"floww": 1}}, "floww"),
        ({"flow": {"depth": 0}}, "depth"),
        (
            {"loss_weights": {"read": 1}},
            "set pretrain_bodies above 0, or give loss_weights.read: 0",
        ),
        ({"pretrain_pairs": 9}, "set pretrain_bodies above 0, or give pretrain_pairs: 0"),
        (
            {"pretrain_bodies": 9, "pretrain_pairs": 9, "pretrain_keypoints": 9},
            "give the same network its first weights",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        SelfPoseConfig.model_validate(values)


def test_a_small_image_keeps_the_papers_narrowest_map() -> None:
    assert SelfPoseConfig(image_size=32).narrowest_px == 16


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged; nothing was said before."""
    config_module._say_once.cache_clear()
    caplog.set_level(logging.WARNING, logger="selfpose.config")
    return caplog


def test_a_sweep_file_with_a_field_that_is_gone_loads_with_one_line(
    tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(
        "objective: {metric: val/p_mpjpe_mm, mode: min}\n"
        "search: {flow.depth: {choice: [2, 4]}}\n"
        "fixed: {compile: true, batch_size: 8}\n"
        "pruner: {max_epochs: 1}\n"
        "budget: {trials: 2}\n"
    )
    spec, trainable, _ = load_sweep(file)

    assert configure(trainable.config_model, spec.fixed, {}) == SelfPoseConfig(batch_size=8)
    assert [record.getMessage() for record in said.records] == [
        "compile: True is ignored: compiled networks were never faster, and the field is gone"
    ]


def test_an_exported_model_with_a_field_that_is_gone_loads(
    tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    config = SelfPoseConfig(mode="lifting", image_size=32)
    torch.manual_seed(0)
    export_model(build_model(config, H36M_17, h=0.5), config, tmp_path)
    file = tmp_path / "model.json"
    facts = json.loads(file.read_text())
    facts["config"]["compile"] = False
    file.write_text(json.dumps(facts))

    assert load_model(tmp_path).config == config
    assert len(said.records) == 1
