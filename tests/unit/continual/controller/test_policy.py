"""What follows from a language's situation, case by case."""

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
from tests.unit.continual.controller.world import BAD, GOOD, World
from tests.unit.fakes import BASE

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
JUDGED = GateVerdict("v0002", "abc", "v0001", True)
OFFERED = LanguageState("sw", prompts=100, live="v0001", ready_window=ReadyWindow("abc"))
UPDATED = replace(OFFERED, live="v0002", before="v0001", judged=(JUDGED,), offered=None)


def config(**update: object) -> RunConfig:
    return parse_config(
        {
            "languages": ["sw"],
            "train": {"base_model": BASE},
            "drift": {"window": 40, "check_every": 10},
            "update": update,
        }
    )


def after(seen: LanguageState, **update: object) -> object:
    return decide(seen, ControllerState(), config(**update), NOON).action


@pytest.mark.parametrize(
    ("seen", "action"),
    [
        (OFFERED, StartUpdate("abc")),
        (replace(OFFERED, offered=None), None),
        (replace(OFFERED, updating=True), None),
        (replace(OFFERED, pinned=True), None),
        (replace(OFFERED, live=None), None),
        (replace(OFFERED, canary="target"), None),
        (replace(OFFERED, offered=ReadyWindow(None, "all noise")), DiscardWindow("all noise")),
        (replace(OFFERED, judged=(replace(JUDGED, accepted=False),)), StartUpdate("abc")),
        (
            replace(OFFERED, judged=(replace(JUDGED, accepted=False),), recorded=frozenset({"v0002"})),
            DiscardWindow("the gate refused v0002"),
        ),
        (replace(OFFERED, judged=(JUDGED,), dropped=frozenset({"v0002"})), DiscardWindow("v0002 is not served")),
        (replace(OFFERED, judged=(JUDGED,), live="v0007"), StartUpdate("abc")),
        (
            replace(OFFERED, judged=(JUDGED,), live="v0007", recorded=frozenset({"v0002"})),
            DiscardWindow("v0002 is not served"),
        ),
        (replace(OFFERED, judged=(JUDGED,)), StartUpdate("abc")),
        (replace(UPDATED, offered=ReadyWindow("abc")), ResetReference("v0002")),
    ],
)
def test_the_offered_window_is_answered_once(seen: LanguageState, action: object) -> None:
    assert after(seen) == action


def test_what_is_left_to_a_person_is_not_put_on_traffic() -> None:
    judged = replace(OFFERED, judged=(JUDGED,))
    assert after(judged, promotion="manual") == StartUpdate("abc"), "its verdict comes on record first"
    assert after(replace(judged, recorded=frozenset({"v0002"})), promotion="manual") == DiscardWindow("v0002 is not served")


def test_a_run_that_is_to_stay_as_it_is_lets_its_windows_go() -> None:
    assert after(OFFERED, strategy="static") == DiscardWindow("nothing is trained, as update.strategy is static")


def test_updates_begin_within_their_hours_and_end_whenever() -> None:
    assert after(OFFERED, hours="22:00-06:00") is None
    assert after(OFFERED, hours="11:00-13:00") == StartUpdate("abc")
    assert after(replace(OFFERED, unfinished="abc"), hours="22:00-06:00") == StartUpdate("abc")
    assert after(replace(OFFERED, unfinished="another"), hours="22:00-06:00") is None


@pytest.mark.parametrize(("times", "pause"), [(1, 5), (2, 10), (3, 20), (11, 3600)])
def test_an_attempt_that_failed_is_made_again_after_a_pause_that_doubles(times: int, pause: int) -> None:
    def failed(ago: float) -> LanguageState:
        return replace(OFFERED, unfinished="abc", failed=RetryState(times, NOON.timestamp() - ago))

    assert after(failed(pause - 1)) is None
    assert after(failed(pause)) == StartUpdate("abc")


def test_a_window_whose_attempts_never_come_to_a_verdict_is_let_go() -> None:
    found = after(replace(OFFERED, unfinished="abc", failed=RetryState(12, NOON.timestamp())))
    assert isinstance(found, DiscardWindow)
    assert "12 attempts in a row came to no verdict" in found.reason


