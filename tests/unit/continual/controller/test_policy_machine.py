"""Any order of alarms, verdicts, kills, ratings, pins and hours: what may never happen to a language does not."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from compass_ray.config import parse_config
from compass_ray.continual.controller.actions import (
    Action,
    DiscardWindow,
    Promote,
    ResetReference,
    RollBack,
    StartUpdate,
    StopCanary,
)
from compass_ray.continual.controller.policy import decide
from compass_ray.continual.controller.state import ControllerState
from tests.unit.continual.controller.world import BAD, GOOD, World
from tests.unit.fakes import BASE

SHARE = {"window": 40, "check_every": 10}


class Adapting(RuleBasedStateMachine):
    """One language, whatever happens to it, and turns in between."""

    @initialize(promotion=st.sampled_from(["immediate", "canary", "manual"]), hours=st.sampled_from([None, "22:00-06:00"]))
    def begin(self, promotion: str, hours: str | None) -> None:
        update = {"promotion": promotion, "hours": hours, "canary_replies": 40}
        self.config = parse_config({"languages": ["sw"], "train": {"base_model": BASE}, "drift": SHARE, "update": update})
        self.world, self.memory = World(promotion), ControllerState()

    @rule(kept=st.booleans())
    def turn(self, kept: bool) -> None:
        """Look, decide, do; where not ``kept`` the keeper is killed before it notes what to remember."""
        world, seen = self.world, self.world.situation()
        turn = decide(seen, self.memory, self.config, world.moment)
        if turn.action:
            self._may(turn.action)
        world.do(turn.action)
        self.memory = turn.state if kept else self.memory

    def _may(self, action: Action) -> None:
        world, hour = self.world, self.world.moment.hour
        assert not world.pinned, "a pinned language is left alone"
        assert world.updating is None, "one thing at a time"
        match action:
            case StartUpdate(window):
                verdict = next((each for each in world.judged if each.window == window), None)
                assert window == world.window
                assert verdict is None or verdict.version not in world.dropped | {world.live, world.canary}
                assert verdict is None or verdict.accepted or verdict.version not in world.recorded
                if window not in world.begun:
                    assert self.config.update.schedule_utc is None or hour >= 22 or hour < 6
                    assert world.canary is None
            case Promote(version):
                assert version == world.canary
                assert version not in world.dropped
                assert world.signals.get(version) is not BAD
            case StopCanary(version):
                assert version == world.canary
                assert world.signals[version] is BAD
            case RollBack(version, before):
                assert (version, before) == (world.live, world.history[-1])
                assert world.signals[version] is BAD
            case ResetReference(version):
                assert version == world.live
            case DiscardWindow():
                verdict = next((each for each in world.judged if each.window == world.window), None)
                assert verdict is not None
                assert verdict.version != world.live

    @rule()
    def alarm(self) -> None:
        self.world.offer()
        self.turn(kept=True)

    @precondition(lambda self: self.world.updating)
    @rule(accepted=st.booleans(), served=st.booleans())
    def gate(self, accepted: bool, served: bool) -> None:
        self.world.end_update(accepted=accepted, served=served)

    @precondition(lambda self: self.world.updating)
    @rule()
    def fail(self) -> None:
        self.world.fail_update()

    @precondition(lambda self: self.world.updating)
    @rule()
    def kill(self) -> None:
        """Keeper and update die together; nothing is known of the attempt but what it had begun."""
        self.world.updating = None

    @rule(prompts=st.integers(0, 60), bad=st.booleans())
    def answer(self, prompts: int, bad: bool) -> None:
        """Prompts are answered; what is tried is rated well or badly, the version before well."""
        world = self.world
        judged = {each.version for each in world.judged if each.accepted}
        tried = world.canary or (world.live if world.live in judged else None)
        rated = {tried: BAD if bad else GOOD} if tried else {}
        world.replies(dict.fromkeys((world.live, *world.history[-1:]), GOOD) | rated, prompts)
        self.turn(kept=True)

    @rule(hours=st.integers(1, 12))
    def wait(self, hours: int) -> None:
        self.world.pass_(3600 * hours)

    @precondition(lambda self: self.world.updating is None and self.world.canary in (None, "target"))
    @rule(canary=st.sampled_from([None, "target"]))
    def person_tries_a_version(self, canary: str | None) -> None:
        self.world.canary = canary

    @precondition(lambda self: not self.world.canary)
    @rule(pinned=st.booleans())
    def pin(self, pinned: bool) -> None:
        self.world.pinned = pinned

    @invariant()
    def no_window_has_two_verdicts(self) -> None:
        windows = [each.window for each in self.world.judged]
        assert len(windows) == len(set(windows))

    @invariant()
    def what_was_taken_off_traffic_stays_off(self) -> None:
        assert self.world.live not in self.world.dropped
        assert self.world.canary not in self.world.dropped

    @invariant()
    def nothing_is_taken_back_once_it_is_settled(self) -> None:
        assert not set(self.memory.settled) & self.world.dropped


TestAdapting = Adapting.TestCase
