"""Chooses the frames of an evaluation that are drawn, and writes what is said beside them.

`random.png` has rows of a split that were drawn by a seed, `poses.png` its best, median, worst and
random rows, `random_<subject>.png` random rows of each of the first subjects, and
`distribution.png` the errors of all rows.

Shape letters: N frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfpose.data.pictures.images import reduce_images
from selfpose.data.store import Split, Store
from selfpose.evaluation.distribution import draw_distribution
from selfpose.evaluation.figures import SheetRow, draw_sheet
from selfpose.evaluation.scores import Predictions, truth_3d

__all__ = ["draw_pictures"]

_OF_EACH_KIND = 2
"""Number of rows that are drawn of the best, median, worst and random ones each."""
_OF_ALL = 8
"""Number of random rows of the whole split that are drawn."""
_OF_EACH_SUBJECT = 6
"""Number of random rows of one subject that are drawn."""
_SUBJECT_SHEETS = 8
"""Number of subjects that have a sheet of their own at most."""
_SEED = 0
"""Seed of the choice of random rows. It is fixed so that all models are drawn on the same rows."""


def draw_pictures(
    store: Store,
    rows: Split,
    *,
    predicted: Predictions,
    scores: Mapping[str, NDArray[np.float64]],
    image_size: int | None,
) -> dict[str, bytes]:
    """Draw the pictures of a split.

    Args:
        store: the store.
        rows: the split.
        predicted: the model's poses of all rows.
        scores: the columns of `score_frames`, (N,) each, by name.
        image_size: side in pixels of the images that the model sees; None if it sees no images.

    Returns:
        Contents of the PNG files, by the file's name.
    """
    main, constant = "p_mpjpe_mm", "mean_shape_mm"
    if main not in scores:
        main, constant = "error_2d_px", "mean_2d_pose_px"
    error_n, unit = scores[main], main.rpartition("_")[2]
    subjects = store.metadata.subjects
    averages = [f"{scores[name].mean():.{_digits(unit)}f} {unit}" for name in (main, constant)]
    beside = f"All frames: this model {averages[0]}, the constant pose {averages[1]}."
    picture = _Sheets(store, rows, predicted, error_n, unit, image_size)
    drawn = np.random.default_rng(_SEED).permutation(len(error_n))[:_OF_ALL]
    pictures = {
        "poses.png": picture.draw(
            _choose_rows(error_n, rows.motion),
            f"By error (best, median, worst) and at random, of {len(error_n):,} frames. {beside}",
        ),
        "random.png": picture.draw(
            [("random", int(row)) for row in drawn],
            f"{len(drawn)} of {len(error_n):,} frames, drawn by a seed. {beside}",
        ),
        "distribution.png": draw_distribution(
            error_n, rows.activity, rows.motion, names=store.metadata.activities, unit=unit
        ),
    }
    for subject in np.unique(rows.subject)[:_SUBJECT_SHEETS]:
        of_subject = np.flatnonzero(rows.subject == subject)
        drawn = np.random.default_rng(_SEED).permutation(of_subject)[:_OF_EACH_SUBJECT]
        name = subjects[subject]
        pictures[f"random_{_file_name(name)}.png"] = picture.draw(
            [("random", int(row)) for row in drawn],
            f"Subject {name}: {len(drawn)} of {len(of_subject):,} frames at random. {beside}",
        )
    return pictures


@dataclass(frozen=True)
class _Sheets:
    """Draws sheets of chosen rows of a split."""

    store: Store
    rows: Split
    predicted: Predictions
    error_n: NDArray[np.float64]
    unit: str
    image_size: int | None

    @cached_property
    def _rank_n(self) -> NDArray[np.int64]:
        """The rank of each row by its error, (N,), from 1 for the smallest."""
        return np.argsort(np.argsort(self.error_n, kind="stable"), kind="stable") + 1

    def draw(self, chosen: list[tuple[str, int]], title: str) -> bytes:
        """Return a sheet as the content of a PNG file.

        Args:
            chosen: the rows to draw, each with the kind of choice (`best`, `random`).
            title: text above the sheet.
        """
        return draw_sheet([self._row(*c) for c in chosen], layout=self.store.layout, title=title)

    def _row(self, kind: str, row: int) -> SheetRow:
        rows, metadata, truth_nj3 = self.rows, self.store.metadata, truth_3d(self.rows)
        image_ss3 = None
        if self.image_size is not None:
            image_ss3 = reduce_images(rows.images([row]), self.image_size)[0]
        return SheetRow(
            label=f"{kind}\n{metadata.activities[rows.activity[row]]}\n"
            f"{metadata.subjects[rows.subject[row]]}\n"
            f"rank {self._rank_n[row]:,}\nof {len(self.error_n):,}",
            score=f"{self.error_n[row]:.{_digits(self.unit)}f} {self.unit}",
            image_ss3=image_ss3,
            joints_2d_j2=self.predicted.joints_2d_nj2[row],
            truth_2d_j2=rows.joints_2d[row],
            truth_3d_j3=None if truth_nj3 is None else truth_nj3[row],
            predicted_3d_j3=self.predicted.poses_nj3[row],
        )


def _digits(unit: str) -> int:
    """Return the number of digits after the point with which an error is written."""
    return 0 if unit == "mm" else 1


def _file_name(text: str) -> str:
    """Return a text with only those characters that every system takes in a file's name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text)


def _choose_rows(error_n: NDArray[Any], motion_n: NDArray[Any]) -> list[tuple[str, int]]:
    """Return the rows to draw, each with its kind; those of one kind are of different motions."""
    by_error = np.argsort(error_n, kind="stable")
    from_median = np.argsort(np.abs(np.arange(len(error_n)) - len(error_n) // 2), kind="stable")
    orders = {
        "best": by_error,
        "median": by_error[from_median],
        "worst": by_error[::-1],
        "random": np.random.default_rng(_SEED).permutation(len(error_n)),
    }
    chosen = []
    for kind, order in orders.items():
        _, first_of_motion = np.unique(motion_n[order], return_index=True)
        places = np.sort(first_of_motion)[:_OF_EACH_KIND]
        chosen += [(kind, int(row)) for row in order[places]]
    return chosen
