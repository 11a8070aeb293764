"""What the sheet of an evaluation takes to draw, in processor time."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest

from selfpose.evaluation.figures import SheetRow, draw_sheet
from selfpose.method.skeleton import H36M_17

ROUNDS = 5
AIM_S = 3.0


def some_rows(number: int, *, image: bool) -> list[SheetRow]:
    generator = np.random.default_rng(0)
    poses_nj3 = generator.normal(scale=300.0, size=(number, 17, 3))
    return [
        SheetRow(
            label=f"row {i}",
            image_ss3=generator.integers(0, 90, (128, 128, 3), dtype=np.uint8) if image else None,
            joints_2d_j2=pose[:, :2] / 1000,
            truth_2d_j2=pose[:, :2] / 1000 + 0.05,
            truth_3d_j3=pose,
            predicted_3d_j3=pose + generator.normal(scale=50.0, size=pose.shape),
        )
        for i, pose in enumerate(poses_nj3)
    ]


@pytest.mark.parametrize("image", [True, False])
def test_six_rows_are_drawn_in_less_than_three_seconds(image: bool) -> None:
    taken = []
    for _ in range(ROUNDS):
        started = time.process_time()
        draw_sheet(some_rows(6, image=image), layout=H36M_17, title="six")
        taken.append(time.process_time() - started)
    print(f"six rows, image={image}: {statistics.median(taken):.2f} s, wanted at most {AIM_S:g} s")
    assert statistics.median(taken) < AIM_S
