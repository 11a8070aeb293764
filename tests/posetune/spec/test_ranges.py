"""A range with a step has one grid: for trial 0, for the sampler, for other sweeps' trials."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from posetune.api import BadInputError
from posetune.spec.loading import default_params, load_sweep
from posetune.spec.parameters import FloatRange
from posetune.spec.sweep import Prior, SweepSpec
from posetune.study.search.belief import Belief
from posetune.study.search.sampler import SearchMemory, distributions
from posetune.study.search.space import Space
from posetune.study.search.startup import start_values

SWEEP = """\
trainable: posetune.testing.toy:Toy
objective: {metric: val/error_mm, mode: min}
search:
  x: {float: [0.01, 0.3], step: 0.1}
sampler: {name: random, seed: 0}
pruner: {name: asha, max_epochs: 2}
budget: {trials: 2}
"""


def load(folder: Path, text: str) -> SweepSpec:
    file = folder / "sweep.yaml"
    file.write_text(text)
    return load_sweep(file)[0]


def test_trial_0_lies_on_the_samplers_grid_in_usual_ranges() -> None:
    generator, tried = random.Random(0), 0
    for low in (0, 0.1, 0.01, 0.001, 1, -1, 0.05):
        for step in (0.1, 0.01, 0.001, 0.0001, 0.05, 0.25, 0.3, 0.7, 1e-5, 0.15):
            for high in (0.3, 0.5, 1, 2, 10, 100):
                if high <= low:
                    continue
                space = FloatRange.model_validate({"float": [low, high], "step": step})
                spec = SweepSpec.model_construct(search={"x": space})
                distribution = distributions(spec)["x"]
                for value in (
                    low,
                    high,
                    1e9,
                    -5,
                    *(generator.uniform(low, high) for _ in "123456"),
                ):
                    tried += 1
                    found = space.nearest(value)
                    assert distribution._contains(found), (low, step, high, value, found)
                    assert space.nearest(found) == found
    assert tried == 3900


def test_every_draw_is_a_number_as_the_file_would_write_it(tmp_path: Path) -> None:
    spec = load(tmp_path, SWEEP)
    assert default_params(spec, load_sweep(tmp_path / "sweep.yaml")[1].config_model) == {"x": 0.21}
    drawn = {SearchMemory(spec, []).ask(number)["x"] for number in range(1, 40)}
    assert drawn == {0.01, 0.11, 0.21}  # Optuna's own: 0.21000000000000002


def test_optuna_knows_a_draw_as_it_is_recorded(tmp_path: Path) -> None:
    memory = SearchMemory(load(tmp_path, SWEEP), [])
    asked = memory.ask(5)
    assert memory._study.trials[-1].params == asked


def test_start_values_and_priors_lie_on_the_one_grid(tmp_path: Path) -> None:
    space = FloatRange.model_validate({"float": [0.01, 0.3], "step": 0.1})
    axis = Space({"x": space})
    drawn = {values["x"] for values in start_values(axis, 0, 40, Belief(load(tmp_path, SWEEP)))}
    assert drawn == {0.01, 0.11, 0.21}
    assert Prior(value=0.3).value_in(space) == 0.21


def test_a_step_that_rounding_moved_lies_on_the_grid() -> None:
    space = FloatRange.model_validate({"float": [0.01, 0.3], "step": 0.1})
    assert space.holds(0.21000000000000002)
    assert space.nearest(0.21000000000000002) == 0.21
    assert not space.holds(0.2)
    assert not space.holds(0.31)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("step: 0.1", "step: 0.4", "search.x: step (0.4) is larger than the range"),
        ("step: 0.1", "step: 1.0e-12", "search.x: step (1e-12) is too fine"),
        ("[0.01, 0.3], step: 0.1", "[0.01, '1e999']", "must have finite bounds"),
        ("[0.01, 0.3], step: 0.1", "[0.01, .inf]", "must be a finite number"),
        ("x: {float: [0.01, 0.3], step: 0.1}", "depth: {int: [2, 5], step: 9}", "larger than"),
        (
            "x: {float: [0.01, 0.3], step: 0.1}",
            f"depth: {{int: [2, {10**30}]}}",
            "bounds beyond 2^53",
        ),
        ("[0.01, 0.3], step: 0.1", "[-1.7e+308, 1.7e+308]", "wider than the largest number"),
        ("[0.01, 0.3]", "[no, 0.3]", "yes, no, on and off are true and false in YAML"),
        ("[0.01, 0.3], step: 0.1", "[false, true]", "search.x.float: must be two numbers"),
        ("budget:", "resources: {cpu: 1.0e-320}\nbudget:", "greater than or equal to 0.0001"),
        ("budget:", "resources: {gpu: 1.0e-320}\nbudget:", "gpu must be 0 or at least 0.0001"),
        ("budget:", "fixed: {epoch_s: .inf}\nbudget:", "must be a finite number"),
        ("budget:", "fixed: {epoch_s: '1e999'}\nbudget:", "fixed.epoch_s: must be a finite number"),
        ("trials: 2", "trials: 2, gpu_hours: .inf", "must be a finite number"),
    ],
)
def test_a_range_that_cannot_be_searched_is_refused(
    tmp_path: Path, before: str, after: str, words: str
) -> None:
    assert before in SWEEP
    with pytest.raises(BadInputError) as caught:
        load(tmp_path, SWEEP.replace(before, after, 1))
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'sweep.yaml'}:")
    assert "\n" not in str(caught.value)
