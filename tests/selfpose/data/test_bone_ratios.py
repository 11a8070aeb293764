"""How long limbs are follows from 2D poses alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from posetune.api import BadInputError
from selfpose.data.bone_ratios import LEAST_POSES, measure_bone_ratios, read_bone_ratios
from selfpose.data.store import Store
from selfpose.method.skeleton import H36M_17, HAND_21, KEYPOINTGAN_17, Layout

MakeStore = Callable[..., Store]


def people(layout: Layout, ratios: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Draw 2D poses (N, J, 2) of people of every size whose limbs point anywhere."""
    rng = np.random.default_rng(0)
    step_ne3 = rng.normal(size=(count, len(ratios), 3))
    step_ne3 *= ratios[:, None] / np.linalg.norm(step_ne3, axis=-1, keepdims=True)
    joints = np.zeros((count, len(layout.joints), 3))
    for _ in layout.joints:  # parents may come later in the order of joints
        for i, (child, parent) in enumerate(layout.limbs):
            joints[:, child] = joints[:, parent] + step_ne3[:, i]
    return joints[..., :2] * rng.uniform(0.5, 2.0, (count, 1, 1))


@pytest.mark.parametrize("layout", [H36M_17, KEYPOINTGAN_17, HAND_21], ids=lambda one: one.name)
def test_lengths_are_found_whatever_the_sizes_and_the_usual_lengths(layout: Layout) -> None:
    rng = np.random.default_rng(1)
    ratios = np.asarray(layout.bone_ratios) * rng.uniform(0.7, 1.4, len(layout.limbs))
    for a, b in layout.limb_pairs:
        ratios[a] = ratios[b]
    ratios /= ratios.mean()

    found = measure_bone_ratios(people(layout, ratios, 4000), layout)
    np.testing.assert_allclose(found, ratios, rtol=0.06)
    assert np.mean(found) == pytest.approx(1.0, abs=1e-4)
    for a, b in layout.limb_pairs:
        assert found[a] == found[b]


def test_the_unit_does_not_matter_and_neither_does_a_joint_on_its_parent() -> None:
    poses = people(H36M_17, np.asarray(H36M_17.bone_ratios), 300)
    poses[0] = 0

    assert measure_bone_ratios(poses, H36M_17) == measure_bone_ratios(1000 * poses, H36M_17)
    assert np.isfinite(measure_bone_ratios(poses, H36M_17)).all()


@pytest.mark.slow
def test_a_store_has_them_from_its_prior_near_the_truth_that_nobody_read(
    tmp_path: Path, make_store: MakeStore
) -> None:
    store = make_store(tmp_path / "store", limit=LEAST_POSES, views=4)
    limbs = np.asarray(store.layout.limbs)
    joints = store.split("train").joints_3d
    lengths = np.linalg.norm(joints[:, limbs[:, 0]] - joints[:, limbs[:, 1]], axis=-1)
    truth = np.median(lengths / lengths.mean(axis=1, keepdims=True), axis=0)

    np.testing.assert_allclose(store.bone_ratios, truth, rtol=0.08)
    prior = store.split("prior").joints_2d
    assert store.bone_ratios == measure_bone_ratios(prior, store.layout)
    assert store.metadata.facts["bone ratios"].endswith("measured on the 2D poses of the prior")
    few = make_store(tmp_path / "few", limit=6)
    assert few.bone_ratios == few.layout.bone_ratios
    assert few.metadata.facts["bone ratios"].startswith("the layout's own")


@pytest.mark.filterwarnings("error")
def test_joints_that_always_lie_on_each_other_tell_no_lengths() -> None:
    poses = people(H36M_17, np.asarray(H36M_17.bone_ratios), 300)
    poses[:, 10] = poses[:, 9]

    assert measure_bone_ratios(poses, H36M_17) == ()
    assert measure_bone_ratios(0 * poses, H36M_17) == ()


def test_lengths_can_be_given_and_have_a_mean_of_1() -> None:
    given = read_bone_ratios(",".join(["3"] * 8 + ["1"] * 8), H36M_17)

    assert given == (1.5,) * 8 + (0.5,) * 8
    assert read_bone_ratios("usual", H36M_17) == H36M_17.bone_ratios
    with pytest.raises(BadInputError, match="of the limbs that end at right_hip, right_knee"):
        read_bone_ratios("1,2", H36M_17)
