from __future__ import annotations

import numpy as np
import pytest

from selfpose.evaluation.literature import ACTIVITIES, PUBLISHED


def test_the_printed_averages_of_the_literature_are_the_means_of_their_rows_but_for_chen() -> None:
    for row in PUBLISHED:
        mean = np.mean(row.activities_mm)
        assert len(row.activities_mm) == len(ACTIVITIES) == 15
        assert abs(mean - row.average_mm) == pytest.approx(
            1.73 if "*" in row.method else 0, abs=0.06
        )
