"""What follows from prompts that were taken in: checks that fall due, alarms, and the offer of a fresh window.

Key property: it depends on nothing but the events so far, the served versions, their references and what users said of their
replies, and each consequence is an event itself, so a log that is followed again gives the same. COMPASS, section 3.3.2. The
triggers are `core.drift`, one check of one is `checks`.
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

logger = logging.getLogger(__name__)

ReferenceLookup = Callable[[str, str], ReferenceDistribution | None]
"""Reference of a language's adapter version, None where it has none."""


class EventProcessor:
    """Works out, prompt by prompt, which events follow, and lets them take effect in the log's watches."""

    def __init__(
        self,
        run: RunDir,
        config: RunConfig,
        log: TrafficLog,
        offers: WindowStore,
        clock: Callable[[], float],
        ratings: RatingLookup,
        moves: ClusterReassigner,
        references: ReferenceLookup | None = None,
    ) -> None:
        """Read references from the run's adapters where none are given."""
        self.run, self.log, self.window_store, self.clock = run, log, offers, clock
        self.drift, self.seed = config.drift, config.seed
        self.count_ratings, self.reassigner = ratings, moves
        self.trigger = build_trigger(config.drift)
        self.bounds = build_staleness_bounds(config.drift)
        self.find_reference = references or StoredReferences(run, config, moves).get
        self._references: dict[tuple[str, str, str], ReferenceDistribution | None] = {}

    def invalidate_reference(self, language: str, version: str) -> None:
        """Read the reference of a version anew when it is next needed."""
        self._references = {key: found for key, found in self._references.items() if key[:2] != (language, version)}

    def process(self, prompts: Sequence[Event]) -> list[Event]:
        """The prompts as events, and everything that falls due between them, in order.

        Raises:
            ArtifactError, OSError: a window could not be written; nothing took effect then.
        """
        events: list[Event] = []
        try:
            for prompt in prompts:
                self.log.apply_event(prompt, events)
                self._run_due_checks(self.log.language_state(prompt["language"]), events)
        except BaseException:
            self.log.rebuild()
            raise
        return events

    def reassign(self, languages: Iterable[str]) -> list[Event]:
        """Windows that are to lie elsewhere are placed there, and one that waited for an update is offered from there.

        Raises:
            ArtifactError, OSError: a window could not be written; nothing took effect then.
        """
        events: list[Event] = []
        try:
            for watch in map(self.log.language_state, languages):
                if event := self.reassigner.reassignment_event(watch):
                    self.log.apply_event(event, events)
                    self._emit_ready_window(watch, events)
        except BaseException:
            self.log.rebuild()
            raise
        return events

    def cooldown_fields(self, language: str, times: int) -> Event:
        """The fields of an event after which a language's trigger is silent for so many cool-downs."""
        checks = math.ceil(self.drift.cooldown / self.drift.check_every) * times
        return {"language": language, "trigger": asdict(DriftState(streak=0, cooldown=checks))}

    def _run_due_checks(self, watch: LanguageMonitorState, events: list[Event]) -> None:
        """Whatever falls due after a prompt: the offer of a fresh window, a check."""
        self._emit_ready_window(watch, events)
        if watch.needs_baseline:
            signals = signals_to_record(watch.reply_signals(self.count_ratings))
            self.log.apply_event({"event": "baseline", "language": watch.language, "signals": signals}, events)
        if watch.seen % self.drift.check_every or not watch.is_full:
            return
        self.reassigner.refresh()
        self._sync_live_version(watch, events)
        reference = self._reference(watch)
        if reference is not None and reference.space_id == watch.place:  # else the window moves before the next prompts
            self._check(watch, reference, events)
            self._check_staleness(watch, reference, events)

    def _emit_ready_window(self, watch: LanguageMonitorState, events: list[Event]) -> None:
        if watch.is_window_fresh:
            self.log.apply_event({"event": "offer", "language": watch.language, "file": self.window_store.write(watch)}, events)

    def _sync_live_version(self, watch: LanguageMonitorState, events: list[Event]) -> None:
        try:
            pointer = self.run.live(watch.language)
        except ArtifactError as error:  # whoever serves says so too; traffic is still recorded
            logger.warning("what is live of %s cannot be read, it is watched as %s: %s", watch.language, watch.version, error)
            return
        version = pointer["version"] if pointer else None
        if version is not None and version != watch.version:
            silent = 0 if watch.version is None else 1
            self.log.apply_event({"event": "reset", "version": version, **self.cooldown_fields(watch.language, silent)}, events)

    def _check(self, watch: LanguageMonitorState, reference: ReferenceDistribution, events: list[Event]) -> None:
        try:
            event = check_event(watch, reference, self.trigger, self.count_ratings, self.seed, self.clock())
        except ValueError as error:  # a reference of other clusters: traffic is still recorded
            logger.warning("%s cannot be checked against %s: %s", watch.language, watch.version, error)
            return
        self.log.apply_event(event, events)

    def _check_staleness(self, watch: LanguageMonitorState, reference: ReferenceDistribution, events: list[Event]) -> None:
        if reference.guide_fit is None:
            return
        event = staleness_event(watch, reference.guide_fit, self.bounds, self.reassigner.fingerprint, self.clock())
        if (event["clusters"], StalenessState(**event["state"])) != (watch.clusters, watch.staleness):
            self.log.apply_event(event, events)

    def _reference(self, watch: LanguageMonitorState) -> ReferenceDistribution | None:
        if watch.version is None:
            return None
        key = (watch.language, watch.version, self.reassigner.clusters)
        if key not in self._references:
            self._references[key] = self.find_reference(watch.language, watch.version)
        return self._references[key]


class StoredReferences:
    """References from the run: as they were left, or made anew in the clusters that are in use."""

    def __init__(self, run: RunDir, config: RunConfig, moves: ClusterReassigner) -> None:
        """Read nothing yet."""
        self.run, self.config, self.reassigner = run, config, moves

    def get(self, language: str, version: str) -> ReferenceDistribution | None:
        """The reference of a version, None where it has none, or one that cannot be made anew."""
        clusters = self.reassigner.clusters
        try:
            if read_published_reference(self.run, language, version) is None:
                return None
            found = read_reference(self.run, clusters, language, version) or self._recompute(clusters, language, version)
            place = resolve_space(self.run, clusters, language, version)
        except (ArtifactError, ModelError, FileNotFoundError) as error:
            logger.error("%s cannot be compared with %s in clusters %s: %s", language, version, clusters, error)
            return None
        return build_reference(self.config.drift, version, found, place.space_id)

    def _recompute(self, clusters: str, language: str, version: str) -> ReferenceRecord:
        clusterer = load_space_clusterer(self.run, ClusterSpace(clusters))
        return recompute_reference(self.config, self.run, clusters, language, version, clusterer, self.reassigner.assigner.embed)
