from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from selfpose.config import LossWeights, SelfPoseConfig


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
        **dict.fromkeys(("bone", "silhouette"), 0.0),
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
    ],
)
def test_what_cannot_be_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        SelfPoseConfig.model_validate(values)


def test_a_small_image_keeps_the_papers_narrowest_map() -> None:
    assert SelfPoseConfig(image_size=32).narrowest_px == 16
