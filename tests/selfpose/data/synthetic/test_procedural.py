from __future__ import annotations

import numpy as np
import pytest

from selfpose.data.seeding import generator
from selfpose.data.synthetic.bodies.kinematics import (
    LAYOUT,
    LIMITS_DEG,
    bone_lengths,
    limit_angles,
    pose_joints,
)
from selfpose.data.synthetic.bodies.procedural import (
    ACTIVITIES,
    ProceduralOptions,
    make_corpus,
    make_motion,
)
from selfpose.data.synthetic.motions import choose_frames, half_of

SPLITS = ("train", "prior", "val", "test")
CHILDREN, PARENTS = np.asarray(LAYOUT.limbs).T


def _bend_deg(joints: np.ndarray, *names: str) -> np.ndarray:
    """Return the angle between two limbs that follow each other, 0 when straight."""
    a, b, c = (joints[:, LAYOUT.joints.index(name)] for name in names)
    first, second = b - a, c - b
    cosine = (first * second).sum(-1) / np.linalg.norm(first, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine / np.linalg.norm(second, axis=-1), -1, 1)))


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_bones_keep_their_length_in_motion(activity: str) -> None:
    joints = make_motion(activity, "anna", seed=0, rng=generator("a", activity)).astype(float)
    lengths = np.linalg.norm(joints[:, CHILDREN] - joints[:, PARENTS], axis=-1)

    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), rtol=1e-4)
    mirrored = [LAYOUT.mirror[child] for child in CHILDREN]
    np.testing.assert_allclose(lengths[0], lengths[0][np.asarray(mirrored) - 1], rtol=1e-4)


