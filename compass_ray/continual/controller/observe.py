"""Read the state of a language from the run directory and the monitor.

Reads only state that can change. Immutable records are cached, and per-cycle data is read at most once. If nothing
happened in a language, only its live pointer is read.
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
from compass_ray.records.decisions import CanaryEndedRecord, Decision, GateDecisionRecord, RollbackRecord
from compass_ray.records.times import to_unix_seconds
from compass_ray.records.updates import GateRecord
from compass_ray.registry import LivePointer


class ReplyReader(Protocol):
    """Source of reply quality; see `monitor_actor.MonitorClient`."""

    def signals(self, language: str) -> Mapping[str, QualitySignals]:
        """Quality signals of the last replies of each version."""
        ...


@dataclass(frozen=True)
class UpdateAttempts:
    """Whether an update of a language is running, and its earlier failures."""

    updating: bool = False
    retry: RetryState = field(default_factory=RetryState)


@dataclass
class Observer:
    """Observes languages; caches immutable records for its lifetime and everything else for one cycle."""

    run: RunDir
    config: RunConfig
    replies: ReplyReader
    _complete_versions: Mapping[str, Sequence[str]] | None = None
    _decisions: Sequence[Decision] | None = None
    _gate_verdicts: dict[tuple[str, str], GateVerdict] = field(default_factory=dict)
    _ready_windows: dict[str, ReadyWindow] = field(default_factory=dict)
    _canary_items: dict[str, tuple[CanaryItem, ...]] = field(default_factory=dict)

    def start_cycle(self) -> None:
        """Discard what was cached for the last cycle."""
        self._complete_versions = self._decisions = None

    def observe(
        self, language: str, summary: Mapping[str, Any], ready: WindowReady | None, attempts: UpdateAttempts
    ) -> LanguageState:
        """The state of a language, given the monitor's summary of it and its ready window.

        Raises:
            ArtifactError: the live pointer or a gate verdict is damaged, or a store is unreachable.
        """
        live = registry.read_pointer(self.run, language).live or LivePointer(version="")
        previous = live.history[-1].version if live.history else None
        canary = live.canary.version if live.canary else None
        observed = LanguageState(
            language=language,
            prompts=int(summary["prompts"]),
            live=live.version or None,
            previous=previous,
            canary=canary,
            pinned=live.pinned is not None,
            ready_window=self.check_window(ready) if ready else None,
            updating=attempts.updating,
            retry=attempts.retry,
            drifted=bool((summary.get("last_check") or {}).get("drifted")),
            gate_verdicts=self._read_gate_verdicts(language),
            num_canary_items=len(self.canary_items(language)),
        )
        return self._load_details(observed) if ready or canary or observed.verdict_for(live.version) else observed

    def canary_items(self, language: str) -> tuple[CanaryItem, ...]:
        """The canary questions of a language, in order of asking."""
        if language not in self._canary_items:
            self._canary_items[language] = load_canary_items(self.config, self.run, language)
        return self._canary_items[language]

    def check_window(self, ready: WindowReady) -> ReadyWindow:
        """The window's name, or why no update can use it."""
        if ready.file not in self._ready_windows:
            self._ready_windows[ready.file] = _load_ready_window(self.run, ready)
        return self._ready_windows[ready.file]

    def _load_details(self, observed: LanguageState) -> LanguageState:
        if self._decisions is None:
            self._decisions = registry.read_decisions(self.run)
        return replace(
            observed,
            unfinished=_unfinished_window(self.run, observed.language) if observed.ready_window else None,
            recorded=recorded_versions(self._decisions, observed.language),
            dropped=dropped_versions(self._decisions, observed.language),
            update_times=gate_times(self._decisions, observed.language),
            signals=self.replies.signals(observed.language),
        )

    def _read_gate_verdicts(self, language: str) -> tuple[GateVerdict, ...]:
        if self._complete_versions is None:
            self._complete_versions = self.run.complete_adapters()
        versions = self._complete_versions.get(language, ())
        verdicts = [self._read_gate_verdict(language, version) for version in versions if version != FIRST_VERSION]
        return tuple(verdict for verdict in verdicts if verdict)

    def _read_gate_verdict(self, language: str, version: str) -> GateVerdict | None:
        cached = self._gate_verdicts.get((language, version))
        if cached:
            return cached
        update = self.run.update(language, version)
        manifest = update.manifest()
        if manifest is None:
            return None
        gate = GateRecord.read(update)
        verdict = GateVerdict(version, str(manifest.config.get("window")), str(gate.from_version), bool(gate.accepted))
        self._gate_verdicts[language, version] = verdict
        return verdict


def dropped_versions(decisions: Iterable[Decision], language: str) -> frozenset[str]:
    """Versions of a language that were taken out of service: rolled back, or stopped as a canary.

    >>> back = RollbackRecord(language="sw", from_version="v0003", to_version="v0002")
    >>> ended = CanaryEndedRecord(language="sw", from_version="v0002", to_version="v0004")
    >>> sorted(dropped_versions([back, ended], "sw"))
    ['v0003', 'v0004']
    """
    own = [each for each in decisions if each.language == language]
    back = {str(each.from_version) for each in own if isinstance(each, RollbackRecord)}
    return frozenset(back | {each.to_version for each in own if isinstance(each, CanaryEndedRecord)})


def recorded_versions(decisions: Iterable[Decision], language: str) -> frozenset[str]:
    """Versions of a language with a recorded gate decision."""
    return frozenset(each.to_version for each in decisions if isinstance(each, GateDecisionRecord) and each.language == language)


def gate_times(decisions: Iterable[Decision], language: str) -> tuple[float, ...]:
    """Times of the gate decisions of a language, in Unix seconds; those without a readable time are left out.

    >>> gate_times([GateDecisionRecord(language="sw", to_version="v0002", time="1970-01-01T00:01:00+00:00")], "sw")
    (60.0,)
    """
    gates = (each for each in decisions if isinstance(each, GateDecisionRecord) and each.language == language)
    return tuple(time for each in gates if (time := to_unix_seconds(each.time)) is not None)


def _load_ready_window(run: RunDir, ready: WindowReady) -> ReadyWindow:
    try:
        return ReadyWindow(load_ready_window(run, ready).name)
    except ConfigError as error:
        return ReadyWindow(None, str(error))


def _unfinished_window(run: RunDir, language: str) -> str | None:
    selection = run.selection(lineage.next_version(run, language), language).manifest()
    return None if selection is None else selection.config.get("window")
