"""Quotes published P-MPJPE per activity on Human3.6M, from Sosa & Hogg (2023).

Source: Table 1 of their supplementary, subjects 9 and 11, in mm. The frames and crops of those
works are not all known, so these rows say where the field stands; they are not measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ACTIVITIES", "CHEN_NOTE", "PUBLISHED", "Published", "short_name"]

ACTIVITIES: Mapping[str, str] = {
    "Directions": "Dir.",
    "Discussion": "Disc.",
    "Eating": "Eat",
    "Greeting": "Greet",
    "Phoning": "Phon.",
    "TakingPhoto": "Photo",
    "Posing": "Pose",
    "Purchases": "Purch.",
    "Sitting": "Sit",
    "SittingDown": "SitD.",
    "Smoking": "Smoke",
    "Waiting": "Wait",
    "Walking": "Walk",
    "WalkingDog": "WalkD",
    "WalkingTogether": "WalkT",
}
"""The supplementary's name of each activity, by Human3.6M's name, in the supplementary's order."""

_ALSO_CALLED = {"Photo": "TakingPhoto", "WalkDog": "WalkingDog", "WalkTogether": "WalkingTogether"}


@dataclass(frozen=True)
class Published:
    """Holds one row of the supplementary's Table 1."""

    method: str
    """Name of the work."""
    assumptions: str
    """What the method needs for training, in the supplementary's words."""
    activities_mm: tuple[float, ...]
    """P-MPJPE of each activity, in mm, in the order of `ACTIVITIES`."""
    average_mm: float
    """The printed average, in mm."""


# The rows stand as they are printed, so that they can be compared with the page.
_CHEN_MM = (
    89.8, 97.6, 89.9, 107.9, 107.3, 139.2, 93.6, 136.1,
    133.1, 240.1, 106.6, 106.2, 87.0, 114.0, 90.6,
)  # fmt: skip
_KUNDU_MM = (
    80.2, 81.3, 86.0, 86.7, 94.1, 83.4, 87.5, 84.2,
    101.2, 110.9, 86.0, 87.8, 86.9, 94.3, 90.9,
)  # fmt: skip
_SOSA_MM = (
    84.4, 77.8, 89.0, 99.2, 100.6, 101.8, 77.2, 86.5,
    112.2, 144.4, 97.3, 80.4, 93.6, 103.3, 102.5,
)  # fmt: skip

PUBLISHED = (
    Published("Chen & Ramanan 2017 *", "Full-3D", _CHEN_MM, 114.2),
    Published("Kundu et al. 2020", "3D Kin.", _KUNDU_MM, 89.4),
    Published("Sosa & Hogg 2023", "Unp. 2D", _SOSA_MM, 96.7),
)
"""The rows that tables of Human3.6M quote."""

CHEN_NOTE = (
    "* The average printed for Chen & Ramanan, 114.2, is not the mean of its row, 115.9, and the "
    "row is probably an error without alignment: literature, not a rival."
)
"""Note below every table that quotes Chen & Ramanan."""


def short_name(activity: str) -> str | None:
    """Return the supplementary's name of one of the 15 activities; None for any other."""
    return ACTIVITIES.get(_ALSO_CALLED.get(activity, activity))