def test_a_trial_ends_once_the_version_it_is_compared_with_is_live_no_more() -> None:
    def at(prompts: int, memory: ControllerState, **now: object) -> ControllerDecision:
        tried = replace(OFFERED, prompts=prompts, offered=None, canary="v0002", judged=(JUDGED,))
        return decide(replace(tried, **now), memory, config(promotion="canary"), NOON)

    trying = at(100, ControllerState()).state
    assert trying.trial
    assert at(101, trying, live="v0007", updating=True) == ControllerDecision(trying), "what is under way ends first"
    ended = at(101, trying, live="v0007")
    assert ended.action == StopCanary("v0002", "it was compared with v0001, and v0007 is live since")
    assert ended.state.trial is None
    assert at(101, trying, live="v0007", canary="v0003").action is None, "a person's own"
    assert at(101, ControllerState(), live="v0007").action is None, "a person's own, of a version that an update made"


def _live_since(prompts: int) -> ControllerState:
    return decide(replace(UPDATED, prompts=prompts), ControllerState(), config(), NOON).state


def test_a_version_that_is_worse_at_two_looks_in_a_row_is_rolled_back() -> None:
    bad = replace(UPDATED, signals={"v0001": GOOD, "v0002": BAD})
    first = decide(replace(bad, prompts=110), _live_since(100), config(), NOON)
    assert first.action is None
    again = decide(replace(bad, prompts=119), first.state, config(), NOON)
    assert again.action is None, "no look is due"
    second = decide(replace(bad, prompts=120), first.state, config(), NOON)
    assert isinstance(second.action, RollBack)
    assert (second.action.version, second.action.previous) == ("v0002", "v0001")
    assert "share of replies rated bad +0.883" in second.action.reason
    assert [leg.name for leg in second.action.tests] == ["feedback"]
    recovered = decide(replace(bad, prompts=120, signals={"v0001": GOOD, "v0002": GOOD}), first.state, config(), NOON)
    assert decide(replace(bad, prompts=130), recovered.state, config(), NOON).action is None


def test_a_version_is_settled_after_two_windows() -> None:
    seen = replace(UPDATED, signals={"v0001": GOOD, "v0002": GOOD})
    memory = _live_since(100)
    for prompts in range(110, 181, 10):
        assert memory.trial, "it is compared until then"
        memory = decide(replace(seen, prompts=prompts), memory, config(), NOON).state
    assert (memory.trial, memory.settled) == (None, ("v0002",))
    bad = replace(seen, signals={"v0001": GOOD, "v0002": BAD})
    for prompts in range(190, 300, 10):
        turn = decide(replace(bad, prompts=prompts), memory, config(), NOON)
        memory = turn.state
        assert turn.action is None


def test_no_update_begins_from_a_version_that_may_not_stay() -> None:
    seen = replace(UPDATED, offered=ReadyWindow("next"), signals={"v0001": GOOD, "v0002": GOOD})
    assert decide(seen, ControllerState(), config(), NOON).action is None
    assert decide(seen, ControllerState(settled=("v0002",)), config(), NOON).action == StartUpdate("next")


def test_what_a_person_put_on_traffic_stays_there() -> None:
    for seen in (
        replace(UPDATED, before="v0009"),
        replace(UPDATED, dropped=frozenset({"v0002"})),
        replace(UPDATED, judged=()),
        replace(UPDATED, judged=(replace(JUDGED, accepted=False),)),
    ):
        assert decide(seen, ControllerState(), config(), NOON).state.trial is None


def _losses(level: float) -> QualitySignals:
    return QualitySignals(nll=np.linspace(level, level + 0.5, 40))


@pytest.mark.parametrize(("moved", "taken_back"), [(False, True), (True, False)])
def test_a_loss_counts_against_the_version_s_own_first_window_and_for_prompts_of_its_kind(moved: bool, taken_back: bool) -> None:
    sure = replace(UPDATED, signals={"v0001": _losses(0.1), "v0002": _losses(1.0)})
    memory = _live_since(100)
    for prompts in (110, 120, 130, 140):
        turn = decide(replace(sure, prompts=prompts), memory, config(), NOON)
        assert turn.action is None, "what another version says of its own replies is no measure"
        memory = turn.state
    worse = replace(sure, signals={"v0001": _losses(0.1), "v0002": _losses(2.0)}, moved=moved)
    actions = []
    for prompts in (150, 160):
        turn = decide(replace(worse, prompts=prompts), memory, config(), NOON)
        memory = turn.state
        actions.append(turn.action)
    assert actions[0] is None
    assert isinstance(actions[1], RollBack) == taken_back


