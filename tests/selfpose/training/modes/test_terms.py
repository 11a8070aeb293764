"""The terms of one step, each computed when all that it takes is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selfpose.config import SelfPoseConfig
from selfpose.method.losses import LossTerm
from selfpose.training.modes.terms import Losses, computed_terms


def distance(poses_bj3: Tensor, turned_bj3: Tensor) -> Tensor:
    return (poses_bj3 - turned_bj3).abs().mean()


def realness(judged: list[Tensor]) -> Tensor:
    return judged[0].mean()


DISTANCE, REALNESS = LossTerm("distance", distance, ""), LossTerm("realness", realness, "")
POSES = torch.ones(2, 17, 3)


def test_a_term_is_computed_once_and_as_soon_as_all_that_it_takes_is_known() -> None:
    losses = Losses([DISTANCE])
    losses.know(poses_bj3=POSES)
    assert losses.values == {}
    assert losses.wants("turned_bj3")

    losses.know(turned_bj3=3 * POSES)
    assert losses.values == {"distance": 2.0}
    losses.know(turned_bj3=9 * POSES)
    assert losses.finish() == {"distance": 2.0}
    assert not losses.wants("turned_bj3")


def test_what_is_known_here_is_not_known_elsewhere() -> None:
    losses = Losses([REALNESS, DISTANCE])
    losses.know_here(judged=[POSES], poses_bj3=POSES)
    assert losses.values == {"realness": 1.0}

    losses.know(turned_bj3=POSES)
    with pytest.raises(KeyError, match=r"poses_bj3.*which term distance takes"):
        losses.finish()


def test_a_quantity_that_is_spelt_wrong_is_wanted_by_nobody_but_refused() -> None:
    with pytest.raises(KeyError, match="poses_bj4"):
        Losses([]).wants("poses_bj4")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("supervised", []),
        ("lifting", ["reprojection_2d", "consistency_3d", "deformation"]),
        ("complete", ["keypoint", "reprojection_2d", "consistency_3d", "deformation", "bone"]),
    ],
)
def test_terms_without_weight_are_computed_only_where_they_cost_nothing(
    mode: str, expected: list[str]
) -> None:
    weights = dict.fromkeys(("adversarial", "keypoint", "flow"), 0.0)
    weights["bone"] = float(mode == "complete")
    config = SelfPoseConfig.model_validate({"mode": mode, "loss_weights": weights})

    assert [term.name for term in computed_terms(config)] == expected
