"""Process recorded prompts: run the checks that are due, raise alarms, and publish ready windows.

The result depends only on earlier events, the live versions, their references and the ratings of their replies. Every
result is an event of the log, so replaying the log gives the same state. COMPASS, section 3.3.2. The triggers are in
`core.drift`, one check is in `drift_check`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.clustering.versions import ClusterSpace, load_space_clusterer, resolve_space
from compass_ray.config import RunConfig
from compass_ray.core.drift import DriftState, StalenessState
from compass_ray.models.errors import ModelError
from compass_ray.monitoring.client_share import ClientShare, PromptEntry, is_counted
from compass_ray.monitoring.drift_check import (
    build_reference,
    build_staleness_bounds,
    build_trigger,
    check_event,
    staleness_event,
)
from compass_ray.monitoring.language_monitor import Event, LanguageMonitorState, ReferenceDistribution
from compass_ray.monitoring.reassignment import ClusterReassigner
from compass_ray.monitoring.references import read_published_reference, read_reference, recompute_reference
from compass_ray.monitoring.reply_quality import RatingLookup, signals_to_record
from compass_ray.monitoring.traffic_log import TrafficLog
from compass_ray.monitoring.window_store import WindowStore
from compass_ray.records.references import ReferenceRecord
from compass_ray.registry import read_pointer

logger = logging.getLogger(__name__)

ReferenceLookup = Callable[[str, str], ReferenceDistribution | None]
"""Returns the reference of an adapter version by language and version, None if it has none."""


class EventProcessor:
    """Derives events from prompts, one by one, and applies them to the states of the log."""

    def __init__(
        self,
        run: RunDir,
        config: RunConfig,
        log: TrafficLog,
        window_store: WindowStore,
        clock: Callable[[], float],
        count_ratings: RatingLookup,
        reassigner: ClusterReassigner,
        references: ReferenceLookup | None = None,
    ) -> None:
        """Prepare the trigger; ``references`` defaults to the references stored in the run."""
        self.run, self.log, self.window_store, self.clock = run, log, window_store, clock
        self.drift, self.seed = config.drift, config.seed
        self.count_ratings, self.reassigner = count_ratings, reassigner
        self.share = ClientShare(config, log.retention_policy)
        self.trigger = build_trigger(config.drift)
        self.bounds = build_staleness_bounds(config.drift)
        self.find_reference = references or StoredReferences(run, config, reassigner).get
        self._references: dict[tuple[str, str, str], ReferenceDistribution | None] = {}

    def invalidate_reference(self, language: str, version: str) -> None:
        """Read the reference of a version again when it is next needed."""
        self._references = {key: each for key, each in self._references.items() if key[:2] != (language, version)}

    def process(self, prompts: Sequence[PromptEntry]) -> list[Event]:
        """Apply prompts and everything that is due between them; returns all events in order.

        Raises:
            ArtifactError, OSError: a window could not be written; nothing took effect.
        """
        events: list[Event] = []
        try:
            for prompt in prompts:
                state = self.log.language_state(prompt.event["language"])
                self._process_prompt(state, self.share.limit(state, prompt), events)
        except BaseException:
            self.log.rebuild()
            raise
        return events

    def reassign(self, languages: Iterable[str]) -> list[Event]:
        """Move windows to their current cluster spaces, and publish a ready window again after a move.

        Raises:
            ArtifactError, OSError: a window could not be written; nothing took effect.
        """
        events: list[Event] = []
        try:
            for state in map(self.log.language_state, languages):
                if event := self.reassigner.reassignment_event(state):
                    self.log.apply_event(event, events)
                    self._emit_ready_window(state, events)
        except BaseException:
            self.log.rebuild()
            raise
        return events

    def cooldown_fields(self, language: str, times: int) -> Event:
        """The fields of an event that starts ``times`` cool-downs of a language's trigger."""
        checks = math.ceil(self.drift.cooldown / self.drift.check_every) * times
        return {"language": language, "trigger": asdict(DriftState(streak=0, cooldown=checks))}

    def _process_prompt(self, state: LanguageMonitorState, prompt: Event, events: list[Event]) -> None:
        self.log.apply_event(prompt, events)
        state = self.log.language_state(state.language)  # the first event of a language stores its state
        if is_counted(prompt):
            self._emit_ready_window(state, events)
        if state.needs_baseline:
            signals = signals_to_record(state.reply_signals(self.count_ratings))
            self.log.apply_event({"event": "baseline", "language": state.language, "signals": signals}, events)
        if is_counted(prompt):
            self._run_due_checks(state, events)
        elif state.excluded % state.size == 0:
            message = "monitor: %d prompts did not count, language=%s: of clients beyond drift.share_per_key=%g, or repeated"
            logger.warning(message, state.excluded, state.language, self.drift.share_per_key)

    def _run_due_checks(self, state: LanguageMonitorState, events: list[Event]) -> None:
        if state.num_prompts % self.drift.check_every or not state.is_full:
            return
        self.reassigner.refresh()
        self._sync_live_version(state, events)
        reference = self._reference(state)
        if reference is not None and reference.space_id == state.space_id:  # otherwise the window moves before the next prompts
            self._check(state, reference, events)
            self._check_staleness(state, reference, events)

    def _emit_ready_window(self, state: LanguageMonitorState, events: list[Event]) -> None:
        if state.is_window_fresh:
            self.log.apply_event({"event": "offer", "language": state.language, "file": self.window_store.write(state)}, events)

    def _sync_live_version(self, state: LanguageMonitorState, events: list[Event]) -> None:
        try:
            version = read_pointer(self.run, state.language).version
        except ArtifactError as error:  # the server reports it too; traffic is still recorded
            message = "monitor: live pointer unreadable, keeping the version language=%s version=%s: %s"
            logger.warning(message, state.language, state.version, error)
            return
        if version is not None and version != state.version:
            times = 0 if state.version is None else 1
            self.log.apply_event({"event": "reset", "version": version, **self.cooldown_fields(state.language, times)}, events)

    def _check(self, state: LanguageMonitorState, reference: ReferenceDistribution, events: list[Event]) -> None:
        try:
            event = check_event(state, reference, self.trigger, self.count_ratings, self.seed, self.clock())
        except ValueError as error:  # a reference of another clustering; traffic is still recorded
            logger.warning("monitor: drift check failed, language=%s version=%s: %s", state.language, state.version, error)
            return
        self.log.apply_event(event, events)

    def _check_staleness(self, state: LanguageMonitorState, reference: ReferenceDistribution, events: list[Event]) -> None:
        if reference.guide_fit is None:
            return
        event = staleness_event(state, reference.guide_fit, self.bounds, self.reassigner.fingerprint, self.clock())
        if (event["clusters"], StalenessState(**event["state"])) != (state.clusters, state.staleness):
            self.log.apply_event(event, events)

    def _reference(self, state: LanguageMonitorState) -> ReferenceDistribution | None:
        if state.version is None:
            return None
        key = (state.language, state.version, self.reassigner.clusters)
        if key not in self._references:
            self._references[key] = self.find_reference(state.language, state.version)
        return self._references[key]


class StoredReferences:
    """References from the run: as stored, or recomputed for the active clustering."""

    def __init__(self, run: RunDir, config: RunConfig, reassigner: ClusterReassigner) -> None:
        """Prepare; nothing is read yet."""
        self.run, self.config, self.reassigner = run, config, reassigner

    def get(self, language: str, version: str) -> ReferenceDistribution | None:
        """The reference of a version, None if it has none or it cannot be recomputed."""
        clusters = self.reassigner.clusters
        try:
            if read_published_reference(self.run, language, version) is None:
                return None
            record = read_reference(self.run, clusters, language, version) or self._recompute(clusters, language, version)
            space = resolve_space(self.run, clusters, language, version)
        except (ArtifactError, ModelError, OSError, ValueError) as error:
            message = "monitor: no reference, language=%s version=%s clustering=%s: %s"
            logger.error(message, language, version, clusters, error)
            return None
        return build_reference(self.config.drift, version, record, space.space_id)

    def _recompute(self, clusters: str, language: str, version: str) -> ReferenceRecord:
        clusterer = load_space_clusterer(self.run, ClusterSpace(clusters))
        return recompute_reference(self.config, self.run, clusters, language, version, clusterer, self.reassigner.assigner.embed)
