"""The decision of the controller, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from compass_ray.config import RunConfig, parse_config
from compass_ray.continual.controller.actions import (
    CanaryRound,
    ControllerDecision,
    DiscardWindow,
    Promote,
    ResetReference,
    RollBack,
    StartUpdate,
    StopCanary,
)
from compass_ray.continual.controller.policy import decide, record_round
from compass_ray.continual.controller.state import ControllerState, GateVerdict, LanguageState, ReadyWindow, RetryState
from compass_ray.core.drift.quality_tests import QualitySignals
from tests.unit.continual.controller.simulated_language import BAD, GOOD, SimulatedLanguage
from tests.unit.fakes import BASE

NOT_SERVED = DiscardWindow("v0002 was accepted but is not served")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACCEPTED = GateVerdict("v0002", "abc", "v0001", True)
READY = LanguageState("sw", prompts=100, live="v0001", ready_window=ReadyWindow("abc"))
UPDATED = replace(READY, live="v0002", previous="v0001", gate_verdicts=(ACCEPTED,), ready_window=None)


def config(**update: object) -> RunConfig:
    return parse_config(
        {
            "languages": ["sw"],
            "train": {"base_model": BASE},
            "drift": {"window": 40, "check_every": 10},
            "update": update,
        }
    )


def after(observed: LanguageState, **update: object) -> object:
    return decide(observed, ControllerState(), config(**update), NOON).action


@pytest.mark.parametrize(
    ("observed", "action"),
    [
        (READY, StartUpdate("abc")),
        (replace(READY, ready_window=None), None),
        (replace(READY, updating=True), None),
        (replace(READY, pinned=True), None),
        (replace(READY, live=None), None),
        (replace(READY, canary="target"), None),
        (replace(READY, ready_window=ReadyWindow(None, "all noise")), DiscardWindow("all noise")),
        (replace(READY, gate_verdicts=(replace(ACCEPTED, accepted=False),)), StartUpdate("abc")),
        (
            replace(READY, gate_verdicts=(replace(ACCEPTED, accepted=False),), recorded=frozenset({"v0002"})),
            DiscardWindow("the gate rejected v0002"),
        ),
        (replace(READY, gate_verdicts=(ACCEPTED,), dropped=frozenset({"v0002"})), NOT_SERVED),
        (replace(READY, gate_verdicts=(ACCEPTED,), live="v0007"), StartUpdate("abc")),
        (replace(READY, gate_verdicts=(ACCEPTED,), live="v0007", recorded=frozenset({"v0002"})), NOT_SERVED),
        (replace(READY, gate_verdicts=(ACCEPTED,)), StartUpdate("abc")),
        (replace(UPDATED, ready_window=ReadyWindow("abc")), ResetReference("v0002")),
    ],
)
def test_the_ready_window_leads_to_one_action(observed: LanguageState, action: object) -> None:
    assert after(observed) == action


def test_a_language_has_at_most_the_configured_updates_in_a_day() -> None:
    now = NOON.timestamp()
    busy = replace(READY, update_times=(now - 90_000.0, now - 80_000.0, now - 10.0, now + 400 * 86_400.0))
    assert after(busy, max_per_day=2) is None
    assert after(busy, max_per_day=3) == StartUpdate("abc")
    assert after(busy, max_per_day=None) == StartUpdate("abc")
    assert after(replace(busy, unfinished="abc"), max_per_day=1) == StartUpdate("abc"), "an update that started continues"
    assert after(replace(READY, update_times=(now,) * 4)) is None


def test_manual_promotion_serves_no_version() -> None:
    accepted = replace(READY, gate_verdicts=(ACCEPTED,))
    assert after(accepted, promotion="manual") == StartUpdate("abc"), "its verdict is recorded first"
    assert after(replace(accepted, recorded=frozenset({"v0002"})), promotion="manual") == NOT_SERVED


def test_the_static_strategy_discards_every_window() -> None:
    assert after(READY, strategy="static") == DiscardWindow("nothing is trained: update.strategy is static")


def test_updates_start_within_their_schedule_and_end_at_any_time() -> None:
    assert after(READY, schedule_utc="22:00-06:00") is None
    assert after(READY, schedule_utc="11:00-13:00") == StartUpdate("abc")
    assert after(replace(READY, unfinished="abc"), schedule_utc="22:00-06:00") == StartUpdate("abc")
    assert after(replace(READY, unfinished="another"), schedule_utc="22:00-06:00") is None


@pytest.mark.parametrize(("times", "pause"), [(1, 5), (2, 10), (3, 20), (11, 3600)])
def test_a_failed_attempt_is_retried_after_a_delay_that_doubles(times: int, pause: int) -> None:
    def failed(ago: float) -> LanguageState:
        return replace(READY, unfinished="abc", retry=RetryState(times, ago))

    assert after(failed(pause - 1)) is None
    assert after(failed(pause)) == StartUpdate("abc")


def test_a_window_is_discarded_after_twelve_failed_attempts() -> None:
    found = after(replace(READY, unfinished="abc", retry=RetryState(12, 0.0)))
    assert isinstance(found, DiscardWindow)
    assert "12 consecutive attempts failed" in found.reason


def test_a_canary_stops_once_the_version_it_is_compared_with_is_no_longer_live() -> None:
    def at(prompts: int, state: ControllerState, **now: object) -> ControllerDecision:
        canary = replace(READY, prompts=prompts, ready_window=None, canary="v0002", gate_verdicts=(ACCEPTED,))
        return decide(replace(canary, **now), state, config(promotion="canary"), NOON)

    trying = at(100, ControllerState()).state
    assert trying.trial
    assert at(101, trying, live="v0007", updating=True) == ControllerDecision(trying), "the running update ends first"
    ended = at(101, trying, live="v0007")
    assert ended.action == StopCanary("v0002", "it was compared with v0001, but v0007 is live now")
    assert ended.state.trial is None
    assert at(101, trying, live="v0007", canary="v0003").action is None, "a person's own"
    assert at(101, ControllerState(), live="v0007").action is None, "a person's own, of a version that an update made"


def _live_since(prompts: int) -> ControllerState:
    return decide(replace(UPDATED, prompts=prompts), ControllerState(), config(), NOON).state


def test_a_version_that_is_worse_at_two_consecutive_checks_is_rolled_back() -> None:
    bad = replace(UPDATED, signals={"v0001": GOOD, "v0002": BAD})
    first = decide(replace(bad, prompts=110), _live_since(100), config(), NOON)
    assert first.action is None
    again = decide(replace(bad, prompts=119), first.state, config(), NOON)
    assert again.action is None, "no check is due"
    second = decide(replace(bad, prompts=120), first.state, config(), NOON)
    assert isinstance(second.action, RollBack)
    assert (second.action.version, second.action.previous) == ("v0002", "v0001")
    assert "share of replies rated bad +0.883" in second.action.reason
    assert [test.name for test in second.action.tests] == ["feedback"]
    recovered = decide(replace(bad, prompts=120, signals={"v0001": GOOD, "v0002": GOOD}), first.state, config(), NOON)
    assert decide(replace(bad, prompts=130), recovered.state, config(), NOON).action is None


def test_a_version_graduates_after_two_windows() -> None:
    observed = replace(UPDATED, signals={"v0001": GOOD, "v0002": GOOD})
    state = _live_since(100)
    for prompts in range(110, 181, 10):
        assert state.trial, "it is compared until then"
        state = decide(replace(observed, prompts=prompts), state, config(), NOON).state
    assert (state.trial, state.settled) == (None, ("v0002",))
    bad = replace(observed, signals={"v0001": GOOD, "v0002": BAD})
    for prompts in range(190, 300, 10):
        decision = decide(replace(bad, prompts=prompts), state, config(), NOON)
        state = decision.state
        assert decision.action is None


def test_no_update_starts_from_a_version_under_evaluation() -> None:
    observed = replace(UPDATED, ready_window=ReadyWindow("next"), signals={"v0001": GOOD, "v0002": GOOD})
    assert decide(observed, ControllerState(), config(), NOON).action is None
    assert decide(observed, ControllerState(settled=("v0002",)), config(), NOON).action == StartUpdate("next")


def test_a_version_that_a_person_promoted_is_not_evaluated() -> None:
    for observed in (
        replace(UPDATED, previous="v0009"),
        replace(UPDATED, dropped=frozenset({"v0002"})),
        replace(UPDATED, gate_verdicts=()),
        replace(UPDATED, gate_verdicts=(replace(ACCEPTED, accepted=False),)),
    ):
        assert decide(observed, ControllerState(), config(), NOON).state.trial is None


def _losses(level: float) -> QualitySignals:
    return QualitySignals(nll=np.linspace(level, level + 0.5, 40))


@pytest.mark.parametrize(("drifted", "rolled_back"), [(False, True), (True, False)])
def test_a_loss_is_compared_with_the_version_s_first_window_unless_prompts_drifted(drifted: bool, rolled_back: bool) -> None:
    sure = replace(UPDATED, signals={"v0001": _losses(0.1), "v0002": _losses(1.0)})
    state = _live_since(100)
    for prompts in (110, 120, 130, 140):
        decision = decide(replace(sure, prompts=prompts), state, config(), NOON)
        assert decision.action is None, "losses of another version's replies are not comparable"
        state = decision.state
    worse = replace(sure, signals={"v0001": _losses(0.1), "v0002": _losses(2.0)}, drifted=drifted)
    actions = []
    for prompts in (150, 160):
        decision = decide(replace(worse, prompts=prompts), state, config(), NOON)
        state = decision.state
        actions.append(decision.action)
    assert actions[0] is None
    assert isinstance(actions[1], RollBack) == rolled_back


def _with_canary(canary: QualitySignals, prompts: int = 100) -> LanguageState:
    observed = replace(READY, canary="v0002", gate_verdicts=(ACCEPTED,), prompts=prompts)
    return replace(observed, signals={"v0001": GOOD, "v0002": canary})


def test_a_canary_is_promoted_once_it_has_answered_enough_and_ended_if_it_is_worse() -> None:
    started = decide(_with_canary(QualitySignals()), ControllerState(), config(promotion="canary", canary_replies=30), NOON).state
    few, enough = replace(GOOD, nll=np.ones(29)), replace(GOOD, nll=np.ones(30))
    worse = replace(BAD, nll=np.ones(30))
    actions = [
        decide(_with_canary(canary, 110), started, config(promotion="canary", canary_replies=30), NOON).action
        for canary in (few, enough, worse)
    ]
    assert actions[0] is None
    assert isinstance(actions[1], Promote)
    assert isinstance(actions[2], StopCanary)
    assert "as a canary no worse than v0001" in actions[1].reason
    assert "worse than v0001" in actions[2].reason


def test_a_canary_that_is_worse_twice_is_ended_early() -> None:
    rules = config(promotion="canary", canary_replies=40)
    bad = replace(BAD, nll=np.ones(21))
    started = decide(_with_canary(QualitySignals()), ControllerState(), rules, NOON).state
    first = decide(_with_canary(bad, 110), started, rules, NOON)
    assert first.action is None
    assert isinstance(decide(_with_canary(bad, 120), first.state, rules, NOON).action, StopCanary)


def test_a_canary_without_comparable_data_says_so() -> None:
    rules = config(promotion="canary", canary_replies=30)
    started = decide(_with_canary(QualitySignals()), ControllerState(), rules, NOON).state
    action = decide(_with_canary(QualitySignals(nll=np.ones(30)), 110), started, rules, NOON).action
    assert isinstance(action, Promote)
    assert action.reason == "as a canary no worse than v0001: no ratings and no canary answers to compare"


def test_questions_go_to_the_compared_versions_and_never_twice_to_one_version() -> None:
    rules, observed = config(canary_questions=4), replace(UPDATED, num_canary_items=10)
    state, asked = ControllerState(), []
    for prompts in range(0, 70, 5):
        decision = decide(replace(observed, prompts=prompts), state, rules, NOON)
        state = decision.state
        if decision.canary_round:
            asked.append((prompts, decision.canary_round))
            state = record_round(state, decision.canary_round)
    assert asked == [(10, CanaryRound(("v0002", "v0001"), 0, 4)), (20, CanaryRound(("v0002", "v0001"), 4, 4))]


def test_the_live_version_alone_is_asked_once_a_window() -> None:
    rules, observed = config(canary_questions=4), replace(READY, ready_window=None, num_canary_items=100)
    state, asked = ControllerState(), []
    for prompts in range(0, 130, 10):
        decision = decide(replace(observed, prompts=prompts), state, rules, NOON)
        state = decision.state if decision.canary_round is None else record_round(decision.state, decision.canary_round)
        asked += [(prompts, decision.canary_round.position)] if decision.canary_round else []
    assert asked == [(40, 0), (80, 4), (120, 8)]
    assert all(
        decide(replace(observed, prompts=p), ControllerState(), config(canary_questions=0), NOON).canary_round is None
        for p in (40, 80)
    )


@pytest.mark.parametrize("promotion", ["immediate", "canary"])
def test_from_alarm_to_a_graduated_version(promotion: str) -> None:
    language, state, rules = SimulatedLanguage(promotion), ControllerState(), config(promotion=promotion, canary_replies=40)

    def reconcile() -> None:
        nonlocal state
        decision = decide(language.observe(), state, rules, language.moment)
        language.execute(decision.action)
        state = decision.state

    language.window_ready()
    reconcile()
    language.end_update(accepted=True)
    for _ in range(30):
        language.replies({"v0001": GOOD, "v0002": GOOD}, 10)
        reconcile()
    kinds = [type(action) for action in language.actions]
    assert kinds == ([StartUpdate, ResetReference] if promotion == "immediate" else [StartUpdate, Promote, ResetReference])
    assert (language.live, state.settled, language.window) == ("v0002", ("v0002",), None)
