"""Random sequences of alarms, verdicts, kills, ratings, pins and hours: the invariants of a language hold."""

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
from tests.unit.continual.controller.simulated_language import BAD, GOOD, SimulatedLanguage
from tests.unit.fakes import BASE

SHARE = {"window": 40, "check_every": 10}


class ControllerMachine(RuleBasedStateMachine):
    """Random events of one language, with reconcile cycles in between."""

    @initialize(promotion=st.sampled_from(["immediate", "canary", "manual"]), hours=st.sampled_from([None, "22:00-06:00"]))
    def begin(self, promotion: str, hours: str | None) -> None:
        update = {"promotion": promotion, "schedule_utc": hours, "canary_replies": 40}
        self.config = parse_config({"languages": ["sw"], "train": {"base_model": BASE}, "drift": SHARE, "update": update})
        self.simulated, self.state = SimulatedLanguage(promotion), ControllerState()

    @rule(saved=st.booleans())
    def reconcile(self, saved: bool) -> None:
        """Observe, decide, execute; without ``saved`` the controller is killed before it saves its state."""
        simulated, observed = self.simulated, self.simulated.observe()
        decision = decide(observed, self.state, self.config, simulated.moment)
        if decision.action:
            self._check_allowed(decision.action)
        simulated.execute(decision.action)
        self.state = decision.state if saved else self.state

    def _check_allowed(self, action: Action) -> None:
        simulated, hour = self.simulated, self.simulated.moment.hour
        assert not simulated.pinned, "a pinned language is never changed"
        assert simulated.updating is None, "a language has one update at a time"
        match action:
            case StartUpdate(window):
                verdict = next((each for each in simulated.verdicts if each.window == window), None)
                assert window == simulated.window
                assert verdict is None or verdict.version not in simulated.dropped | {simulated.live, simulated.canary}
                assert verdict is None or verdict.accepted or verdict.version not in simulated.recorded
                if window not in simulated.started:
                    assert self.config.update.schedule_utc is None or hour >= 22 or hour < 6
                    assert simulated.canary is None
            case Promote(version):
                assert version == simulated.canary
                assert version not in simulated.dropped
                assert simulated.signals.get(version) is not BAD
            case StopCanary(version):
                assert version == simulated.canary
                assert simulated.signals[version] is BAD
            case RollBack(version, previous):
                assert (version, previous) == (simulated.live, simulated.history[-1])
                assert simulated.signals[version] is BAD
            case ResetReference(version):
                assert version == simulated.live
            case DiscardWindow():
                verdict = next((each for each in simulated.verdicts if each.window == simulated.window), None)
                assert verdict is not None
                assert verdict.version != simulated.live

    @rule()
    def alarm(self) -> None:
        self.simulated.window_ready()
        self.reconcile(saved=True)

    @precondition(lambda self: self.simulated.updating)
    @rule(accepted=st.booleans(), served=st.booleans())
    def gate(self, accepted: bool, served: bool) -> None:
        self.simulated.end_update(accepted=accepted, served=served)

    @precondition(lambda self: self.simulated.updating)
    @rule()
    def fail(self) -> None:
        self.simulated.fail_update()

    @precondition(lambda self: self.simulated.updating)
    @rule()
    def kill(self) -> None:
        """Controller and update are killed together; the attempt leaves only its unfinished window."""
        self.simulated.updating = None

    @rule(prompts=st.integers(0, 60), bad=st.booleans())
    def answer(self, prompts: int, bad: bool) -> None:
        """Prompts are answered; the version under evaluation is rated well or badly, the previous version well."""
        simulated = self.simulated
        accepted = {each.version for each in simulated.verdicts if each.accepted}
        evaluated = simulated.canary or (simulated.live if simulated.live in accepted else None)
        rated = {evaluated: BAD if bad else GOOD} if evaluated else {}
        simulated.replies(dict.fromkeys((simulated.live, *simulated.history[-1:]), GOOD) | rated, prompts)
        self.reconcile(saved=True)

    @rule(hours=st.integers(1, 12))
    def wait(self, hours: int) -> None:
        self.simulated.advance(3600 * hours)

    @precondition(lambda self: self.simulated.updating is None and self.simulated.canary in (None, "target"))
    @rule(canary=st.sampled_from([None, "target"]))
    def person_starts_or_stops_a_canary(self, canary: str | None) -> None:
        self.simulated.canary = canary

    @precondition(lambda self: not self.simulated.canary)
    @rule(pinned=st.booleans())
    def pin(self, pinned: bool) -> None:
        self.simulated.pinned = pinned

    @invariant()
    def no_window_has_two_verdicts(self) -> None:
        windows = [each.window for each in self.simulated.verdicts]
        assert len(windows) == len(set(windows))

    @invariant()
    def dropped_versions_are_not_served_again(self) -> None:
        assert self.simulated.live not in self.simulated.dropped
        assert self.simulated.canary not in self.simulated.dropped

    @invariant()
    def graduated_versions_are_not_rolled_back(self) -> None:
        assert not set(self.state.settled) & self.simulated.dropped


TestController = ControllerMachine.TestCase
