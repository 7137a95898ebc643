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
from compass_ray.artifacts.replacing import PARTIAL
from compass_ray.config import RunConfig
from compass_ray.core.drift import Signals
from compass_ray.core.drift.performance import ratings_of_one
from compass_ray.serving.monitoring.consequences import Consequences, References
from compass_ray.serving.monitoring.corrections import CorrectionLog
from compass_ray.serving.monitoring.feedback import FeedbackLog
from compass_ray.serving.monitoring.intake import Intake, PromptPlacer
from compass_ray.serving.monitoring.moves import Moves
from compass_ray.serving.monitoring.observations import (
    Acknowledged,
    CanaryAnswers,
    Feedback,
    Observation,
    WindowReady,
    sound_canaries,
)
from compass_ray.serving.monitoring.offers import Offers
from compass_ray.serving.monitoring.records import summary
from compass_ray.serving.monitoring.replies import of_record, told
from compass_ray.serving.monitoring.retention import Age, keeper_of
from compass_ray.serving.monitoring.traffic_log import TrafficLog
from compass_ray.serving.monitoring.windows import Event, Phase, Watch
from compass_ray.watched_clusters import Place

logger = logging.getLogger(__name__)


class TrafficMonitor:
    """Windows, checks and alarms over one run. Not safe for several threads: one owner calls it."""

    def __init__(
        self,
        run: RunDir,
        config: RunConfig,
        placer: PromptPlacer,
        clock: Callable[[], float],
        *,
        references: References | None = None,
    ) -> None:
        """Rebuild the state from the run's log, or start an empty one."""
        self.run = run
        self.config = config
        self.drift = config.drift
        self.clock = clock
        self.rejected = self.duplicates = 0
        self.keeper = keeper_of(run, self.drift.retention)
        self.log = TrafficLog(run, config, self.keeper)
        corrections = CorrectionLog(run, self.keeper, self.log.asked)
        self.offers = Offers(run)
        self.feedback = FeedbackLog(run, self.keeper, corrections, ratings_of_one(self.drift.worse_feedback))
        self.moves = Moves(run, placer)
        self.intake = Intake(config.languages, self.keeper, placer, clock)
        self.consequences = Consequences(run, config, self.log, self.offers, clock, self.feedback.rated, self.moves, references)
        self.age, self._next_sweep = Age.of_days(self.drift.retention_days), -math.inf
        self.erase_due()

    def record(self, observations: Sequence[Observation]) -> Acknowledged:
        """Take in answered prompts, run the checks that fall due, and put it all on disk.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts then.
        """
        self.erase_due()
        sifted = self.intake.sift(observations, self.log.replies)
        places = self._settle({each.language for each in sifted.fresh})
        entries = self.intake.entries(sifted.fresh, places)
        self.log.commit(self.consequences.of(entries))
        rejected = sifted.rejected + len(sifted.fresh) - len(entries)
        self.duplicates += sifted.duplicates
        self.rejected += rejected
        return Acknowledged(len(entries), sifted.duplicates, rejected)

    def rate(self, feedback: Sequence[Feedback]) -> Acknowledged:
        """Take in what clients said of replies, and put it on disk.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts then.
        """
        self.erase_due()
        return self.feedback.take(feedback, self.log.replies, self._last_replies, self.clock())

    def canaries(self, answers: Sequence[CanaryAnswers]) -> Acknowledged:
        """Take in how versions answered canary questions, and put it on disk.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts then.
        """
        events: list[Event] = []
        sound = [each for each in answers if sound_canaries(each, self.config.languages)]
        for each in sound:
            if not self.log.watch(each.language).replies.knows(each.version, each.time):
                self.log.follow({"event": "canaries", **asdict(each)}, events)
        self.log.commit(events)
        return Acknowledged(len(events), len(sound) - len(events), len(answers) - len(sound))

    def signals(self, language: str) -> dict[str, Signals]:
        """How the last replies of each of the last versions that answered in a language were.

        Raises:
            ValueError: it is none of the run's languages.
        """
        replies = self.log.watch(language).replies
        return {version: replies.signals(version, self.feedback.rated) for version in replies.versions}

    def ready(self) -> list[WindowReady]:
        """Windows that wait for an update."""
        return [
            WindowReady(watch.language, watch.offered, watch.size, watch.version)
            for watch in self.log.watches.values()
            if watch.phase is Phase.READY and watch.offered
        ]

    def reset(self, language: str, version: str) -> None:
        """Compare with the reference of ``version`` from now on; the trigger stays silent for a cool-down."""
        self.consequences.forget(language, version)
        self._take_effect({"event": "reset", "version": version, **self.consequences.silence(language, 1)})

    def release(self, language: str) -> None:
        """An update was refused: watch on as before, silent for twice as long after each refusal in a row."""
        watch = self.log.watch(language)
        if watch.phase is not Phase.WATCHING:
            self._take_effect({"event": "release", **self.consequences.silence(language, 2 ** (watch.refusals + 1))})

    def status(self) -> dict[str, Any]:
        """Every language's window, phase, checks and ratings, what was turned away, and what is kept for how long."""
        self.erase_due()
        ratings = self.feedback.ratings()
        return {
            "languages": {code: self._told(watch, ratings) for code, watch in sorted(self.log.watches.items())},
            "checks": {code: summary(lines) for code, lines in sorted(self.log.checks.items())},
            "rejected": self.rejected,
            "duplicates": self.duplicates,
            "retention": {"keeps": self.drift.retention, "days": self.drift.retention_days},
        }

    def follow_clusters(self) -> None:
        """Take every window to the clusters that are in use, traffic or none.

        Raises:
            ArtifactError, OSError: it could not be written; nothing took effect then.
        """
        self.moves.look()
        self._settle(list(self.log.watches))

    def erase_due(self) -> None:
        """Erase what has become too old, where it is time to look; costs nothing otherwise.

        What cannot be erased now (a full disk, a store that is away) is told to the log and tried again at the next call.
        """
        now = self.clock()
        if now < self._next_sweep:
            return
        try:
            self._erase(self.age.horizon(now))
        except (ArtifactError, OSError) as error:
            logger.error("prompts that are to be erased could not be: %s; tried again", error)
            return
        self._next_sweep = now + self.age.period

    def _erase(self, horizon: float) -> None:
        if math.isinf(self._next_sweep):  # what a killed monitor left half written
            for file in self.run.monitor_files():
                if file.endswith(PARTIAL):
                    self.run.delete_monitor(file)
        self.log.erase(horizon)
        self.offers.erase(self.keeper, horizon)
        self.feedback.erase(horizon)

    def _last_replies(self, language: str, version: str) -> list[str]:
        watch = self.log.watches.get(language)
        return watch.replies.ids(version) if watch else []

    def _told(self, watch: Watch, ratings: Mapping[str, dict[str, int]]) -> dict[str, Any]:
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
            "replies": {version: told(found) for version, found in self.signals(watch.language).items()},
            "baseline": told(of_record(watch.baseline)) if watch.baseline else None,
        }

    def _settle(self, languages: Collection[str]) -> dict[str, Place]:
        """Take windows to where their prompts are placed now; returns where that is, by language."""
        self.log.commit(self.consequences.moved(sorted(languages)))
        return {code: self.moves.place(self.log.watch(code)) for code in languages}

    def _take_effect(self, event: Event) -> None:
        events: list[Event] = []
        self.log.follow(event, events)
        self.log.commit(events)
