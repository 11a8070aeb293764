from __future__ import annotations

import numpy as np
import pytest

from posetune.api import silent
from selfpose.data.seeding import generator
from selfpose.data.store import Store, open_store
from selfpose.data.synthetic.bodies.kinematics import limit_angles
from selfpose.data.synthetic.bodies.procedural import ProceduralOptions
from selfpose.data.synthetic.cameras import CAMERAS, FOCAL_PX, FRAME_PX, draw_crop
from selfpose.data.synthetic.hands.anatomy import build_forearm, build_hand, clothes_hand
from selfpose.data.synthetic.hands.kinematics import HAND_LIMITS_DEG, hand_bone_lengths, pose_hand
from selfpose.data.synthetic.hands.procedural_hand import (
    ENLARGED,
    GESTURES,
    IMPORTER,
    make_hand_corpus,
    make_hand_motion,
)
from selfpose.data.synthetic.rendering import Scene, draw_frame
from selfpose.method.skeleton import FINGERS, HAND_21

CHILDREN, PARENTS = np.asarray(HAND_21.limbs).T
SLACK_DEG = 0.1


@pytest.fixture(scope="module")
def hand_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    out = tmp_path_factory.mktemp("hands") / "store"
    options = ProceduralOptions(image_size=64, level="plain", limit=40, workers=1)
    IMPORTER.run(None, out, options, silent)
    return open_store(out)


def _hand(**degrees: float) -> dict[str, np.ndarray]:
    """Return the joints by name; the fingers point up, the palm faces +x."""
    lengths = hand_bone_lengths(np.random.default_rng(0))
    angles = {name: np.radians([value]) for name, value in degrees.items()}
    joints = pose_hand(lengths, {"heading": np.zeros(1), **angles})[0]
    return dict(zip(HAND_21.joints, joints, strict=True))


def _bend_deg(joints: np.ndarray, first: int) -> np.ndarray:
    """Return the angle at joint `first + 1` between the bones beside it, 0 when straight."""
    before, after = (np.diff(joints, axis=1)[:, first + i] for i in (0, 1))
    cosine = (before * after).sum(-1)
    cosine /= np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@pytest.mark.parametrize("gesture", GESTURES)
def test_bones_keep_their_length_and_the_palm_its_shape(gesture: str) -> None:
    joints = make_hand_motion(gesture, "anna", seed=0, rng=generator("a", gesture))
    lengths = np.linalg.norm(joints[:, CHILDREN] - joints[:, PARENTS], axis=-1)
    knuckles = joints[:, [5, 9, 13, 17]]
    palm = np.linalg.norm(knuckles[:, :, None] - knuckles[:, None], axis=-1)

    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), rtol=1e-6)
    np.testing.assert_allclose(palm, np.broadcast_to(palm[0], palm.shape), atol=1e-6)


@pytest.mark.parametrize("gesture", GESTURES)
@pytest.mark.parametrize("number", range(3))
def test_every_finger_bends_as_far_as_fingers_do_and_the_last_joint_follows(
    gesture: str, number: int
) -> None:
    joints = make_hand_motion(gesture, "anna", seed=0, rng=generator("b", gesture, number))

    for place in range(1, 5):
        finger = joints[:, 4 * place + 1 : 4 * place + 5]
        knuckle, last = _bend_deg(finger, 0), _bend_deg(finger, 1)
        assert knuckle.max() <= 100 + SLACK_DEG
        np.testing.assert_allclose(last, knuckle * 2 / 3, atol=SLACK_DEG)
    thumb = joints[:, 1:5]
    assert _bend_deg(thumb, 0).max() <= 60 + SLACK_DEG
    assert _bend_deg(thumb, 1).max() <= 80 + SLACK_DEG


def test_fingers_bend_to_the_palm_and_the_thumb_stands_at_the_side_of_a_right_hand() -> None:
    straight = _hand()
    for finger in FINGERS[1:]:
        bent = _hand(**{f"{finger}_flexion": 60.0, f"{finger}_knuckle": 60.0})
        assert bent[f"{finger}_4"][0] > straight[f"{finger}_4"][0] + 20  # the palm faces +x
        assert straight[f"{finger}_4"][2] > straight[f"{finger}_1"][2] > straight["wrist"][2]
    # Who looks at the palm of a right hand has its thumb at the right: here that is +y.
    assert straight["thumb_4"][1] > straight["index_4"][1] + 20
    across = [straight[f"{finger}_1"][1] for finger in FINGERS[1:]]
    assert across == sorted(across, reverse=True)
    over = _hand(thumb_flexion=50.0, thumb_knuckle=60.0, thumb_spread=-20.0, thumb_lift=15.0)
    assert over["thumb_4"][1] < straight["thumb_4"][1] - 30


