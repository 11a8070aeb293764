"""Start values: points that cover a search space evenly, before anything is known of it.

They are the points of a scrambled Sobol sequence, which leaves no region out, as independent draws
do. The sweep's seed scrambles it, so every sweep has its own and a resume repeats it.
"""

from __future__ import annotations

import math

from posetune.spec.parameters import Scalar
from posetune.study.search.belief import Belief
from posetune.study.search.seeding import seed_for
from posetune.study.search.space import Space

__all__ = ["start_values"]


def start_values(
    space: Space, seed: int, count: int, belief: Belief | None = None
) -> list[dict[str, Scalar]]:
    """Return the first points of a sweep's sequence; a longer one begins with the same points.

    Args:
        space: the search space.
        seed: the sweep's.
        count: how many.
        belief: where the best parameters are believed to be; every second point is drawn there.
    """
    from scipy.stats import qmc  # takes a second, which only a driver has

    scramble = seed_for(seed, 0, "start values")
    sobol = qmc.Sobol(space.dimensions, scramble=True, rng=scramble)
    drawn = sobol.random_base2(max(4, math.ceil(math.log2(max(1, count)))))
    if belief is not None and belief.has_any:
        drawn[::2] = [belief.draw(unit) for unit in drawn[::2]]
    return [space.from_unit(unit) for unit in drawn[:count]]