@pytest.mark.parametrize("activity", ACTIVITIES)
@pytest.mark.parametrize("number", range(4))
def test_elbows_and_knees_stay_within_their_limits(activity: str, number: int) -> None:
    joints = make_motion(activity, "anna", seed=0, rng=generator("b", number)).astype(float)

    for side in ("left", "right"):
        elbow = _bend_deg(joints, f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist")
        knee = _bend_deg(joints, f"{side}_hip", f"{side}_knee", f"{side}_ankle")
        assert elbow.min() >= 1.9 and elbow.max() <= 145.1  # noqa: PT018
        assert knee.min() >= 0.9 and knee.max() <= 140.1  # noqa: PT018


@pytest.mark.slow
def test_the_activities_are_those_of_the_result_tables() -> None:
    assert list(ACTIVITIES) == [
        *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing"),
        *("Purchases", "Sitting", "SittingDown", "Smoking", "Waiting"),
        *("Walking", "WalkDog", "WalkTogether"),
    ]
    assert list(make_corpus(ProceduralOptions(limit=15)).activities) == list(ACTIVITIES)


def _joints(activity: str, number: int) -> dict[str, np.ndarray]:
    joints = make_motion(activity, "anna", seed=0, rng=generator("d", activity, number))
    return dict(zip(LAYOUT.joints, joints.astype(float).swapaxes(0, 1), strict=True))


@pytest.mark.parametrize(
    ("activity", "least", "reach_mm"),
    [("Phoning", 80, 220), ("Eating", 5, 260), ("Smoking", 3, 260), ("Photo", 80, 350)],
)
@pytest.mark.parametrize("number", range(4))
def test_a_hand_is_at_the_head_where_the_activity_says_so(
    activity: str, least: int, reach_mm: float, number: int
) -> None:
    at = _joints(activity, number)
    near = [
        np.linalg.norm(at[f"{side}_wrist"] - at["head"], axis=-1) < reach_mm
        for side in ("left", "right")
    ]

    held = np.logical_and(*near) if activity == "Photo" else np.logical_or(*near)
    assert held.sum() >= least


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("activity", ["Sitting", "Eating", "Discussion", "Walking"])
def test_who_sits_is_low_and_who_walks_gets_on(activity: str, number: int) -> None:
    at = _joints(activity, number)
    leg = sum(
        float(np.linalg.norm((at[f"left_{a}"] - at[f"left_{b}"])[0]))
        for a, b in (("hip", "knee"), ("knee", "ankle"))
    )
    height = np.median(at["pelvis"][:, 2]) / leg
    path = np.linalg.norm(np.diff(at["pelvis"][:, :2], axis=0), axis=-1).sum()

    assert (height < 0.85) == (activity in ("Sitting", "Eating"))
    assert (path > 4000) == (activity == "Walking")


def test_knees_bend_to_the_back_and_elbows_to_the_front() -> None:
    lengths = bone_lengths(1600, np.random.default_rng(0))
    angles = {name: np.radians([60.0]) for name in ("left_knee", "left_elbow")}
    joints = pose_joints(lengths, {"heading": np.zeros(1), **angles})[0]
    at = dict(zip(LAYOUT.joints, joints, strict=True))

    assert at["left_ankle"][0] < at["left_knee"][0] - 100  # the body looks along +x
    assert at["left_wrist"][0] > at["left_elbow"][0] + 100
    assert at["left_hip"][1] > at["right_hip"][1]


def test_angles_are_held_within_the_limits() -> None:
    wild = {name: np.radians([-400.0, 400.0]) for name in LIMITS_DEG}

    for name, track in limit_angles(wild).items():
        np.testing.assert_allclose(np.degrees(track), LIMITS_DEG[name])


def test_turning_the_heading_turns_the_whole_body() -> None:
    lengths = bone_lengths(1600, np.random.default_rng(0))
    heading = np.asarray([0.0, 1.2])
    joints = pose_joints(lengths, {"heading": heading, "lean": np.full(2, 0.3)})
    cos, sin = np.cos(1.2), np.sin(1.2)
    turn = np.asarray([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])

    np.testing.assert_allclose(joints[1], joints[0] @ turn.T, atol=1e-9)


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_motion_is_continuous_and_stands_on_the_floor(activity: str) -> None:
    joints = make_motion(activity, "anna", seed=0, rng=generator("c", activity))
    step = np.linalg.norm(np.diff(joints, axis=0), axis=-1)

    assert step.max() < 700  # mm in a tenth of a second: the foot of a fast walker
    np.testing.assert_allclose(joints[:, [3, 6], 2].min(axis=1), 90, atol=0.01)


@pytest.mark.slow
def test_a_limit_of_1500_leaves_every_activity_enough_for_a_macro_average() -> None:
    corpus = make_corpus(ProceduralOptions(limit=1500))
    for split in SPLITS:
        motions = [motion for motion in corpus.motions if motion.split == split]
        chosen = choose_frames([len(motion.frame_f) for motion in motions], 1500)
        activity = np.concatenate(
            [motion.activity_f[frames] for motion, frames in zip(motions, chosen, strict=True)]
        )
        assert np.bincount(activity).min() >= 100
        of_motion = [int(motion.activity_f[0]) for motion in motions]
        assert np.bincount(of_motion).min() >= 3


@pytest.mark.slow
def test_training_motions_fall_into_their_half_by_their_name() -> None:
    corpus = make_corpus(ProceduralOptions(limit=50))

    for motion in corpus.motions:
        if motion.split in ("train", "prior"):
            assert half_of(motion.name) == motion.split
    assert len({motion.name for motion in corpus.motions}) == len(corpus.motions)


@pytest.mark.slow
def test_people_head_in_all_directions() -> None:
    corpus = make_corpus(ProceduralOptions(limit=2000))
    joints = np.stack([motion.joints_fj3[0] for motion in corpus.motions]).astype(float)
    left = joints[:, 4] - joints[:, 1]
    heading = np.degrees(np.arctan2(left[:, 1], left[:, 0]))

    assert np.histogram(heading, 4, (-180, 180))[0].min() > len(heading) / 8
