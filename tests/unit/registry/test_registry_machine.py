"""The registry against a model: any sequence of changes, some refused, leaves the state of the model."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from compass_ray import registry
from compass_ray.artifacts import Identity, RunDir, jsonl_log
from compass_ray.config import parse_config
from compass_ray.models.model_resolver import model_identity
from compass_ray.registry import AdapterName, Canary, RegistryError

BASE = "organisation/model"
COMPLETE = ("v0001", "v0002", "v0003")
VERSIONS = st.sampled_from((*COMPLETE, *COMPLETE, "v0004", "v0005"))
"""The last two: trained on another base model, and missing."""


class RegistryMachine(RuleBasedStateMachine):
    """The model: a stack of live versions (its top is live), a pin, a canary, a shadow, and the number of changes."""

    @initialize(served=st.lists(st.sampled_from(COMPLETE), max_size=3), pinned=st.booleans())
    def begin(self, served: list[str], pinned: bool) -> None:
        """Three servable versions and one for another base model; some were live before, and maybe pinned."""
        self.folder = tempfile.mkdtemp()
        self.run = RunDir(self.folder)
        self.run.write_config(parse_config({"languages": ["sw"], "train": {"base_model": BASE}}))
        for version in (*COMPLETE, "v0004"):
            made_for = model_identity(BASE if version in COMPLETE else "organisation/other", None)
            writer = self.run.adapter("sw", version).begin(Identity("train", {"base_model": made_for, "v": version}, {}))
            writer.write_bytes("adapter_model.safetensors", version.encode())
            writer.publish()
        self.clock = map(float, itertools.count(1)).__next__
        self.stack: list[str] = []
        self.pinned, self.changes = False, 0
        self.canary: Canary | None = None
        self.shadow: str | None = None
        for version in served:
            self.promote(version, force=False)
        if pinned:
            self.pin()

    def teardown(self) -> None:
        """Delete the run."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def _try(self, change: Callable[[], Any], allowed: bool) -> bool:
        """Make a change that the model allows or not. A refused one leaves the pointer unchanged."""
        before = self.run.live("sw")
        try:
            change()
        except RegistryError:
            assert not allowed
            assert self.run.live("sw") == before
            return False
        assert allowed
        self.changes += self.run.live("sw") != before
        return True

    def _moved(self) -> None:
        self.canary = None if self.canary and self.canary.version == self.stack[-1] else self.canary
        self.shadow = None if self.shadow == self.stack[-1] else self.shadow

    def _may_be_candidate(self, version: str) -> bool:
        return bool(self.stack) and version in COMPLETE and version != self.stack[-1]

    @rule(version=VERSIONS, force=st.booleans())
    def promote(self, version: str, force: bool) -> None:
        same = self.stack[-1:] == [version]
        allowed = version in COMPLETE and (force or same or not self.pinned)
        if self._try(lambda: registry.promote(self.run, "sw", version, force=force, clock=self.clock), allowed) and not same:
            self.stack.append(version)
            self._moved()

    @rule()
    def roll_back(self) -> None:
        allowed = len(self.stack) > 1 and not self.pinned
        if self._try(lambda: registry.roll_back(self.run, "sw", clock=self.clock), allowed):
            self.stack.pop()
            self._moved()

    @rule()
    def pin(self) -> None:
        if self._try(lambda: registry.pin(self.run, "sw", clock=self.clock), bool(self.stack) and not self.canary):
            self.pinned = True

    @precondition(lambda self: self.pinned)
    @rule()
    def unpin(self) -> None:
        self._try(lambda: registry.unpin(self.run, "sw", clock=self.clock), True)
        self.pinned = False

    @rule(version=VERSIONS, share=st.sampled_from((0.1, 0.5)))
    def start_canary(self, version: str, share: float) -> None:
        free = not self.pinned and (self.canary is None or self.canary.version == version)
        change = lambda: registry.set_canary(self.run, "sw", version, share, clock=self.clock)  # noqa: E731
        if self._try(change, self._may_be_candidate(version) and free):
            self.canary = Canary(version, share)

    @rule()
    def end_canary(self) -> None:
        self._try(lambda: registry.stop_canary(self.run, "sw", clock=self.clock), self.canary is not None)
        self.canary = None

    @rule(version=VERSIONS)
    def start_shadow(self, version: str) -> None:
        if self._try(lambda: registry.set_shadow(self.run, "sw", version, clock=self.clock), self._may_be_candidate(version)):
            self.shadow = version

    @rule()
    def end_shadow(self) -> None:
        self._try(lambda: registry.stop_shadow(self.run, "sw", clock=self.clock), self.shadow is not None)
        self.shadow = None

    @invariant()
    def replicas_see_the_model(self) -> None:
        found = registry.read_catalogue(self.run, ["sw"])
        assert found.live == ({"sw": self.stack[-1]} if self.stack else {})
        assert found.canaries == ({"sw": self.canary} if self.canary else {})
        assert found.shadows == ({"sw": self.shadow} if self.shadow else {})
        assert not found.problems
        named = [*found.live.values(), *found.shadows.values(), *(canary.version for canary in found.canaries.values())]
        for version in named:
            registry.verify_servable(self.run, AdapterName("sw", version))
        assert len(set(named)) == len(named) or (self.canary and self.canary.version == self.shadow)

    @invariant()
    def the_history_is_what_was_live_in_order(self) -> None:
        live = registry.read_pointer(self.run, "sw").live
        if live is None:
            assert not self.stack
            return
        assert [past.version for past in live.history] == self.stack[:-1]
        assert (live.pinned is not None) == self.pinned
        since = [past.since for past in (*live.history, live)]
        assert all(time is not None for time in since)

    @invariant()
    def every_change_is_logged_in_order(self) -> None:
        lines = jsonl_log.read(self.run, "decisions.jsonl")
        assert len(lines) == self.changes
        assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
        moves = [line for line in lines if line["kind"] in ("promotion", "rollback")]
        assert [line["from"] for line in moves] == [None, *(line["to"] for line in moves)][: len(moves)]


class TestRegistry(RegistryMachine.TestCase):
    settings = settings(max_examples=10, stateful_step_count=15, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
class TestRegistryLonger(RegistryMachine.TestCase):
    settings = settings(max_examples=40, stateful_step_count=15, suppress_health_check=list(HealthCheck))
