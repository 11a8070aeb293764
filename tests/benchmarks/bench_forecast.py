"""How often forecasts of 80 % hold, on 200 recorded sweeps of made-up objectives."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from support.recording import replay
from support.simulated_driver import open_unsynced

from posetune.provenance import collect
from posetune.study.forecasting.forecast import Interval, forecast, forecast_sweep
from posetune.study.forecasting.forecast_model import ForecastInput

OUT = Path(__file__).parents[2] / "runs" / "bench" / "forecast.json"
SWEEPS = 200
SHARES = (0.3, 0.7)


def test_intervals_of_80_percent_hold_in_70_to_90(tmp_path: Path) -> None:
    """Seeds 0 to 199; what is fitted in the forecast was fitted to others."""
    database = open_unsynced(tmp_path / "study.db")
    found: dict[tuple[str, str], list[tuple[Interval, float]]] = {}
    for seed in range(SWEEPS):
        recorded = replay(database, seed, SHARES)
        spec, end = recorded.end.spec, recorded.end
        slots = min(recorded.slots, spec.budget.trials)
        expected = {
            "before the start": forecast(
                ForecastInput(spec, slots, recorded.epoch_s, recorded.setup_s), seconds=math.inf
            ),
            **{
                f"{share:.0%} of the trials ended": forecast_sweep(view, seconds=math.inf)
                for share, view in zip(SHARES, recorded.snapshots, strict=False)
            },
        }
        held_s = sum(trial.held_s for trial in end.trials)
        epochs = float(sum(trial.epochs for trial in end.trials))
        for when, each in expected.items():
            if each is not None:
                found.setdefault((when, "GPU-hours"), []).append((each.held_s, held_s))
                found.setdefault((when, "by the clock"), []).append((each.wall_s, end.driven_s))
                found.setdefault((when, "epochs"), []).append((each.epochs, epochs))
    table = Table("asked", "of", "forecasts", "held", "too low", "too high", "high / low, median")
    covered, kept = [], []
    for (when, what), pairs in found.items():
        low = np.mean([truth > interval.high for interval, truth in pairs])
        high = np.mean([truth < interval.low for interval, truth in pairs])
        width = math.exp(np.median([math.log(i.high / i.low) for i, _ in pairs]))
        covered.append(1 - low - high)
        kept.append(
            {
                "when": when,
                "what": what,
                "forecasts": len(pairs),
                "held": 1 - low - high,
                "too_low": low,
                "too_high": high,
                "width": width,
            }
        )
        row = f"{1 - low - high:.1%}", f"{low:.1%}", f"{high:.1%}", f"{width:.2f}"
        table.add_row(when, what, str(len(pairs)), *row)
    Console(width=110).print(table)
    where = collect()
    facts = {key: where[key] for key in ("commit", "dirty", "processor", "usable_cores")}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"rows": kept, "load": os.getloadavg()[0], **facts}, indent=1))
    assert all(0.7 <= share <= 0.9 for share in covered)
