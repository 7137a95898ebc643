"""What the monitor knows of one language: its window of prompts, its phase, its replies, and how all follow from events.

Key property: the state is a fold over events (`Watch.apply`), so what is rebuilt from the log after a kill
is what was there before. A watch goes from WATCHING by an alarm to COLLECTING, where it counts fresh
prompts until the whole window is fresh, then to READY, where the window is offered for an update, and back
by a reset or a release. How the replies of a version were when it was new is kept until another is watched. COMPASS,
section 3.3.2. It decides nothing and writes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from compass_ray.clustering.versions import INITIAL_CLUSTERING
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.drift import ClusterFit, DriftState, QualitySignals, StalenessState
from compass_ray.monitoring.reply_quality import RatingLookup, ReplyQuality

Event = dict[str, Any]


class Phase(Enum):
    """Where a language stands between two updates."""

    MONITORING = "watching"
    COLLECTING = "collecting"
    READY = "ready"


@dataclass(frozen=True)
class ReferenceDistribution:
    """What the window is compared with: counts int64[K + 1] over coarse clusters, noise last, and how the guide set fits."""

    version: str
    counts: npt.NDArray[np.int64]
    guide_fit: ClusterFit | None = None
    space_id: str = INITIAL_CLUSTERING
    """Mark of the clusters and centroids that they were counted at, which a window must lie in too."""


@dataclass
class LanguageMonitorState:
    """One language's window and phase; at most ``size`` prompts are held."""

    language: str
    size: int
    version: str | None = None
    seen: int = 0
    fresh: int = 0
    refusals: int = 0
    phase: Phase = Phase.MONITORING
    trigger: DriftState = field(default_factory=DriftState)
    offered: str | None = None
    last_check: Event | None = None
    window: deque[Event] = field(default_factory=deque)
    answered: int = 0
    """Replies of the watched version since it is watched."""
    baseline: Event | None = None
    """How the first window of them was, as of `replies.as_record`; None until there is one."""
    staleness: StalenessState = field(default_factory=StalenessState)
    clusters: str | None = None
    """Fingerprint of the clusters that this is the staleness of."""
    place: str = INITIAL_CLUSTERING
    """Mark of the clusters and centroids that the window lies in (see `watched_clusters.places`)."""

    def __post_init__(self) -> None:
        """Bound the window, whatever it was given."""
        self.window = deque(self.window, maxlen=self.size)
        self.reply_quality = ReplyQuality(self.size)

    @property
    def is_full(self) -> bool:
        """Whether the window holds as many prompts as it is to."""
        return len(self.window) == self.size

    @property
    def is_window_fresh(self) -> bool:
        """Whether every prompt of the window came after the alarm."""
        return self.phase is Phase.COLLECTING and self.fresh >= self.size

    @property
    def needs_baseline(self) -> bool:
        """Whether the watched version gave a whole window of replies that nothing was kept of yet, to compare others with."""
        return self.version is not None and self.baseline is None and self.answered >= self.size

    def counts(self, n_clusters: int) -> npt.NDArray[np.int64]:
        """Window prompts in each coarse cluster, int64[n_clusters + 1], noise last."""
        return cluster_counts([entry["coarse"] for entry in self.window], n_clusters)

    def mean_nll(self) -> float | None:
        """Mean token NLL of the replies to the window's prompts, in nats; None where none was given."""
        return _mean(entry["nll"] for entry in self.window)

    def distance(self) -> float | None:
        """Mean distance of the window's prompts to their centroids, as of `Placed`; None where none was measured."""
        return _mean(entry.get("distance") for entry in self.window)

    def noise(self) -> float | None:
        """Share of the window's prompts that lie in no cluster; None of an empty window."""
        return _mean(float(entry["coarse"] < 0) for entry in self.window)

    def reply_signals(self, ratings: RatingLookup) -> QualitySignals:
        """How the last replies of the watched version were."""
        return self.reply_quality.signals(self.version, ratings) if self.version else QualitySignals()

    def apply(self, event: Event) -> None:
        """Follow an event of this language.

        Raises:
            ValueError: an event of a kind that is not known.
        """
        step = _EVENT_HANDLERS.get(event["event"])
        if step is None:
            raise ValueError(f"the monitor's log holds an event {event['event']!r}; expected one of {sorted(_EVENT_HANDLERS)}")
        step(self, event)

    def snapshot(self) -> Event:
        """An event that sets a new watch to this state."""
        return {
            "event": "snapshot",
            "language": self.language,
            "phase": self.phase.value,
            "trigger": asdict(self.trigger),
            "staleness": asdict(self.staleness),
            "window": list(self.window),
            "replies": self.reply_quality.snapshot(),
            **{name: getattr(self, name) for name in sorted(_SNAPSHOT_FIELDS)},
        }


