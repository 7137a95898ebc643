"""The traffic monitor: windows of prompts by language, drift checks, feedback, and windows that are ready for updates.

When `record`, `record_feedback` or `record_canary_answers` returns, its input is on disk. A restarted monitor continues
with the same windows, phases and triggers. Checks run at fixed prompt counts with seeded generators, so batching does not
change results. Stored prompt data is deleted when it expires. COMPASS, section 3.3.2.
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
from compass_ray.monitoring.steady_clock import SteadyClock
from compass_ray.monitoring.traffic_log import TrafficLog, ready_windows
from compass_ray.monitoring.window_store import WindowStore

logger = logging.getLogger(__name__)


class TrafficMonitor:
    """The monitor of one run. Not safe for several threads: one owner calls it."""

    def __init__(
        self,
        run: RunDir,
        config: RunConfig,
        assigner: PromptAssignerProtocol,
        clock: Callable[[], float],
        *,
        elapsed: Callable[[], float] | None = None,
        references: ReferenceLookup | None = None,
    ) -> None:
        """Rebuild the state from the run's log, or start with an empty one.

        ``clock`` returns Unix seconds and may jump. ``elapsed`` returns the seconds of a monotonic clock; without it, ``clock``
        never jumps, as in a simulation.
        """
        self.run = run
        self.config = config
        self.drift = config.drift
        self.retention_period = RetentionPeriod.from_days(self.drift.retention_days)
        self.elapsed = elapsed or clock
        self.clock = SteadyClock(clock, self.elapsed, self.retention_period.sweep_interval)
        self.rejected = self.duplicates = 0
        self.retention_policy = load_retention_policy(run, self.drift.retention)
        self.log = TrafficLog(run, config, self.retention_policy)
        corrections = CorrectionLog(run, self.retention_policy, self.log.find_prompt)
        self.window_store = WindowStore(run, self.retention_period)
        self.feedback = FeedbackLog(
            run,
            self.retention_policy,
            corrections,
            max_ratings_per_client(self.drift.min_bad_feedback_increase),
            limits_networks=self.drift.share_per_key < 1.0,
        )
        self.journals = (self.log.journal, self.feedback.journal, corrections.journal)
        self.reassigner = ClusterReassigner(run, assigner)
        self.ingest = Ingest(config.languages, self.retention_policy, assigner, self.clock)
        self.processor = EventProcessor(
            run, config, self.log, self.window_store, self.clock, self.feedback.count_ratings, self.reassigner, references
        )
        if elapsed:
            times = (self.log.newest_time(), self.feedback.newest_time())
            self.clock.compare_with(max((time for time in times if time is not None), default=None))
        self._next_sweep = -math.inf
        self.erase_expired()

    def record(self, observations: Sequence[Observation]) -> Acknowledgement:
        """Record answered prompts and run the checks that are due; everything is on disk on return.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts.
        """
        self.erase_expired()
        filtered = self.ingest.filter(observations, self.log.recent_replies)
        spaces = self._sync_windows({each.language for each in filtered.new})
        entries = self.ingest.make_entries(filtered.new, spaces)
        self.log.commit(self.processor.process(entries))
        rejected = filtered.rejected + len(filtered.new) - len(entries)
        self.duplicates += filtered.duplicates
        self.rejected += rejected
        return Acknowledgement(len(entries), filtered.duplicates, rejected)

    def record_feedback(self, feedback: Sequence[Feedback]) -> Acknowledgement:
        """Record client feedback on replies; it is on disk on return.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts.
        """
        self.erase_expired()
        return self.feedback.add(feedback, self.log.recent_replies, self._recent_reply_ids, self.clock())

    def record_canary_answers(self, answers: Sequence[CanaryAnswers]) -> Acknowledgement:
        """Record how versions answered canary questions; it is on disk on return.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts.
        """
        events: list[Event] = []
        valid = [each for each in answers if is_valid_canary_answers(each, self.config.languages)]
        for each in valid:
            if not self.log.language_state(each.language).reply_quality.has_canary_round(each.version, each.time):
                self.log.apply_event({"event": "canaries", **asdict(each)}, events)
        self.log.commit(events)
        return Acknowledgement(len(events), len(valid) - len(events), len(answers) - len(valid))

    def signals(self, language: str) -> dict[str, QualitySignals]:
        """Quality signals of the last replies of each recent version of a language.

        Raises:
            ValueError: it is not a language of the run.
        """
        replies = self.log.language_state(language).reply_quality
        return {version: replies.signals(version, self.feedback.count_ratings) for version in replies.versions}

    def ready(self) -> list[WindowReady]:
        """Windows that are ready for an update."""
        return ready_windows(self.log.states.values())

    def reset_reference(self, language: str, version: str) -> None:
        """Compare with the reference of ``version`` from now on, after one cool-down."""
        self.processor.invalidate_reference(language, version)
        self._apply_and_commit({"event": "reset", "version": version, **self.processor.cooldown_fields(language, 1)})

    def discard_window(self, language: str) -> None:
        """Discard the window and resume monitoring, with a cool-down that doubles with each window discarded in a row."""
        state = self.log.language_state(language)
        if state.phase is not Phase.MONITORING:
            self._apply_and_commit({"event": "release", **self.processor.cooldown_fields(language, 2 ** (state.rejections + 1))})

    def status(self) -> dict[str, Any]:
        """Window, phase, checks and ratings of every language, counts of what was left out, and the retention setting."""
        self.erase_expired()
        ratings = self.feedback.ratings_by_language()
        return {
            "languages": {code: self._describe(state, ratings) for code, state in sorted(self.log.states.items())},
            "checks": {code: summarize_checks(lines) for code, lines in sorted(self.log.recent_checks.items())},
            "rejected": self.rejected,
            "damaged_lines": {each.file: each.num_rejected for each in self.journals if each.num_rejected},
            "duplicates": self.duplicates,
            "retention": {"keeps": self.drift.retention, "days": self.drift.retention_days},
        }

    def sync_clusters(self) -> None:
        """Move every window to the active clustering, also without traffic.

        Raises:
            ArtifactError, OSError: it could not be written; nothing took effect.
        """
        self.reassigner.refresh()
        self._sync_windows(list(self.log.states))

    def erase_expired(self) -> None:
        """Delete expired prompt data if a sweep is due; otherwise free.

        Sweeps are due by elapsed time. One look at a clock that is far ahead deletes nothing (see `SteadyClock`). A failure
        (a full disk, an unreachable store) is logged and retried at the next call.
        """
        now, elapsed = self.clock.confirmed(), self.elapsed()
        if elapsed < self._next_sweep:
            return
        try:
            self._erase(self.retention_period.cutoff(now))
        except (ArtifactError, OSError) as error:
            logger.error("monitor: deletion of expired prompts failed, will retry: %s", error)
            return
        self._next_sweep = elapsed + self.retention_period.sweep_interval

    def _erase(self, horizon: float) -> None:
        if math.isinf(self._next_sweep):  # partial files of a killed monitor
            for file in self.run.monitor_files():
                if file.endswith(PARTIAL):
                    self.run.delete_monitor(file)
        self.log.erase(horizon)
        self.window_store.erase(self.retention_policy, horizon)
        self.feedback.erase(horizon)

    def _recent_reply_ids(self, language: str, version: str) -> list[str]:
        state = self.log.states.get(language)
        return state.reply_quality.reply_ids(version) if state else []

    def _describe(self, state: LanguageMonitorState, ratings: Mapping[str, dict[str, int]]) -> dict[str, Any]:
        return {
            "phase": state.phase.value,
            "prompts": state.num_prompts,
            "window": len(state.window),
            "window_size": state.size,
            "fresh": state.fresh,
            "excluded": state.excluded,
            "version": state.version,
            "mean_nll": state.mean_nll(),
            "noise": state.noise(),
            "distance": state.distance(),
            "clusters": state.space_id,
            "stale": state.staleness.stale,
            "last_check": state.last_check,
            "ratings": ratings.get(state.language, {}),
            "replies": {version: summarize_signals(signals) for version, signals in self.signals(state.language).items()},
            "baseline": summarize_signals(signals_from_record(state.baseline)) if state.baseline else None,
        }

    def _sync_windows(self, languages: Collection[str]) -> dict[str, ClusterSpace]:
        """Move windows to their current cluster spaces; returns the spaces by language."""
        self.log.commit(self.processor.reassign(sorted(languages)))
        return {code: self.reassigner.space_for(self.log.language_state(code)) for code in languages}

    def _apply_and_commit(self, event: Event) -> None:
        events: list[Event] = []
        self.log.apply_event(event, events)
        self.log.commit(events)
