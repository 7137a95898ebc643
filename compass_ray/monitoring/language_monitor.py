"""The monitor's state of one language: window of prompts, phase, reply quality, and the event handlers that change it.

The state is a fold over events (`LanguageMonitorState.apply`), so it can be rebuilt from the log after a kill. An alarm
switches MONITORING to COLLECTING, which counts fresh prompts until the complete window is fresh. Then READY: the window
waits for an update. A reset or a discarded window switches back to MONITORING. The baseline, the reply quality of a
version's first window, is kept until another version is monitored. COMPASS, section 3.3.2. Writes nothing.
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
    """The phase of a language between two updates."""

    MONITORING = "watching"
    COLLECTING = "collecting"
    READY = "ready"


@dataclass(frozen=True)
class ReferenceDistribution:
    """The counts int64[K + 1] over coarse clusters (noise last) that the window is compared with, and the guide set's fit."""

    version: str
    counts: npt.NDArray[np.int64]
    guide_fit: ClusterFit | None = None
    space_id: str = INITIAL_CLUSTERING
    """The cluster space of the counts; the window must be in the same space."""


@dataclass
class LanguageMonitorState:
    """Window, phase and reply quality of one language; the window holds at most ``size`` prompts."""

    language: str
    size: int
    version: str | None = None
    num_prompts: int = 0
    """Prompts so far."""
    fresh: int = 0
    """Prompts since the alarm."""
    excluded: int = 0
    """Prompts that did not count: of a client beyond its share, or equal to one of the window."""
    rejections: int = 0
    """Windows discarded in a row."""
    phase: Phase = Phase.MONITORING
    trigger: DriftState = field(default_factory=DriftState)
    ready_file: str | None = None
    """File of the ready window, in the monitor's folder."""
    last_check: Event | None = None
    window: deque[Event] = field(default_factory=deque)
    answered: int = 0
    """Replies of the monitored version since its monitoring began."""
    baseline: Event | None = None
    """Reply quality of its first window, from `signals_to_record`; None before that window is complete."""
    staleness: StalenessState = field(default_factory=StalenessState)
    clusters: str | None = None
    """Fingerprint of the clustering that ``staleness`` is about."""
    space_id: str = INITIAL_CLUSTERING
    """The cluster space of the window (see `clustering.versions.ClusterSpace`)."""

    def __post_init__(self) -> None:
        """Limit the window to ``size`` prompts."""
        self.window = deque(self.window, maxlen=self.size)
        self.reply_quality = ReplyQuality(self.size)

    @property
    def is_full(self) -> bool:
        """Whether the window holds ``size`` prompts."""
        return len(self.window) == self.size

    @property
    def is_window_fresh(self) -> bool:
        """Whether every prompt of the window came after the alarm."""
        return self.phase is Phase.COLLECTING and self.fresh >= self.size

    @property
    def needs_baseline(self) -> bool:
        """Whether the monitored version has a complete first window of replies, but no baseline yet."""
        return self.version is not None and self.baseline is None and self.answered >= self.size

    def counts(self, n_clusters: int) -> npt.NDArray[np.int64]:
        """Window prompts in each coarse cluster, int64[n_clusters + 1], noise last."""
        return cluster_counts([entry["coarse"] for entry in self.window], n_clusters)

    def mean_nll(self) -> float | None:
        """Mean token NLL of the replies to the window's prompts, in nats; None without any."""
        return _mean(entry["nll"] for entry in self.window)

    def distance(self) -> float | None:
        """Mean distance of the window's prompts to their centroids, as in `Assignments`; None without any."""
        return _mean(entry.get("distance") for entry in self.window)

    def noise(self) -> float | None:
        """Share of noise among the window's prompts; None of an empty window."""
        return _mean(float(entry["coarse"] < 0) for entry in self.window)

    def reply_signals(self, ratings: RatingLookup) -> QualitySignals:
        """Quality signals of the last replies of the monitored version."""
        return self.reply_quality.signals(self.version, ratings) if self.version else QualitySignals()

    def apply(self, event: Event) -> None:
        """Apply an event of this language.

        Raises:
            ValueError: the event is of an unknown kind.
        """
        handler = _EVENT_HANDLERS.get(event["event"])
        if handler is None:
            raise ValueError(f"unknown event {event['event']!r} in the monitor's log; expected one of {sorted(_EVENT_HANDLERS)}")
        handler(self, event)

    def snapshot(self) -> Event:
        """An event that sets a new `LanguageMonitorState` to this state."""
        return {
            "event": "snapshot",
            "language": self.language,
            "phase": self.phase.value,
            "trigger": asdict(self.trigger),
            "staleness": asdict(self.staleness),
            "window": list(self.window),
            "replies": self.reply_quality.snapshot(),
            **{field: getattr(self, attribute) for field, attribute in sorted(_SNAPSHOT_FIELDS.items())},
        }