_SNAPSHOT_FIELDS = {"version", "seen", "fresh", "refusals", "offered", "last_check", "answered", "baseline", "clusters", "place"}
"""Fields that a snapshot holds as they are."""


def _on_prompt(watch: LanguageMonitorState, event: Event) -> None:
    watch.seen += 1
    watch.window.append(event)
    if event["version"] is not None:
        watch.reply_quality.add_reply(event["version"], event["id"], event["nll"], watched=watch.version)
        watch.answered += event["version"] == watch.version
    if watch.phase is Phase.COLLECTING:
        watch.fresh += 1


def _on_check(watch: LanguageMonitorState, event: Event) -> None:
    watch.last_check = event["line"]
    if watch.phase is not Phase.MONITORING:
        return
    watch.trigger = _drift_state(event["trigger"])
    if event["alarm"]:
        watch.phase, watch.fresh = Phase.COLLECTING, 0


def _on_staleness(watch: LanguageMonitorState, event: Event) -> None:
    watch.clusters, watch.staleness = event["clusters"], StalenessState(**event["state"])


def _on_ready_window(watch: LanguageMonitorState, event: Event) -> None:
    watch.phase, watch.offered = Phase.READY, event["file"]


def _on_reset(watch: LanguageMonitorState, event: Event) -> None:
    watch.version = event["version"]
    watch.refusals = watch.answered = 0
    watch.baseline = None
    _resume(watch, event)


def _on_baseline(watch: LanguageMonitorState, event: Event) -> None:
    watch.baseline = event["signals"]


def _on_canaries(watch: LanguageMonitorState, event: Event) -> None:
    watch.reply_quality.add_canary_round(event["version"], event["time"], event["asked"], event["right"], watched=watch.version)


def _on_release(watch: LanguageMonitorState, event: Event) -> None:
    watch.refusals += 1
    _resume(watch, event)


def _resume(watch: LanguageMonitorState, event: Event) -> None:
    watch.phase, watch.fresh, watch.offered = Phase.MONITORING, 0, None
    watch.trigger = _drift_state(event["trigger"])


def _on_recluster(watch: LanguageMonitorState, event: Event) -> None:
    """The window lies in other clusters, or at other centroids; what could not be placed anew is out of it.

    Excesses of before are no evidence any more, and a window that was offered is collected anew from what is left of it.
    """
    watch.place, found = event["place"], event["assigned"] or [None] * len(watch.window)
    moved = [place and {**entry, **place} for entry, place in zip(watch.window, found, strict=True)]
    fresh = len(moved) if watch.phase is Phase.READY else watch.fresh
    watch.fresh = sum(entry is not None for entry in moved[len(moved) - fresh :]) if fresh else 0
    watch.window = deque((entry for entry in moved if entry), maxlen=watch.size)
    watch.trigger = replace(watch.trigger, streak=0)
    if watch.phase is Phase.READY:
        watch.phase, watch.offered = Phase.COLLECTING, None


def _on_snapshot(watch: LanguageMonitorState, event: Event) -> None:
    for name in _SNAPSHOT_FIELDS & event.keys():  # a log of before knows less
        setattr(watch, name, event[name])
    watch.phase = Phase(event["phase"])
    watch.trigger = _drift_state(event["trigger"])
    watch.staleness = StalenessState(**event.get("staleness", {}))
    watch.window = deque(event["window"], maxlen=watch.size)
    watch.reply_quality.restore(event.get("replies", {}))


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None


def _drift_state(fields: Mapping[str, int]) -> DriftState:
    return DriftState(streak=fields["streak"], cooldown=fields["cooldown"])


_EVENT_HANDLERS = {
    "prompt": _on_prompt,
    "check": _on_check,
    "staleness": _on_staleness,
    "offer": _on_ready_window,
    "reset": _on_reset,
    "baseline": _on_baseline,
    "canaries": _on_canaries,
    "release": _on_release,
    "recluster": _on_recluster,
    "snapshot": _on_snapshot,
}
