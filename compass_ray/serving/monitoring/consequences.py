"""What follows from prompts that were taken in: checks that fall due, alarms, and the offer of a fresh window.

Key property: it depends on nothing but the events so far, the served versions, their references and what users said of their
replies, and each consequence is an event itself, so a log that is followed again gives the same. COMPASS, section 3.3.2. The
triggers are `core.drift`, one check of one is `checks`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import RunConfig
from compass_ray.core.drift import DriftState, Staleness
from compass_ray.models.errors import ModelError
from compass_ray.serving.monitoring.checks import build_bounds, build_trigger, check_event, reference_of, staleness_event
from compass_ray.serving.monitoring.moves import Moves
from compass_ray.serving.monitoring.offers import Offers
from compass_ray.serving.monitoring.references import own_reference, recomputed, stored_reference
from compass_ray.serving.monitoring.replies import Ratings, as_record
from compass_ray.serving.monitoring.traffic_log import TrafficLog
from compass_ray.serving.monitoring.windows import Event, Reference, Watch
from compass_ray.watched_clusters import Place, clusterer_at, place_of

logger = logging.getLogger(__name__)

References = Callable[[str, str], Reference | None]
"""Reference of a language's adapter version, None where it has none."""


class Consequences:
    """Works out, prompt by prompt, which events follow, and lets them take effect in the log's watches."""

    def __init__(
        self,
        run: RunDir,
        config: RunConfig,
        log: TrafficLog,
        offers: Offers,
        clock: Callable[[], float],
        ratings: Ratings,
        moves: Moves,
        references: References | None = None,
    ) -> None:
        """Read references from the run's adapters where none are given."""
        self.run, self.log, self.offers, self.clock = run, log, offers, clock
        self.drift, self.seed = config.drift, config.seed
        self.ratings, self.moves = ratings, moves
        self.trigger = build_trigger(config.drift)
        self.bounds = build_bounds(config.drift)
        self.references = references or StoredReferences(run, config, moves).of
        self._references: dict[tuple[str, str, str], Reference | None] = {}

    def forget(self, language: str, version: str) -> None:
        """Read the reference of a version anew when it is next needed."""
        self._references = {key: found for key, found in self._references.items() if key[:2] != (language, version)}

    def of(self, prompts: Sequence[Event]) -> list[Event]:
        """The prompts as events, and everything that falls due between them, in order.

        Raises:
            ArtifactError, OSError: a window could not be written; nothing took effect then.
        """
        events: list[Event] = []
        try:
            for prompt in prompts:
                self.log.follow(prompt, events)
                self._consider(self.log.watch(prompt["language"]), events)
        except BaseException:
            self.log.rebuild()
            raise
        return events

    def moved(self, languages: Iterable[str]) -> list[Event]:
        """Windows that are to lie elsewhere are placed there, and one that waited for an update is offered from there.

        Raises:
            ArtifactError, OSError: a window could not be written; nothing took effect then.
        """
        events: list[Event] = []
        try:
            for watch in map(self.log.watch, languages):
                if event := self.moves.due(watch):
                    self.log.follow(event, events)
                    self._offer(watch, events)
        except BaseException:
            self.log.rebuild()
            raise
        return events

    def silence(self, language: str, times: int) -> Event:
        """The fields of an event after which a language's trigger is silent for so many cool-downs."""
        checks = math.ceil(self.drift.cooldown / self.drift.check_every) * times
        return {"language": language, "trigger": asdict(DriftState(streak=0, cooldown=checks))}

    def _consider(self, watch: Watch, events: list[Event]) -> None:
        """Whatever falls due after a prompt: the offer of a fresh window, a check."""
        self._offer(watch, events)
        if watch.settled:
            signals = as_record(watch.signals(self.ratings))
            self.log.follow({"event": "baseline", "language": watch.language, "signals": signals}, events)
        if watch.seen % self.drift.check_every or not watch.full:
            return
        self.moves.look()
        self._adopt_served(watch, events)
        reference = self._reference(watch)
        if reference is not None and reference.place == watch.place:  # else the window moves before the next prompts
            self._check(watch, reference, events)
            self._consider_clusters(watch, reference, events)

    def _offer(self, watch: Watch, events: list[Event]) -> None:
        if watch.collected:
            self.log.follow({"event": "offer", "language": watch.language, "file": self.offers.write(watch)}, events)

    def _adopt_served(self, watch: Watch, events: list[Event]) -> None:
        try:
            pointer = self.run.live(watch.language)
        except ArtifactError as error:  # whoever serves says so too; traffic is still recorded
            logger.warning("what is live of %s cannot be read, it is watched as %s: %s", watch.language, watch.version, error)
            return
        version = pointer["version"] if pointer else None
        if version is not None and version != watch.version:
            silent = 0 if watch.version is None else 1
            self.log.follow({"event": "reset", "version": version, **self.silence(watch.language, silent)}, events)

    def _check(self, watch: Watch, reference: Reference, events: list[Event]) -> None:
        try:
            event = check_event(watch, reference, self.trigger, self.ratings, self.seed, self.clock())
        except ValueError as error:  # a reference of other clusters: traffic is still recorded
            logger.warning("%s cannot be checked against %s: %s", watch.language, watch.version, error)
            return
        self.log.follow(event, events)

    def _consider_clusters(self, watch: Watch, reference: Reference, events: list[Event]) -> None:
        if reference.guide is None:
            return
        event = staleness_event(watch, reference.guide, self.bounds, self.moves.fingerprint, self.clock())
        if (event["clusters"], Staleness(**event["state"])) != (watch.clusters, watch.staleness):
            self.log.follow(event, events)

    def _reference(self, watch: Watch) -> Reference | None:
        if watch.version is None:
            return None
        key = (watch.language, watch.version, self.moves.clusters)
        if key not in self._references:
            self._references[key] = self.references(watch.language, watch.version)
        return self._references[key]


class StoredReferences:
    """References from the run: as they were left, or made anew in the clusters that are in use."""

    def __init__(self, run: RunDir, config: RunConfig, moves: Moves) -> None:
        """Read nothing yet."""
        self.run, self.config, self.moves = run, config, moves

    def of(self, language: str, version: str) -> Reference | None:
        """The reference of a version, None where it has none, or one that cannot be made anew."""
        clusters = self.moves.clusters
        try:
            if own_reference(self.run, language, version) is None:
                return None
            found = stored_reference(self.run, clusters, language, version) or self._anew(clusters, language, version)
            place = place_of(self.run, clusters, language, version)
        except (ArtifactError, ModelError, FileNotFoundError) as error:
            logger.error("%s cannot be compared with %s in clusters %s: %s", language, version, clusters, error)
            return None
        return reference_of(self.config.drift, version, found, place.mark)

    def _anew(self, clusters: str, language: str, version: str) -> Mapping[str, Any]:
        clusterer = clusterer_at(self.run, Place(clusters))
        return recomputed(self.config, self.run, clusters, language, version, clusterer, self.moves.placer.embed)