def _trying(tried: QualitySignals, prompts: int = 100) -> LanguageState:
    seen = replace(OFFERED, canary="v0002", judged=(JUDGED,), prompts=prompts)
    return replace(seen, signals={"v0001": GOOD, "v0002": tried})


def test_a_canary_is_promoted_once_it_has_answered_enough_and_ended_if_it_is_worse() -> None:
    begun = decide(_trying(QualitySignals()), ControllerState(), config(promotion="canary", canary_replies=30), NOON).state
    few, enough = replace(GOOD, nll=np.ones(29)), replace(GOOD, nll=np.ones(30))
    worse = replace(BAD, nll=np.ones(30))
    actions = [
        decide(_trying(tried, 110), begun, config(promotion="canary", canary_replies=30), NOON).action
        for tried in (few, enough, worse)
    ]
    assert actions[0] is None
    assert isinstance(actions[1], Promote)
    assert isinstance(actions[2], StopCanary)
    assert "as a canary no worse than v0001" in actions[1].reason
    assert "worse than v0001" in actions[2].reason


def test_a_canary_that_is_worse_twice_is_ended_early() -> None:
    rules = config(promotion="canary", canary_replies=40)
    bad = replace(BAD, nll=np.ones(21))
    begun = decide(_trying(QualitySignals()), ControllerState(), rules, NOON).state
    first = decide(_trying(bad, 110), begun, rules, NOON)
    assert first.action is None
    assert isinstance(decide(_trying(bad, 120), first.state, rules, NOON).action, StopCanary)


def test_a_canary_of_which_nothing_can_be_compared_says_so() -> None:
    rules = config(promotion="canary", canary_replies=30)
    begun = decide(_trying(QualitySignals()), ControllerState(), rules, NOON).state
    action = decide(_trying(QualitySignals(nll=np.ones(30)), 110), begun, rules, NOON).action
    assert isinstance(action, Promote)
    assert action.reason == "as a canary no worse than v0001: no ratings and no answers to compare"


def test_questions_go_to_what_is_compared_and_none_twice_to_one_version() -> None:
    rules, seen = config(canary_questions=4), replace(UPDATED, questions=10)
    memory, asked = ControllerState(), []
    for prompts in range(0, 70, 5):
        turn = decide(replace(seen, prompts=prompts), memory, rules, NOON)
        memory = turn.state
        if turn.canary_round:
            asked.append((prompts, turn.canary_round))
            memory = record_round(memory, turn.canary_round)
    assert asked == [(10, CanaryRound(("v0002", "v0001"), 0, 4)), (20, CanaryRound(("v0002", "v0001"), 4, 4))]


def test_the_live_version_alone_is_asked_once_a_window() -> None:
    rules, seen = config(canary_questions=4), replace(OFFERED, offered=None, questions=100)
    memory, asked = ControllerState(), []
    for prompts in range(0, 130, 10):
        turn = decide(replace(seen, prompts=prompts), memory, rules, NOON)
        memory = turn.state if turn.canary_round is None else record_round(turn.state, turn.canary_round)
        asked += [(prompts, turn.canary_round.position)] if turn.canary_round else []
    assert asked == [(40, 0), (80, 4), (120, 8)]
    assert all(
        decide(replace(seen, prompts=p), ControllerState(), config(canary_questions=0), NOON).canary_round is None
        for p in (40, 80)
    )


@pytest.mark.parametrize("promotion", ["immediate", "canary"])
def test_from_alarm_to_a_settled_version(promotion: str) -> None:
    world, memory, rules = World(promotion), ControllerState(), config(promotion=promotion, canary_replies=40)

    def turn() -> None:
        nonlocal memory
        found = decide(world.situation(), memory, rules, world.moment)
        world.do(found.action)
        memory = found.state

    world.offer()
    turn()
    world.end_update(accepted=True)
    for _ in range(30):
        world.replies({"v0001": GOOD, "v0002": GOOD}, 10)
        turn()
    kinds = [type(action) for action in world.done]
    assert kinds == ([StartUpdate, ResetReference] if promotion == "immediate" else [StartUpdate, Promote, ResetReference])
    assert (world.live, memory.settled, world.window) == ("v0002", ("v0002",), None)
