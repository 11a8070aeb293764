import numpy as np
import pytest

from posetune.api import BadInputError, Contest, Evaluation
from posetune.promotion.judging.gate import LEAST_MOTIONS, judge, markdown

MOTIONS, ACTIVITIES = 120, 10
SCATTER_MM = 8.0
"""Standard deviation over motions of the difference between two models."""
STATED_GAIN_MM = 3.2
"""0.4 of the scatter: the true gain that is to be promoted nine times out of ten."""

CONTEST = Contest(
    score="error_mm",
    unit="mm",
    sees="images",
    rivals={"mean shape": "mean_shape_mm", "flat": "flat_mm"},
    activities=[f"activity {i}" for i in range(ACTIVITIES)],
)


def scored(error: np.ndarray, motion: np.ndarray, **columns: np.ndarray) -> Evaluation:
    activity = motion % ACTIVITIES
    records = {"error_mm": error, "motion": motion, "activity": activity, "group": activity}
    return Evaluation({}, {}, {**records, **columns}, contest=CONTEST)


def pair(
    generator: np.random.Generator, gain: float | np.ndarray, motions: int = MOTIONS
) -> tuple[Evaluation, Evaluation]:
    """A candidate and a champion on motions of different length and difficulty.

    `gain` is the candidate's true advantage, mm; one number, or one per activity.
    """
    motion = np.repeat(np.arange(motions), generator.integers(8, 40, motions))
    difficulty = generator.gamma(9, 10, motions)[motion]
    gains = np.broadcast_to(gain, ACTIVITIES)[np.arange(motions) % ACTIVITIES]
    advantage = generator.normal(gains, SCATTER_MM)[motion]
    champion = difficulty + generator.normal(0, 15, len(motion))
    candidate = champion - advantage + generator.normal(0, 10, len(motion))
    return scored(candidate, motion), scored(champion, motion)


def promoted(gain: float | np.ndarray, times: int, seed: int) -> float:
    generator = np.random.default_rng(seed)
    verdicts = [judge(*pair(generator, gain), champion_name="old") for _ in range(times)]
    return sum(verdict.passed for verdict in verdicts) / times


@pytest.mark.long
@pytest.mark.slow
def test_equal_models_are_promoted_at_most_five_times_in_a_hundred() -> None:
    assert promoted(0.0, 300, seed=0) <= 0.05


@pytest.mark.long
@pytest.mark.slow
def test_a_gain_of_the_stated_size_is_promoted_nine_times_out_of_ten() -> None:
    assert promoted(STATED_GAIN_MM, 200, seed=1) >= 0.90


@pytest.mark.slow
def test_a_worse_model_is_never_promoted() -> None:
    assert promoted(-STATED_GAIN_MM, 30, seed=2) == 0.0


def test_one_activity_that_is_clearly_worse_stops_a_gain_over_all() -> None:
    gain = np.full(ACTIVITIES, 12.0)
    gain[4] = -25.0

    verdict = judge(*pair(np.random.default_rng(3), gain), champion_name="old")

    assert verdict.comparisons[0].better
    assert not verdict.passed
    assert verdict.reason == "significantly worse in activity 4 (12 motions)"


def test_an_activity_with_few_motions_does_not_stop_it() -> None:
    gain = np.full(ACTIVITIES, 12.0)
    gain[4] = -25.0
    few = 10 * (LEAST_MOTIONS - 1)

    verdict = judge(*pair(np.random.default_rng(3), gain, motions=few), champion_name="old")

    assert verdict.passed
    assert [c.over for c in verdict.comparisons] == ["all activities"]


def test_more_cameras_are_no_more_evidence() -> None:
    candidate, champion = pair(np.random.default_rng(5), 1.5)
    once = judge(candidate, champion, champion_name="old").comparisons[0]
    copied = [
        Evaluation({}, {}, {k: np.tile(v, 4) for k, v in e.records.items()}, contest=CONTEST)
        for e in (candidate, champion)
    ]
    fourfold = judge(*copied, champion_name="old").comparisons[0]

    assert (fourfold.low, fourfold.high) == pytest.approx((once.low, once.high))


def test_numbers_are_of_the_right_sign_and_size() -> None:
    verdict = judge(*pair(np.random.default_rng(6), 10.0), champion_name="old")
    first = verdict.comparisons[0]

    assert first.gain == pytest.approx(first.other_error - first.candidate)
    assert first.low < first.gain < first.high
    assert 8 < first.gain < 12
    assert len(verdict.comparisons) == 1 + ACTIVITIES
    assert markdown(verdict).count("\n") == 2 + ACTIVITIES


@pytest.mark.parametrize(
    ("mean_shape", "flat", "passed"), [(30, 30, True), (-5, 30, False), (30, -5, False)]
)
def test_the_first_champion_must_beat_every_trivial_answer(
    mean_shape: float, flat: float, passed: bool
) -> None:
    candidate, other = pair(np.random.default_rng(7), 0.0)
    error = other.records["error_mm"]
    first = scored(
        candidate.records["error_mm"],
        candidate.records["motion"],
        mean_shape_mm=error + mean_shape,
        flat_mm=error + flat,
    )

    verdict = judge(first, None, champion_name="")

    assert verdict.passed == passed
    assert [c.other for c in verdict.comparisons] == ["mean shape", "flat"]
    assert ("not significantly better" in verdict.reason) != passed


def test_a_candidate_that_is_not_finite_is_refused_and_such_a_champion_is_beaten() -> None:
    candidate, champion = pair(np.random.default_rng(8), 10.0)
    for broken in (candidate, champion):
        broken.records["error_mm"][3] = np.inf
        verdict = judge(candidate, champion, champion_name="old")
        assert verdict.passed == (broken is champion)
        broken.records["error_mm"][3] = 90.0


def test_models_that_saw_other_frames_or_other_input_are_not_compared() -> None:
    candidate, champion = pair(np.random.default_rng(9), 0.0)
    other, _ = pair(np.random.default_rng(10), 0.0)
    given_truth = Evaluation(
        {}, {}, champion.records, contest=Contest("error_mm", "mm", "true 2D poses", {}, ())
    )

    with pytest.raises(BadInputError, match="different test frames"):
        judge(candidate, other, champion_name="old")
    with pytest.raises(BadInputError, match=r"sees images, the present champion .* true 2D poses"):
        judge(candidate, given_truth, champion_name="old")
    with pytest.raises(BadInputError, match="has no `contest`"):
        judge(Evaluation({}, {}, {}), None, champion_name="")


def test_one_motion_alone_promotes_nothing() -> None:
    candidate, champion = pair(np.random.default_rng(11), 50.0, motions=1)

    assert not judge(candidate, champion, champion_name="old").passed