_SNAPSHOT_FIELDS = {name: name for name in ("version", "fresh", "last_check", "answered", "baseline", "clusters", "excluded")} | {
    "seen": "num_prompts",
    "refusals": "rejections",
    "offered": "ready_file",
    "place": "space_id",
}
"""Fields of a snapshot event that are stored as they are, and their attributes."""


def _on_prompt(state: LanguageMonitorState, event: Event) -> None:
    if event["version"] is not None and event.get("judged", True):
        client = event.get("client")
        state.reply_quality.add_reply(
            event["version"],
            event.get("id", ""),
            event["nll"],
            client=client,
            time=event.get("time", 0.0),
            monitored=state.version,
        )
        state.answered += event["version"] == state.version
    if not event.get("counts", True):
        state.excluded += 1
        return
    state.num_prompts += 1
    state.window.append(event)
    if state.phase is Phase.COLLECTING:
        state.fresh += 1


def _on_check(state: LanguageMonitorState, event: Event) -> None:
    state.last_check = event["line"]
    if state.phase is not Phase.MONITORING:
        return
    state.trigger = _drift_state(event["trigger"])
    if event["alarm"]:
        state.phase, state.fresh = Phase.COLLECTING, 0


def _on_staleness(state: LanguageMonitorState, event: Event) -> None:
    state.clusters, state.staleness = event["clusters"], StalenessState(**event["state"])


def _on_ready_window(state: LanguageMonitorState, event: Event) -> None:
    state.phase, state.ready_file = Phase.READY, event["file"]


def _on_reset(state: LanguageMonitorState, event: Event) -> None:
    state.version = event["version"]
    state.rejections = state.answered = 0
    state.baseline = None
    _resume(state, event)


def _on_baseline(state: LanguageMonitorState, event: Event) -> None:
    state.baseline = event["signals"]


def _on_canaries(state: LanguageMonitorState, event: Event) -> None:
    state.reply_quality.add_canary_round(event["version"], event["time"], event["asked"], event["right"], monitored=state.version)


def _on_discarded_window(state: LanguageMonitorState, event: Event) -> None:
    state.rejections += 1
    _resume(state, event)


def _resume(state: LanguageMonitorState, event: Event) -> None:
    state.phase, state.fresh, state.ready_file = Phase.MONITORING, 0, None
    state.trigger = _drift_state(event["trigger"])


def _on_recluster(state: LanguageMonitorState, event: Event) -> None:
    """Move the window to another cluster space; prompts that could not be re-assigned leave it.

    Earlier exceeded checks no longer count. A ready window goes back to COLLECTING with the prompts that are left.
    """
    assigned = event["assigned"] or [None] * len(state.window)
    entries = [fields and {**entry, **fields} for entry, fields in zip(state.window, assigned, strict=True)]
    state.space_id, fresh = event["place"], len(entries) if state.phase is Phase.READY else state.fresh
    state.fresh = sum(entry is not None for entry in entries[len(entries) - fresh :]) if fresh else 0
    state.window = deque((entry for entry in entries if entry), maxlen=state.size)
    state.trigger = replace(state.trigger, streak=0)
    if state.phase is Phase.READY:
        state.phase, state.ready_file = Phase.COLLECTING, None


def _on_snapshot(state: LanguageMonitorState, event: Event) -> None:
    for name in _SNAPSHOT_FIELDS.keys() & event.keys():  # older logs have fewer fields
        setattr(state, _SNAPSHOT_FIELDS[name], event[name])
    state.phase = Phase(event["phase"])
    state.trigger = _drift_state(event["trigger"])
    state.staleness = StalenessState(**event.get("staleness", {}))
    state.window = deque(event["window"], maxlen=state.size)
    state.reply_quality.restore(event.get("replies", {}))


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


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
    "release": _on_discarded_window,
    "recluster": _on_recluster,
    "snapshot": _on_snapshot,
}
