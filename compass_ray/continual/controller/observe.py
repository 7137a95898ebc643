"""The situation of a language as it is found: in the run directory, and with the monitor.

Key property: it reads what is not known to stay as it is, and that only where it can matter: of a language that is asked what it
always was, the live pointer. It decides and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from compass_ray import registry
from compass_ray.adapters import lineage
from compass_ray.artifacts import FIRST_VERSION, RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.continual.controller.canary_eval import CanaryItem, load_canary_items
from compass_ray.continual.controller.state import GateVerdict, LanguageState, ReadyWindow, RetryState
from compass_ray.continual.update import load_ready_window
from compass_ray.core.drift import QualitySignals
from compass_ray.monitoring.observations import WindowReady
from compass_ray.registry import LivePointer


class ReplyReader(Protocol):
    """Who knows how replies were; see `monitor_actor.MonitorClient`."""

    def signals(self, language: str) -> Mapping[str, QualitySignals]:
        """How the last replies of each version were."""
        ...


@dataclass(frozen=True)
class UpdateAttempts:
    """Of the updates of one language: whether one is under way, and what failed before."""

    updating: bool = False
    retry: RetryState = field(default_factory=RetryState)


@dataclass
class Observer:
    """Finds out; what never changes once it is there is read once, and the rest once a turn."""

    run: RunDir
    config: RunConfig
    replies: ReplyReader
    _complete_versions: Mapping[str, Sequence[str]] | None = None
    _decisions: Sequence[Mapping[str, Any]] | None = None
    _gate_verdicts: dict[tuple[str, str], GateVerdict] = field(default_factory=dict)
    _ready_windows: dict[str, ReadyWindow] = field(default_factory=dict)
    _canary_items: dict[str, tuple[CanaryItem, ...]] = field(default_factory=dict)

    def start_cycle(self) -> None:
        """A turn begins."""
        self._complete_versions = self._decisions = None

    def observe(
        self, language: str, told: Mapping[str, Any], ready: WindowReady | None, attempts: UpdateAttempts
    ) -> LanguageState:
        """The situation, given what the monitor says of the language and of its window.

        Raises:
            ArtifactError: the live pointer or a verdict is damaged, or a store is out of reach.
        """
        live = registry.read_pointer(self.run, language).live or LivePointer(version="")
        before = live.history[-1].version if live.history else None
        canary = live.canary.version if live.canary else None
        seen = LanguageState(
            language=language,
            prompts=int(told["prompts"]),
            live=live.version or None,
            previous=before,
            canary=canary,
            pinned=live.pinned is not None,
            ready_window=self.check_window(ready) if ready else None,
            updating=attempts.updating,
            retry=attempts.retry,
            drifted=bool((told.get("last_check") or {}).get("drifted")),
            gate_verdicts=self._read_gate_verdicts(language),
            num_canary_items=len(self.canary_items(language)),
        )
        return self._load_details(seen) if ready or canary or seen.verdict_for(live.version) else seen

    def canary_items(self, language: str) -> tuple[CanaryItem, ...]:
        """The canary questions of a language."""
        if language not in self._canary_items:
            self._canary_items[language] = load_canary_items(self.config, self.run, language)
        return self._canary_items[language]

    def check_window(self, ready: WindowReady) -> ReadyWindow:
        """The name of the window's update, or why it can have none."""
        if ready.file not in self._ready_windows:
            self._ready_windows[ready.file] = _load_ready_window(self.run, ready)
        return self._ready_windows[ready.file]

    def _load_details(self, seen: LanguageState) -> LanguageState:
        if self._decisions is None:
            self._decisions = registry.read_decisions(self.run)
        return replace(
            seen,
            unfinished=_unfinished_window(self.run, seen.language) if seen.ready_window else None,
            recorded=recorded_versions(self._decisions, seen.language),
            dropped=dropped_versions(self._decisions, seen.language),
            signals=self.replies.signals(seen.language),
        )

    def _read_gate_verdicts(self, language: str) -> tuple[GateVerdict, ...]:
        if self._complete_versions is None:
            self._complete_versions = self.run.complete_adapters()
        versions = self._complete_versions.get(language, ())
        found = [self._read_gate_verdict(language, version) for version in versions if version != FIRST_VERSION]
        return tuple(each for each in found if each)

    def _read_gate_verdict(self, language: str, version: str) -> GateVerdict | None:
        known = self._gate_verdicts.get((language, version))
        if known:
            return known
        judged = self.run.update(language, version)
        manifest = judged.manifest()
        if manifest is None:
            return None
        gate = judged.read_json("gate.json")
        found = GateVerdict(version, str(manifest.config.get("window")), str(gate["from"]), bool(gate["accepted"]))
        self._gate_verdicts[language, version] = found
        return found


def dropped_versions(decisions: Iterable[Mapping[str, Any]], language: str) -> frozenset[str]:
    """Versions of a language that were ever taken off traffic: rolled back, or as a canary.

    >>> took = [{"kind": "rollback", "language": "sw", "from": "v0003", "to": "v0002"}]
    >>> sorted(dropped_versions([*took, {"kind": "canary ended", "language": "sw", "from": "v0002", "to": "v0004"}], "sw"))
    ['v0003', 'v0004']
    """
    off = {"rollback": "from", "canary ended": "to"}
    own = [each for each in decisions if each.get("language") == language and each.get("kind") in off]
    return frozenset(str(each[off[each["kind"]]]) for each in own)


def recorded_versions(decisions: Iterable[Mapping[str, Any]], language: str) -> frozenset[str]:
    """Versions of a language whose verdict is on record."""
    about = {"kind": "gate", "language": language}
    return frozenset(str(each["to"]) for each in decisions if about.items() <= each.items())


def _load_ready_window(run: RunDir, ready: WindowReady) -> ReadyWindow:
    try:
        return ReadyWindow(load_ready_window(run, ready).name)
    except ConfigError as error:
        return ReadyWindow(None, str(error))


def _unfinished_window(run: RunDir, language: str) -> str | None:
    selected = run.selection(lineage.next_version(run, language), language).manifest()
    return None if selected is None else selected.config.get("window")