def test_thumb_and_forefinger_can_meet() -> None:
    gap = np.inf
    for number in range(6):
        joints = make_hand_motion("Pinching", "anna", seed=0, rng=generator("c", number))
        gap = min(gap, np.linalg.norm(joints[:, 4] - joints[:, 8], axis=-1).min())

    assert gap < 20  # mm between the bones; the flesh touches


def test_hand_angles_are_held_within_the_limits() -> None:
    wild = {name: np.radians([-400.0, 400.0]) for name in HAND_LIMITS_DEG}

    for name, track in limit_angles(wild, HAND_LIMITS_DEG).items():
        np.testing.assert_allclose(np.degrees(track), HAND_LIMITS_DEG[name])


def test_hands_have_human_sizes_and_the_layouts_proportions() -> None:
    sizes = []
    for number in range(40):
        lengths = hand_bone_lengths(generator("size", number))
        sizes.append(lengths[9:13].sum())
        ratios = lengths[1:] / lengths[1:].mean()
        np.testing.assert_allclose(ratios, HAND_21.bone_ratios, rtol=0.08)

    assert 145 < min(sizes) < 175  # wrist to the middle finger's tip, mm
    assert 195 < max(sizes) < 225
    assert np.mean(HAND_21.bone_ratios) == pytest.approx(1.0, abs=1e-4)


def test_every_gesture_has_enough_for_a_macro_average() -> None:
    corpus = make_hand_corpus(ProceduralOptions(limit=600))

    for split in ("train", "prior", "val", "test"):
        gestures = [int(m.activity_f[0]) for m in corpus.motions if m.split == split]
        assert np.bincount(gestures, minlength=len(GESTURES)).min() >= 3


def test_a_store_of_hands_holds_life_size_seen_in_perspective(hand_store: Store) -> None:
    assert hand_store.layout is HAND_21
    split = hand_store.split("val")
    bones = np.linalg.norm(split.joints_3d[:, CHILDREN] - split.joints_3d[:, PARENTS], axis=-1)
    assert 30 < bones.mean(axis=1).min() < bones.mean(axis=1).max() < 55
    assert (split.joints_3d[..., 2] > 300).all()

    pixels = split.joints_3d[..., :2] / split.joints_3d[..., 2:] * FOCAL_PX + FRAME_PX / 2
    for seen, stored in zip(pixels, split.joints_2d, strict=True):
        seen, stored = seen - seen.mean(axis=0), stored - stored.mean(axis=0)
        scale = (seen * stored).sum() / (seen * seen).sum()
        np.testing.assert_allclose(stored, scale * seen, atol=1e-4)


def test_joints_lie_on_the_drawn_hand(hand_store: Store) -> None:
    split = hand_store.split("train")
    masks = split.masks(np.arange(len(split)))
    assert masks is not None
    pixels = np.clip(np.rint((split.joints_2d + 1) * 31.5).astype(int), 0, 63)
    covered = [mask[p[:, 1], p[:, 0]] > 128 for mask, p in zip(masks, pixels, strict=True)]

    assert np.mean(covered) > 0.97


def test_the_forearm_is_seen_but_is_no_part_of_the_hand() -> None:
    motion = make_hand_corpus(ProceduralOptions(limit=1)).motions[0]
    joints = CAMERAS[0].to_camera(motion.joints_fj3[0])
    look = clothes_hand(generator("look"))
    crop = draw_crop(CAMERAS[0].project(joints), generator("crop"))
    scene = Scene(level="clothes", seed=0, group="train", subject="a", motion="m", camera=0)
    picture, mask = draw_frame(
        joints, HAND_21, scene=scene, crop=crop, size=64, rng=generator("picture")
    )
    background = picture[0, 0] if mask[0, 0] == 0 else picture[-1, 0]
    painted = (picture != background).any(axis=-1)

    assert build_forearm(joints, look)
    assert len(build_hand(joints, look)) > 20
    assert (painted & (mask == 0)).sum() > 20
    assert not (~painted & (mask > 8)).any()


def test_the_hand_fills_the_room_as_a_person_does() -> None:
    corpus = make_hand_corpus(ProceduralOptions(limit=1))
    joints = np.concatenate([motion.joints_fj3 for motion in corpus.motions])

    assert corpus.enlarged == ENLARGED
    assert (np.abs(joints[..., :2]) < 2500).all()
    assert joints[..., 2].min() > -600
