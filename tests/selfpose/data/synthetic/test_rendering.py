from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from selfpose.data.seeding import generator
from selfpose.data.synthetic.bodies import clothing
from selfpose.data.synthetic.bodies.anatomy import Capsule, body_frame
from selfpose.data.synthetic.bodies.clothing import Fabric
from selfpose.data.synthetic.bodies.kinematics import LAYOUT, bone_lengths, pose_joints
from selfpose.data.synthetic.cameras import CAMERAS, FOCAL_PX, FRAME_PX, Crop, draw_crop
from selfpose.data.synthetic.capsules import Canvas, draw_body
from selfpose.data.synthetic.occluders import LEAST_SEEN, draw_occluders
from selfpose.data.synthetic.rendering import ROOMS, Scene, draw_frame, look_of
from selfpose.data.synthetic.rooms import build_room

SCENE = Scene(level="plain", seed=0, group="train", subject="anna", motion="m", camera=0)


def _standing(heading: float = 0.0) -> np.ndarray:
    lengths = bone_lengths(1600, np.random.default_rng(0))
    joints = pose_joints(lengths, {"heading": np.asarray([heading])})[0]
    return (
        CAMERAS[0]
        .to_camera((joints + np.asarray((0, 0, 900))).astype(np.float32))
        .astype(np.float32)
    )


