"""The combined trigger: each test against an independent one, the choice of tests, and the joint false-alarm rate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from compass_ray.core.drift import (
    CombinedTrigger,
    DriftDecision,
    DriftState,
    ObservedSample,
    PermutationTestTrigger,
    QualitySignals,
)
from compass_ray.core.drift.quality_tests import MinEffects, compare_losses, compare_shares, run_quality_tests

COUNTS, MOVED = [40, 40, 20, 0], [5, 5, 40, 50]


def decide(before: QualitySignals, now: QualitySignals, window: list[int] = COUNTS, **settings: object) -> DriftDecision:
    trigger = CombinedTrigger(persistence=1, **settings)  # type: ignore[arg-type]
    return trigger.check_with_signals(
        DriftState(), ObservedSample(COUNTS, before), ObservedSample(window, now), np.random.default_rng(0)
    )


def exceeded(decision: DriftDecision) -> list[str]:
    return [test.name for test in decision.tests if test.exceeded]


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_larger_share_is_tested_as_by_fisher(before: int, now: int, data: st.DataObject) -> None:
    bad_before, bad_now = data.draw(st.integers(0, before)), data.draw(st.integers(0, now))
    table = [[bad_now, now - bad_now], [bad_before, before - bad_before]]
    found = compare_shares(bad_before, before, bad_now, now)
    assert found.p_value == pytest.approx(fisher_exact(table, alternative="greater").pvalue, abs=1e-9)
    assert found.effect == pytest.approx(bad_now / now - bad_before / before)


def test_a_worse_loss_is_tested_as_by_random_splits() -> None:
    rng = np.random.default_rng(0)
    before, now = rng.exponential(1.0, 40), rng.exponential(1.5, 30)
    both = np.concatenate([before, now])

    def wins(replies: np.ndarray) -> float:
        return float((replies[None, 40:] > replies[:40, None]).sum())

    dealt = np.array([wins(rng.permutation(both)) for _ in range(4000)])
    assert compare_losses(before, now).p_value == pytest.approx(np.mean(dealt >= wins(both)), abs=0.02)


def test_one_reply_with_a_very_large_loss_is_no_worsening() -> None:
    usual = np.linspace(0.5, 1.5, 60)
    assert compare_losses(usual, np.append(usual, 1e6)).p_value > 0.3


@pytest.mark.parametrize(
    ("before", "now", "test"),
    [
        (QualitySignals(nll=np.linspace(1, 2, 60)), QualitySignals(nll=np.linspace(1.6, 2.6, 60)), "loss"),
        (QualitySignals(bad=5, rated=60), QualitySignals(bad=30, rated=60), "feedback"),
        (QualitySignals(right=55, asked=60), QualitySignals(right=25, asked=60), "canary"),
    ],
)
def test_each_test_alarms_alone_and_only_towards_worse(before: QualitySignals, now: QualitySignals, test: str) -> None:
    worse, better = decide(before, now), decide(now, before)
    assert worse.alarm
    assert exceeded(worse) == [test]
    assert not better.alarm


def test_drifted_prompts_alarm_for_any_replies() -> None:
    same = QualitySignals(nll=np.linspace(1, 2, 60), bad=6, rated=60, right=50, asked=60)
    decision = decide(same, same, MOVED)
    assert decision.alarm
    assert exceeded(decision) == ["divergence"]
    assert [test.name for test in decision.tests] == ["divergence", "loss", "feedback", "canary"]


def test_the_rate_is_divided_among_the_tests_with_enough_replies() -> None:
    few = QualitySignals(nll=np.ones(5), bad=1, rated=60)
    decision = decide(few, few)
    assert [test.name for test in decision.tests] == ["divergence", "feedback"]
    assert {test.level for test in decision.tests} == {0.005}
    assert [(test.n_reference, test.n_window) for test in decision.tests] == [(100, 100), (60, 60)]


def test_a_significant_but_small_effect_is_no_alarm() -> None:
    rng = np.random.default_rng(0)
    before, now = rng.normal(1.0, 0.05, 300), rng.normal(1.05, 0.05, 300)
    decision = decide(QualitySignals(nll=before), QualitySignals(nll=now))
    assert decision.tests[1].p_value < 1e-6
    assert not decision.exceeded


def test_without_signals_it_equals_the_permutation_test_trigger() -> None:
    rest = {"state": DriftState(1), "reference": COUNTS, "window": MOVED}
    combined = CombinedTrigger().check(**rest, rng=np.random.default_rng(0))  # type: ignore[arg-type]
    plain = PermutationTestTrigger().check(**rest, rng=np.random.default_rng(0))  # type: ignore[arg-type]
    assert (combined.alarm, combined.p_value, combined.divergence, combined.state) == (
        plain.alarm,
        plain.p_value,
        plain.divergence,
        plain.state,
    )


def test_without_any_change_all_tests_together_alarm_at_most_at_the_rate() -> None:
    rng, wrong, floors = np.random.default_rng(1), 0, MinEffects(0.0, 0.0, 0.0)
    trigger = CombinedTrigger(false_alarm_rate=0.1, persistence=1, floor=0.0, floors=floors, resamples=400)

    def side() -> ObservedSample:
        replies = QualitySignals(rng.gamma(2.0, size=100), int(rng.binomial(80, 0.2)), 80, int(rng.binomial(60, 0.8)), 60)
        return ObservedSample(rng.multinomial(200, [0.1] * 10), replies)

    for _ in range(200):
        wrong += trigger.check_with_signals(DriftState(), side(), side(), rng).alarm
    assert 0.02 <= wrong / 200 <= 0.13


def test_impossible_signals_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="bad is 3 of 2"):
        QualitySignals(bad=3, rated=2)
    with pytest.raises(ValueError, match="one finite loss"):
        QualitySignals(nll=np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="never alarms"):
        CombinedTrigger(resamples=200)
    assert run_quality_tests(QualitySignals(), QualitySignals(), 0.01, MinEffects()) == ()
