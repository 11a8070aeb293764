from __future__ import annotations

import numpy as np
import pytest

from selfpose.data.synthetic.motions import choose_frames, half_of, place_in_room
from selfpose.method.skeleton import H36M_17


@pytest.mark.parametrize("limit", [1, 3, 7, 50, 101, None])
def test_chosen_frames_are_as_many_as_allowed_and_even_over_motions(limit: int | None) -> None:
    lengths = [40, 3, 30, 28, 0]
    chosen = choose_frames(lengths, limit)
    counts = [len(frames) for frames in chosen]

    assert sum(counts) == min(limit or 101, 101)
    for frames, length in zip(chosen, lengths, strict=True):
        assert (np.diff(frames) > 0).all()
        assert len(frames) == 0 or (frames[0] >= 0 and frames[-1] < length)
    not_full = [c for c, length in zip(counts, lengths, strict=True) if c < length]
    assert not not_full or max(counts) - min(not_full) <= 1


def test_a_limit_below_the_number_of_motions_takes_them_from_the_whole_list() -> None:
    chosen = choose_frames([10] * 100, 4)

    assert [i for i, frames in enumerate(chosen) if len(frames)] == [0, 25, 50, 75]


def test_about_half_of_all_motions_give_images() -> None:
    halves = [half_of(f"motion {i}") for i in range(1000)]

    assert 450 < halves.count("train") < 550


def test_a_long_path_is_shrunk_and_a_short_one_is_only_moved() -> None:
    rng = np.random.default_rng(0)
    joints = np.broadcast_to(rng.normal(0, 300, (1, 17, 3)), (20, 17, 3)).copy()
    joints[..., 0] += np.linspace(0, 6000, 20)[:, None]
    placed = place_in_room(joints.astype(np.float32), H36M_17, rng=rng)
    short = place_in_room(joints[:3].astype(np.float32), H36M_17, rng=rng)

    assert np.abs(placed[:, 0, :2]).max() <= 900.1
    assert np.ptp(placed[:, 0, 0]) == pytest.approx(1800, abs=1)
    moved = short - joints[:3]
    np.testing.assert_allclose(moved, np.broadcast_to(moved[:1, :1], moved.shape), atol=0.05)
