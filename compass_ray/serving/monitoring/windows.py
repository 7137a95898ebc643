"""What the monitor knows of one language: its window of prompts, its phase, and how both follow from events.

Key property: the state is a fold over events (`Watch.apply`), so what is rebuilt from the log after a kill
is what was there before. A watch goes from WATCHING by an alarm to COLLECTING, where it counts fresh
prompts until the whole window is fresh, then to READY, where the window is offered for an update, and back
by a reset or a release. COMPASS, section 3.3.2. It decides nothing and writes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from compass_ray.core.distribution import cluster_counts
from compass_ray.core.drift import DriftState
from compass_ray.watched_clusters import FITTED

Event = dict[str, Any]


class Phase(Enum):
    """Where a language stands between two updates."""

    WATCHING = "watching"
    COLLECTING = "collecting"
    READY = "ready"


@dataclass(frozen=True)
class Reference:
    """What the window is compared with: counts int64[K + 1] over coarse clusters, noise last."""

    version: str
    counts: npt.NDArray[np.int64]


@dataclass
class Watch:
    """One language's window and phase; at most ``size`` prompts are held."""

    language: str
    size: int
    version: str | None = None
    seen: int = 0
    fresh: int = 0
    refusals: int = 0
    phase: Phase = Phase.WATCHING
    trigger: DriftState = field(default_factory=DriftState)
    offered: str | None = None
    last_check: Event | None = None
    window: deque[Event] = field(default_factory=deque)
    place: str = FITTED
    """Mark of the clusters and centroids that the window lies in (see `watched_clusters.places`)."""

    def __post_init__(self) -> None:
        """Bound the window, whatever it was given."""
        self.window = deque(self.window, maxlen=self.size)

    @property
    def full(self) -> bool:
        """Whether the window holds as many prompts as it is to."""
        return len(self.window) == self.size

    @property
    def collected(self) -> bool:
        """Whether every prompt of the window came after the alarm."""
        return self.phase is Phase.COLLECTING and self.fresh >= self.size

    def counts(self, n_clusters: int) -> npt.NDArray[np.int64]:
        """Window prompts in each coarse cluster, int64[n_clusters + 1], noise last."""
        return cluster_counts([entry["coarse"] for entry in self.window], n_clusters)

    def mean_nll(self) -> float | None:
        """Mean token NLL of the replies to the window's prompts, in nats; None where none was given."""
        values = [entry["nll"] for entry in self.window if entry["nll"] is not None]
        return float(np.mean(values)) if values else None

    def apply(self, event: Event) -> None:
        """Follow an event of this language.

        Raises:
            ValueError: an event of a kind that is not known.
        """
        step = _STEPS.get(event["event"])
        if step is None:
            raise ValueError(f"the monitor's log holds an event {event['event']!r}; expected one of {sorted(_STEPS)}")
        step(self, event)

    def snapshot(self) -> Event:
        """An event that sets a new watch to this state."""
        kept = ("version", "seen", "fresh", "refusals", "offered", "last_check")
        return {
            "event": "snapshot",
            "language": self.language,
            "phase": self.phase.value,
            "trigger": asdict(self.trigger),
            "window": list(self.window),
            **{name: getattr(self, name) for name in kept},
        }


def _on_prompt(watch: Watch, event: Event) -> None:
    watch.seen += 1
    watch.window.append(event)
    if watch.phase is Phase.COLLECTING:
        watch.fresh += 1


def _on_check(watch: Watch, event: Event) -> None:
    watch.last_check = event["line"]
    if watch.phase is not Phase.WATCHING:
        return
    watch.trigger = _state(event["trigger"])
    if event["alarm"]:
        watch.phase, watch.fresh = Phase.COLLECTING, 0


def _on_offer(watch: Watch, event: Event) -> None:
    watch.phase, watch.offered = Phase.READY, event["file"]


def _on_reset(watch: Watch, event: Event) -> None:
    watch.version = event["version"]
    watch.refusals = 0
    _resume(watch, event)


def _on_release(watch: Watch, event: Event) -> None:
    watch.refusals += 1
    _resume(watch, event)


def _resume(watch: Watch, event: Event) -> None:
    watch.phase, watch.fresh, watch.offered = Phase.WATCHING, 0, None
    watch.trigger = _state(event["trigger"])


def _on_snapshot(watch: Watch, event: Event) -> None:
    for name in ("version", "seen", "fresh", "refusals", "offered", "last_check"):
        setattr(watch, name, event[name])
    watch.phase = Phase(event["phase"])
    watch.trigger = _state(event["trigger"])
    watch.window = deque(event["window"], maxlen=watch.size)


def _state(fields: Mapping[str, int]) -> DriftState:
    return DriftState(streak=fields["streak"], cooldown=fields["cooldown"])


_STEPS = {
    "prompt": _on_prompt,
    "check": _on_check,
    "offer": _on_offer,
    "reset": _on_reset,
    "release": _on_release,
    "snapshot": _on_snapshot,
}
