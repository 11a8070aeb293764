"""Published P-MPJPE per activity on Human3.6M, from the supplementary of Sosa & Hogg (2023).

Table 1 there: subjects 9 and 11, mm. The frames and crops of those works are not all known, so
these rows say where the field stands; they are not measured here.
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
"""Human3.6M's names and the supplementary's, in its order."""

_ALSO_CALLED = {"Photo": "TakingPhoto", "WalkDog": "WalkingDog", "WalkTogether": "WalkingTogether"}


@dataclass(frozen=True)
class Published:
    """One row of the supplementary's Table 1."""

    method: str
    assumptions: str
    activities_mm: tuple[float, ...]
    """In the order of `ACTIVITIES`."""
    average_mm: float
    """As printed."""


PUBLISHED = (
    Published(
        "Chen & Ramanan 2017 *",
        "Full-3D",
        (
            *(89.8, 97.6, 89.9, 107.9, 107.3, 139.2, 93.6, 136.1),
            *(133.1, 240.1, 106.6, 106.2, 87.0, 114.0, 90.6),
        ),
        114.2,
    ),
    Published(
        "Kundu et al. 2020",
        "3D Kin.",
        (
            *(80.2, 81.3, 86.0, 86.7, 94.1, 83.4, 87.5, 84.2),
            *(101.2, 110.9, 86.0, 87.8, 86.9, 94.3, 90.9),
        ),
        89.4,
    ),
    Published(
        "Sosa & Hogg 2023",
        "Unp. 2D",
        (
            *(84.4, 77.8, 89.0, 99.2, 100.6, 101.8, 77.2, 86.5),
            *(112.2, 144.4, 97.3, 80.4, 93.6, 103.3, 102.5),
        ),
        96.7,
    ),
)

CHEN_NOTE = (
    "* The average printed for Chen & Ramanan, 114.2, is not the mean of its row, 115.9, and the "
    "row is probably an error without alignment: literature, not a rival."
)


def short_name(activity: str) -> str | None:
    """Return the supplementary's name of one of the 15 activities; None for any other."""
    return ACTIVITIES.get(_ALSO_CALLED.get(activity, activity))
