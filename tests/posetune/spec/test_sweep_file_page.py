"""The page on sweep files knows every key, and what it shows is taken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from posetune.spec.parameters import Choice, FloatRange, IntRange
from posetune.spec.sweep import (
    Budget,
    ClusterRules,
    Keep,
    Objective,
    Prior,
    Pruner,
    Resources,
    Sampler,
    SweepSpec,
)

SECTIONS: list[type[BaseModel]] = [
    SweepSpec,
    Objective,
    FloatRange,
    IntRange,
    Choice,
    Prior,
    Sampler,
    Pruner,
    Resources,
    ClusterRules,
    Budget,
    Keep,
]
LEAST = {
    "trainable": "selfpose.trainable:SelfPose",
    "objective": {"metric": "val/p_mpjpe_mm", "mode": "min"},
    "pruner": {"max_epochs": 27},
    "budget": {"trials": 64},
}
"""What a sweep file cannot do without."""


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "sweep-file.md").read_text(encoding="utf-8")


def named_as_keys(page: str) -> set[str]:
    """The keys of the page's examples, and the words that it writes as code."""
    examples = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    keys = {key for example in examples for key in re.findall(r"(\w+):", example)}
    prose = re.sub(r"^```.*?^```", "", page, flags=re.M | re.S)
    return keys | {
        word for code in re.findall(r"`([^`]+)`", prose) for word in re.findall(r"\w+", code)
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_it_names_every_key(page: str, section: type[BaseModel]) -> None:
    names = {field.alias or name for name, field in section.model_fields.items()}
    assert names - named_as_keys(page) == set()


def test_its_examples_are_sweep_files(page: str) -> None:
    examples = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    assert len(examples) == 2
    common, seldom = (yaml.safe_load(example) for example in examples)
    assert SweepSpec.model_validate({**LEAST, **common}).pruner.max_epochs == 27
    spec = SweepSpec.model_validate({**LEAST, **seldom})
    assert spec.resources.processes == 2
    assert spec.prior["flow.depth"].width == 0.1
    assert not spec.search["lifting.width"].is_ordered  # type: ignore[union-attr]