def _draw(scene: Scene, *, seed: int = 0, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    joints = _standing()
    crop = draw_crop(CAMERAS[0].project(joints), generator("crop"))
    return draw_frame(joints, LAYOUT, scene=scene, crop=crop, size=size, rng=generator(seed))


def _capsule(depth_mm: float, colour: tuple[float, float, float], **changes: Any) -> Capsule:
    start = np.asarray([-200, 0, depth_mm], dtype=np.float32)
    axis = np.asarray([1, 0, 0], dtype=np.float32)
    across = np.asarray([0, 1, 0], dtype=np.float32)
    fabric = Fabric(colour)
    capsule = Capsule(start, start + 400 * axis, (60, 60), fabric, fabric, start, axis, across)
    return dataclasses.replace(capsule, **changes)


def _render(capsules: list[Capsule], size: int = 65) -> Canvas:
    canvas = Canvas(np.zeros((size, size, 3), dtype=np.float32))
    crop = Crop((FRAME_PX / 2, FRAME_PX / 2), 200.0)
    light = np.asarray([0, 0, -1], dtype=np.float32)
    draw_body(canvas, capsules, crop=crop, light=light, ambient=0.5)
    return canvas


def test_a_capsule_covers_what_its_outline_says() -> None:
    size, depth = 65, 4000.0
    canvas = _render([_capsule(depth, (255, 0, 0))], size)
    scale = FOCAL_PX / depth * (size - 1) / 200
    x = (np.arange(size) - (size - 1) / 2) / scale  # mm at the capsule's depth
    past = np.maximum(np.abs(x) - 200, 0)
    distance = np.hypot(past[None, :], x[:, None])

    assert (canvas.cover_ss[distance < 60 - 1 / scale] == 1).all()
    assert (canvas.cover_ss[distance > 60 + 1 / scale] == 0).all()


def test_the_nearer_capsule_hides_the_farther_whatever_the_order() -> None:
    near, far = _capsule(3000, (255, 0, 0)), _capsule(4000, (0, 255, 0))
    middle = [_render(order).colour_ss3[32, 32] for order in ([near, far], [far, near])]

    np.testing.assert_allclose(middle[0], middle[1])
    assert middle[0][0] > 100
    assert middle[0][1] < 1


def test_a_capsule_outside_the_picture_draws_nothing() -> None:
    shift = np.asarray([5000, 0, 0], dtype=np.float32)
    away = _capsule(3000, (255, 0, 0))
    away = dataclasses.replace(away, start=away.start + shift, end=away.end + shift)

    assert _render([away]).cover_ss.max() == 0


def test_a_sleeve_ends_at_its_cut() -> None:
    skin = Fabric((0, 0, 255))
    canvas = _render([_capsule(4000, (255, 0, 0), outer=skin, cut_mm=200.0)])
    row = canvas.colour_ss3[32]

    assert row[20, 0] > 100
    assert row[20, 2] < 1
    assert row[44, 2] > 100
    assert row[44, 0] < 1


@pytest.mark.parametrize("heading", [0.0, 1.0, -2.5])
def test_the_body_looks_where_it_heads(heading: float) -> None:
    frame = body_frame(_standing(heading) @ CAMERAS[0].world_to_camera_33, LAYOUT)

    np.testing.assert_allclose(frame.forward, [np.cos(heading), np.sin(heading), 0], atol=0.05)
    np.testing.assert_allclose(frame.left, [-np.sin(heading), np.cos(heading), 0], atol=0.05)


def test_a_look_belongs_to_group_and_subject() -> None:
    for level in ("plain", "clothes"):
        scenes = [
            dataclasses.replace(SCENE, level=level, group=group, subject=f"s{i}")
            for group in ROOMS
            for i in range(20)
        ]
        seen = [look_of(scene) for scene in scenes]
        assert look_of(scenes[0]) == seen[0]
        assert len({repr(look) for look in seen}) == len(seen)


def test_left_and_right_are_dressed_alike_and_differ_only_on_level_plain() -> None:
    clothes = clothing.clothes_look(generator("x"))
    plain = clothing.plain_look(generator("x"))

    assert clothes.left_sleeve == clothes.right_sleeve
    assert clothes.left_trouser == clothes.right_trouser
    assert plain.left_sleeve != plain.right_sleeve
    assert plain.left_trouser != plain.right_trouser


def test_rooms_of_different_groups_differ() -> None:
    built = [
        build_room(generator(0, "room", group, number))
        for group, count in ROOMS.items()
        for number in range(count)
    ]

    assert len({room.colours_63.tobytes() for room in built}) == sum(ROOMS.values())


def test_the_surroundings_get_richer_with_the_level() -> None:
    pictures = {
        level: _draw(dataclasses.replace(SCENE, level=level))
        for level in ("plain", "clothes", "rooms")
    }
    outside = {level: picture[mask == 0] for level, (picture, mask) in pictures.items()}

    assert (outside["plain"] == 0).all()
    assert len(np.unique(outside["clothes"], axis=0)) == 1
    assert outside["rooms"].std(axis=0).min() > 3


def test_occluders_hide_parts_of_the_person_and_the_mask_knows_it() -> None:
    _, bare = _draw(dataclasses.replace(SCENE, level="clothes"))
    hidden = []
    for seed in range(40):
        _, mask = _draw(dataclasses.replace(SCENE, level="occluders"), seed=seed)
        assert (mask <= bare).all()
        hidden.append(1 - mask.sum() / bare.sum())

    assert max(hidden) < 1 - LEAST_SEEN + 0.01
    assert np.mean(np.asarray(hidden) > 0.03) > 0.75


def test_what_an_occluder_hides_has_its_colour_and_no_cover() -> None:
    blue = np.asarray((0, 0, 255), dtype=np.float32)
    for seed in range(20):
        canvas = Canvas(np.broadcast_to(blue, (64, 64, 3)).copy())
        canvas.cover_ss[:] = 1
        draw_occluders(canvas, generator(seed))
        changed = (canvas.colour_ss3 != blue).any(axis=-1)
        np.testing.assert_array_equal(changed, canvas.cover_ss < 1)


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_the_person_fills_the_same_share_at_every_size(size: int) -> None:
    _, mask = _draw(SCENE, size=size)
    _, reference = _draw(SCENE, size=128)

    assert mask.shape == (size, size)
    assert mask.mean() == pytest.approx(reference.mean(), rel=0.08)
