"""The traffic monitor: windows of prompts by language, drift checks, feedback, and the windows offered for updates.

Key property: when `record`, `rate` or `canaries` returns, what it was given is on disk; a monitor made anew over the same run
directory goes on where that one was, with the same windows, phases and triggers. Checks fall on fixed prompt counts with seeded
generators, so how the traffic was batched changes nothing. What was kept of a prompt is erased when its time is up. COMPASS,
section 3.3.2. It trains nothing and decides nothing about promotion.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.artifacts.atomic_write import PARTIAL
from compass_ray.clustering.versions import ClusterSpace
from compass_ray.config import RunConfig
from compass_ray.core.drift import QualitySignals
from compass_ray.core.drift.quality_tests import max_ratings_per_client
from compass_ray.monitoring.audit_records import summarize_checks
from compass_ray.monitoring.corrections import CorrectionLog
from compass_ray.monitoring.feedback import FeedbackLog
from compass_ray.monitoring.ingest import Ingest, PromptAssignerProtocol
from compass_ray.monitoring.language_monitor import Event, LanguageMonitorState, Phase
from compass_ray.monitoring.observations import (
    Acknowledgement,
    CanaryAnswers,
    Feedback,
    Observation,
    WindowReady,
    is_valid_canary_answers,
)
from compass_ray.monitoring.processor import EventProcessor, ReferenceLookup
from compass_ray.monitoring.reassignment import ClusterReassigner
from compass_ray.monitoring.reply_quality import signals_from_record, summarize_signals
from compass_ray.monitoring.retention import RetentionPeriod, load_retention_policy
from compass_ray.monitoring.traffic_log import TrafficLog
from compass_ray.monitoring.window_store import WindowStore

logger = logging.getLogger(__name__)


class TrafficMonitor:
    """Windows, checks and alarms over one run. Not safe for several threads: one owner calls it."""

    def __init__(
        self,
        run: RunDir,
        config: RunConfig,
        placer: PromptAssignerProtocol,
        clock: Callable[[], float],
        *,
        references: ReferenceLookup | None = None,
    ) -> None:
        """Rebuild the state from the run's log, or start an empty one."""
        self.run = run
        self.config = config
        self.drift = config.drift
        self.clock = clock
        self.rejected = self.duplicates = 0
        self.retention_policy = load_retention_policy(run, self.drift.retention)
        self.log = TrafficLog(run, config, self.retention_policy)
        corrections = CorrectionLog(run, self.retention_policy, self.log.find_prompt)
        self.window_store = WindowStore(run)
        self.feedback = FeedbackLog(
            run, self.retention_policy, corrections, max_ratings_per_client(self.drift.min_bad_feedback_increase)
        )
        self.reassigner = ClusterReassigner(run, placer)
        self.ingest = Ingest(config.languages, self.retention_policy, placer, clock)
        self.processor = EventProcessor(
            run, config, self.log, self.window_store, clock, self.feedback.count_ratings, self.reassigner, references
        )
        self.retention_period, self._next_sweep = RetentionPeriod.from_days(self.drift.retention_days), -math.inf
        self.erase_expired()

    def record(self, observations: Sequence[Observation]) -> Acknowledgement:
        """Take in answered prompts, run the checks that fall due, and put it all on disk.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts then.
        """
        self.erase_expired()
        sifted = self.ingest.filter(observations, self.log.recent_replies)
        places = self._sync_windows({each.language for each in sifted.fresh})
        entries = self.ingest.make_entries(sifted.fresh, places)
        self.log.commit(self.processor.process(entries))
        rejected = sifted.rejected + len(sifted.fresh) - len(entries)
        self.duplicates += sifted.duplicates
        self.rejected += rejected
        return Acknowledgement(len(entries), sifted.duplicates, rejected)

    def record_feedback(self, feedback: Sequence[Feedback]) -> Acknowledgement:
        """Take in what clients said of replies, and put it on disk.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts then.
        """
        self.erase_expired()
        return self.feedback.add(feedback, self.log.recent_replies, self._recent_reply_ids, self.clock())

    def canaries(self, answers: Sequence[CanaryAnswers]) -> Acknowledgement:
        """Take in how versions answered canary questions, and put it on disk.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts then.
        """
        events: list[Event] = []
        sound = [each for each in answers if is_valid_canary_answers(each, self.config.languages)]
        for each in sound:
            if not self.log.language_state(each.language).reply_quality.has_canary_round(each.version, each.time):
                self.log.apply_event({"event": "canaries", **asdict(each)}, events)
        self.log.commit(events)
        return Acknowledgement(len(events), len(sound) - len(events), len(answers) - len(sound))

    def signals(self, language: str) -> dict[str, QualitySignals]:
        """How the last replies of each of the last versions that answered in a language were.

        Raises:
            ValueError: it is none of the run's languages.
        """
        replies = self.log.language_state(language).reply_quality
        return {version: replies.signals(version, self.feedback.count_ratings) for version in replies.versions}

    def ready(self) -> list[WindowReady]:
        """Windows that wait for an update."""
        return [
            WindowReady(watch.language, watch.offered, watch.size, watch.version)
            for watch in self.log.states.values()
            if watch.phase is Phase.READY and watch.offered
        ]

    def reset(self, language: str, version: str) -> None:
        """Compare with the reference of ``version`` from now on; the trigger stays silent for a cool-down."""
        self.processor.invalidate_reference(language, version)
        self._apply_and_commit({"event": "reset", "version": version, **self.processor.cooldown_fields(language, 1)})

    def release(self, language: str) -> None:
        """An update was refused: watch on as before, silent for twice as long after each refusal in a row."""
        watch = self.log.language_state(language)
        if watch.phase is not Phase.MONITORING:
            self._apply_and_commit({"event": "release", **self.processor.cooldown_fields(language, 2 ** (watch.refusals + 1))})

    def status(self) -> dict[str, Any]:
        """Every language's window, phase, checks and ratings, what was turned away, and what is kept for how long."""
        self.erase_expired()
        ratings = self.feedback.ratings_by_language()
        return {
            "languages": {code: self._describe(watch, ratings) for code, watch in sorted(self.log.states.items())},
            "checks": {code: summarize_checks(lines) for code, lines in sorted(self.log.recent_checks.items())},
            "rejected": self.rejected,
            "duplicates": self.duplicates,
            "retention": {"keeps": self.drift.retention, "days": self.drift.retention_days},
        }

    def sync_clusters(self) -> None:
        """Take every window to the clusters that are in use, traffic or none.

        Raises:
            ArtifactError, OSError: it could not be written; nothing took effect then.
        """
        self.reassigner.refresh()
        self._sync_windows(list(self.log.states))

    def erase_expired(self) -> None:
        """Erase what has become too old, where it is time to look; costs nothing otherwise.

        What cannot be erased now (a full disk, a store that is away) is told to the log and tried again at the next call.
        """
        now = self.clock()
        if now < self._next_sweep:
            return
        try:
            self._erase(self.retention_period.cutoff(now))
        except (ArtifactError, OSError) as error:
            logger.error("prompts that are to be erased could not be: %s; tried again", error)
            return
        self._next_sweep = now + self.retention_period.sweep_interval

    def _erase(self, horizon: float) -> None:
        if math.isinf(self._next_sweep):  # what a killed monitor left half written
            for file in self.run.monitor_files():
                if file.endswith(PARTIAL):
                    self.run.delete_monitor(file)
        self.log.erase(horizon)
        self.window_store.erase(self.retention_policy, horizon)
        self.feedback.erase(horizon)

    def _recent_reply_ids(self, language: str, version: str) -> list[str]:
        watch = self.log.states.get(language)
        return watch.reply_quality.reply_ids(version) if watch else []

    def _describe(self, watch: LanguageMonitorState, ratings: Mapping[str, dict[str, int]]) -> dict[str, Any]:
        return {
            "phase": watch.phase.value,
            "prompts": watch.seen,
            "window": len(watch.window),
            "window_size": watch.size,
            "fresh": watch.fresh,
            "version": watch.version,
            "mean_nll": watch.mean_nll(),
            "noise": watch.noise(),
            "distance": watch.distance(),
            "clusters": watch.place,
            "stale": watch.staleness.stale,
            "last_check": watch.last_check,
            "ratings": ratings.get(watch.language, {}),
            "replies": {version: summarize_signals(found) for version, found in self.signals(watch.language).items()},
            "baseline": summarize_signals(signals_from_record(watch.baseline)) if watch.baseline else None,
        }

    def _sync_windows(self, languages: Collection[str]) -> dict[str, ClusterSpace]:
        """Take windows to where their prompts are placed now; returns where that is, by language."""
        self.log.commit(self.processor.reassign(sorted(languages)))
        return {code: self.reassigner.space_for(self.log.language_state(code)) for code in languages}

    def _apply_and_commit(self, event: Event) -> None:
        events: list[Event] = []
        self.log.apply_event(event, events)
        self.log.commit(events)
