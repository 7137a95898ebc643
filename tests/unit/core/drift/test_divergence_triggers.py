"""Triggers as state machines: alarms, state, and the rate of false alarms."""

import numpy as np
import pytest

from compass_ray.core.drift import DriftState, FixedThresholdTrigger, PermutationTestTrigger, Trigger, paper_reference

REFERENCE, SAME, MOVED = [40, 40, 20, 0], [42, 38, 19, 1], [5, 5, 40, 50]


def alarms(trigger: Trigger, windows: list[list[int]], seed: int = 0) -> list[bool]:
    state, rng, found = DriftState(), np.random.default_rng(seed), []
    for window in windows:
        decision = trigger.check(state, REFERENCE, window, rng)
        state = decision.state
        found.append(decision.alarm)
    return found


def test_a_fixed_threshold_alarms_at_every_window_above_it() -> None:
    assert alarms(FixedThresholdTrigger(), [SAME, MOVED, MOVED, SAME]) == [False, True, True, False]
    assert alarms(FixedThresholdTrigger(cooldown=1), [MOVED, MOVED, MOVED]) == [True, False, True]


def test_the_permutation_test_waits_for_a_second_consecutive_window() -> None:
    trigger = PermutationTestTrigger(cooldown=0)
    assert alarms(trigger, [MOVED, SAME, MOVED, MOVED]) == [False, False, False, True]


def test_the_permutation_test_cools_down_after_an_alarm_and_restarts() -> None:
    trigger = PermutationTestTrigger(cooldown=2)
    assert alarms(trigger, [MOVED] * 7) == [False, True, False, False, False, True, False]


def test_a_significant_shift_below_the_floor_is_no_alarm() -> None:
    decision = PermutationTestTrigger(persistence=1).check(
        DriftState(), [5000, 5000, 0], [5600, 4400, 0], np.random.default_rng(0)
    )
    assert decision.p_value is not None
    assert decision.p_value < 0.01
    assert not decision.exceeded


def test_small_windows_of_many_clusters_alarm_only_with_a_fixed_threshold() -> None:
    rng = np.random.default_rng(0)
    reference, windows = rng.multinomial(285, [1 / 57] * 57), rng.multinomial(100, [1 / 57] * 57, size=40)
    wrong = {}
    for trigger in (FixedThresholdTrigger(), PermutationTestTrigger(persistence=1)):
        state = DriftState()
        wrong[type(trigger)] = sum(trigger.check(state, reference, w, rng).alarm for w in windows)
    assert wrong[FixedThresholdTrigger] > 10
    assert wrong[PermutationTestTrigger] <= 2


def test_a_decision_records_its_inputs() -> None:
    decision = PermutationTestTrigger().check(DriftState(), REFERENCE, MOVED, np.random.default_rng(0))
    assert (decision.trigger, decision.threshold, decision.false_alarm_rate) == ("permutation_test", 0.05, 0.01)
    assert (decision.n_reference, decision.n_window) == (100, 100)
    assert (decision.noise_reference, decision.noise_window) == (0.0, 0.5)
    assert decision.divergence > 0.05
    assert decision.state == DriftState(streak=1)


def test_the_paper_reference_adds_the_selected_rows() -> None:
    assert paper_reference([2, 0, 1], [0, 5, 0]).tolist() == [2, 5, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resamples": 50}, "never alarms"),
        ({"persistence": 0}, "persistence is 0"),
        ({"false_alarm_rate": 2}, "from 0"),
    ],
)
def test_a_trigger_that_could_never_alarm_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PermutationTestTrigger(**change)


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(ValueError, match="all counts are zero"):
        FixedThresholdTrigger().check(DriftState(), REFERENCE, [0, 0, 0, 0], np.random.default_rng(0))
