"""Bodies are drawn as a naive twin draws them, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from selfpose.method.renderer import SIDE_BRIGHTNESS
from selfpose.method.skeleton import H36M_17, LAYOUTS
from selfpose.training.bodies.drawing import BodyRenderer, cover_layers, stack_layers
from selfpose.training.bodies.shapes import BODY_SHAPES

SIZE = 16


def cover_naively(ends_p22: Tensor, radii_p: Tensor, row: int, column: int) -> list[float]:
    """Return how much of a pixel each part covers: half where its edge goes through the middle."""
    x, y = (-1 + 2 * i / (SIZE - 1) for i in (column, row))
    covers = []
    for ((ax, ay), (bx, by)), radius in zip(ends_p22.tolist(), radii_p.tolist(), strict=True):
        square = (bx - ax) ** 2 + (by - ay) ** 2
        t = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / square
        t = min(1.0, max(0.0, t))
        distance = math.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay))
        covers.append(min(1.0, max(0.0, 0.5 + (radius - distance) * (SIZE - 1) / 2)))
    return covers


def test_a_layer_covers_a_pixel_as_the_best_of_its_parts_does() -> None:
    generator = torch.Generator().manual_seed(0)
    ends = torch.rand((2, 5, 2, 2), generator=generator) * 2 - 1
    radii = torch.rand((2, 5), generator=generator) * 0.4
    members = [[0, 2], [1], [3, 4]]

    covers = cover_layers(ends, radii, members, SIZE)

    for body in range(2):
        for row in range(SIZE):
            for column in range(SIZE):
                of_parts = cover_naively(ends[body], radii[body], row, column)
                expected = [max(of_parts[part] for part in parts) for parts in members]
                assert covers[body, :, row, column].tolist() == pytest.approx(expected, abs=1e-4)


def test_the_layer_in_front_hides_the_others() -> None:
    covers = torch.tensor([[[[1.0]], [[1.0]], [[0.25]]]])
    shades = torch.tensor([[0.2, 0.6, 1.0]])

    drawn = [
        float(stack_layers(covers, shades, torch.tensor([order])))
        for order in ([0, 1, 2], [2, 1, 0], [2, 0, 1])
    ]

    assert drawn == pytest.approx([0.75 * 0.6 + 0.25, 0.2, 0.6])


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_limb_of_a_layout_is_part_of_its_body(name: str) -> None:
    layout, shape = LAYOUTS[name], BODY_SHAPES[name]
    drawn = {frozenset((part.start, part.end)) for part in shape.parts}

    limbs = {frozenset((layout.joints[a], layout.joints[b])) for a, b in layout.limbs}

    assert limbs <= drawn


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_drawing_covers_its_joints_and_its_size_follows_the_pose(name: str) -> None:
    layout = LAYOUTS[name]
    poses = torch.rand((64, len(layout.joints), 2), generator=torch.Generator().manual_seed(1))
    poses = 0.8 * (poses - 0.5)

    def draw(scale: float) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        renderer = BodyRenderer(
            layout, BODY_SHAPES[name], 64, tells_sides=False, generator=generator
        )
        return renderer(scale * poses)

    large, small = draw(2.0), draw(1.0)
    places = ((2.0 * poses + 1) / 2 * 63).round().long()
    at_joints = torch.stack([large[b, 0, places[b, :, 1], places[b, :, 0]] for b in range(64)])

    assert (at_joints > -0.5).float().mean() > 0.99
    # A quarter of the area, but for edges and what is cut off.
    assert (small > 0).sum() / (large > 0).sum() == pytest.approx(0.25, rel=0.15)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_part_is_as_dim_as_the_limb_that_it_belongs_to(name: str) -> None:
    layout = LAYOUTS[name]
    dim = {layout.joints[joint] for joint in layout.dim}
    for part in BODY_SHAPES[name].parts:
        if part.shade != "middle":
            assert (part.end in dim) == (part.shade == "dim"), part


def test_right_limbs_are_brighter_where_sides_are_told() -> None:
    generator = torch.Generator().manual_seed(0)
    renderer = BodyRenderer(
        H36M_17, BODY_SHAPES["h36m17"], 64, tells_sides=True, generator=generator
    )
    pose = torch.zeros(17, 2)
    for side, x in (("right", -0.6), ("left", 0.6)):
        for name, y in (("hip", 0.0), ("knee", 0.4), ("ankle", 0.8)):
            pose[H36M_17.joints.index(f"{side}_{name}")] = torch.tensor([x, y])
    drawn = (renderer(pose.expand(32, 17, 2)) + 1) / 2
    row = round((0.6 + 1) / 2 * 63)
    right, left = (drawn[:, 0, row, round((x + 1) / 2 * 63)] for x in (-0.6, 0.6))

    assert right.mean() == pytest.approx(0.95, abs=0.05)
    assert left.mean() == pytest.approx(1.05 * SIDE_BRIGHTNESS, abs=0.05)
