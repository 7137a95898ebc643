"""The traffic monitor: windows of prompts by language, drift checks, and the windows offered for updates.

Key property: when `record` returns, what it was given is on disk; a monitor made anew over the same run
directory goes on where that one was, with the same windows, phases and triggers. Checks fall on fixed
prompt counts with seeded generators, so how the traffic was batched changes nothing. COMPASS, section
3.3.2. It trains nothing and decides nothing about promotion.
"""

from __future__ import annotations

import io
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.core.drift import DriftState
from compass_ray.serving import journal
from compass_ray.serving.checks import build_trigger, check_event, reference_of
from compass_ray.serving.observations import Acknowledged, Observation, WindowReady, clean, sound
from compass_ray.serving.placing import Placed
from compass_ray.serving.registry import DECISIONS
from compass_ray.serving.retention import kept_of, window_table
from compass_ray.serving.windows import Event, Phase, Reference, Watch

logger = logging.getLogger(__name__)

TRAFFIC = "traffic.jsonl"
CHECKS = "checks.jsonl"
_RECENT_IDS = 20_000


class PromptPlacer(Protocol):
    """Finds the clusters of prompts."""

    def place(self, prompts: Sequence[str]) -> Placed:
        """Cluster of each prompt, in order."""
        ...


References = Callable[[str, str], Reference | None]
"""Reference of a language's adapter version, None where it has none."""


def read_window(run: RunDir, ready: WindowReady) -> pa.Table:
    """The prompts of an offered window, schema `retention.WINDOW`.

    Raises:
        FileNotFoundError: the window's file is gone.
    """
    found = run.read_monitor(ready.file)
    if found is None:
        raise FileNotFoundError(f"{run.uri}/monitor/{ready.file} is missing; release {ready.language} to collect anew")
    return pq.read_table(io.BytesIO(found))


def kept_window(run: RunDir, config: RunConfig, language: str) -> list[Event]:
    """The last prompts of a language that a monitor acknowledged, oldest first; reads the log, writes nothing."""
    watch = Watch(language, config.drift.window)
    for event in journal.read(run, TRAFFIC):
        if event.get("language") == language:
            watch.apply(event)
    return list(watch.window)


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
        self.placer = placer
        self.clock = clock
        self.trigger = build_trigger(self.drift)
        self.references = references or self._stored_reference
        self.rejected = self.duplicates = 0
        self._references: dict[tuple[str, str], Reference | None] = {}
        self._rebuild()

    def record(self, observations: Sequence[Observation]) -> Acknowledged:
        """Take in answered prompts, run the checks that fall due, and put it all on disk.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts then.
        """
        new, duplicates, rejected = self._sift(observations)
        placed, unplaced = self._place(new)
        self._commit(self._consequences(placed))
        self.duplicates += duplicates
        self.rejected += rejected + unplaced
        return Acknowledged(len(placed), duplicates, rejected + unplaced)

    def ready(self) -> list[WindowReady]:
        """Windows that wait for an update."""
        return [
            WindowReady(watch.language, watch.offered, watch.size, watch.version)
            for watch in self.watches.values()
            if watch.phase is Phase.READY and watch.offered
        ]

    def reset(self, language: str, version: str) -> None:
        """Compare with the reference of ``version`` from now on; the trigger stays silent for a cool-down."""
        self._references.pop((language, version), None)
        self._commit(self._applied({"event": "reset", "version": version, **self._silence(language, 1)}))

    def release(self, language: str) -> None:
        """An update was refused: watch on as before, silent for twice as long after each refusal in a row."""
        if self._watch(language).phase is Phase.WATCHING:
            return
        refusals = self._watch(language).refusals + 1
        self._commit(self._applied({"event": "release", **self._silence(language, 2**refusals)}))

    def status(self) -> dict[str, Any]:
        """Every language's window, phase and last check, and what was turned away."""
        languages = {
            code: {
                "phase": watch.phase.value,
                "prompts": watch.seen,
                "window": len(watch.window),
                "window_size": watch.size,
                "fresh": watch.fresh,
                "version": watch.version,
                "mean_nll": watch.mean_nll(),
                "last_check": watch.last_check,
            }
            for code, watch in sorted(self.watches.items())
        }
        return {"languages": languages, "rejected": self.rejected, "duplicates": self.duplicates}

    def _watch(self, language: str) -> Watch:
        if language not in self.config.languages:
            raise ValueError(f"{language!r} is not watched; the run's languages are {', '.join(self.config.languages)}")
        return self.watches.setdefault(language, Watch(language, self.drift.window))

    def _sift(self, observations: Sequence[Observation]) -> tuple[list[Observation], int, int]:
        fresh: dict[str, Observation] = {}
        duplicates = rejected = 0
        for each in observations:
            if not sound(each, self.config.languages):
                rejected += 1
            elif each.id in self._recent or each.id in fresh:
                duplicates += 1
            else:
                fresh[each.id] = each
        return list(fresh.values()), duplicates, rejected

    def _place(self, observations: Sequence[Observation]) -> tuple[list[Event], int]:
        """Events of the prompts, and how many could not be placed."""
        if not observations:
            return [], 0
        texts = [clean(each.prompt) for each in observations]
        try:
            placed = self.placer.place(texts)
        except ValueError as error:
            if len(observations) == 1:
                logger.warning("a prompt could not be placed: %s", error)
                return [], 1
            parts = [self._place([each]) for each in observations]
            return [event for events, _ in parts for event in events], sum(count for _, count in parts)
        rows = zip(observations, texts, placed.cluster, placed.coarse, placed.embeddings, strict=True)
        return [self._prompt_event(*row) for row in rows], 0

    def _prompt_event(
        self,
        seen: Observation,
        text: str,
        cluster: np.int32,
        coarse: np.int32,
        embedding: npt.NDArray[np.float32],
    ) -> Event:
        finite = seen.nll is not None and math.isfinite(seen.nll)
        return {
            "event": "prompt",
            "id": seen.id,
            "language": seen.language,
            "cluster": int(cluster),
            "coarse": int(coarse),
            "version": seen.version,
            "nll": seen.nll if finite else None,
            "time": seen.time,
            **kept_of(self.drift.retention, seen.language, text, embedding),
        }

    def _consequences(self, prompts: Sequence[Event]) -> list[Event]:
        """The prompts and everything that falls due between them, in order."""
        events: list[Event] = []
        for prompt in prompts:
            self._follow(prompt, events)
            self._consider(self.watches[prompt["language"]], events)
        return events

    def _consider(self, watch: Watch, events: list[Event]) -> None:
        """Whatever falls due after a prompt: the offer of a fresh window, a check."""
        if watch.collected:
            self._follow(self._offer(watch), events)
        if watch.seen % self.drift.check_every or not watch.full:
            return
        self._adopt_served(watch, events)
        reference = self._reference(watch)
        if reference is not None:
            self._check(watch, reference, events)

    def _adopt_served(self, watch: Watch, events: list[Event]) -> None:
        pointer = self.run.live(watch.language)
        version = pointer["version"] if pointer else None
        if version is not None and version != watch.version:
            silent = 0 if watch.version is None else 1
            self._follow({"event": "reset", "version": version, **self._silence(watch.language, silent)}, events)

    def _check(self, watch: Watch, reference: Reference, events: list[Event]) -> None:
        try:
            event = check_event(watch, reference, self.trigger, self.config.seed, self.clock())
        except ValueError as error:  # a reference of other clusters: traffic is still recorded
            logger.warning("%s cannot be checked against %s: %s", watch.language, watch.version, error)
            return
        self._follow(event, events)

    def _offer(self, watch: Watch) -> Event:
        file = f"windows/{watch.language}-{watch.seen:09d}.parquet"
        buffer = io.BytesIO()
        pq.write_table(window_table(watch.language, watch.window), buffer)
        self.run.write_monitor(file, buffer.getvalue())
        return {"event": "offer", "language": watch.language, "file": file}

    def _silence(self, language: str, times: int) -> Event:
        checks = math.ceil(self.drift.cooldown / self.drift.check_every) * times
        return {"language": language, "trigger": asdict(DriftState(streak=0, cooldown=checks))}

    def _reference(self, watch: Watch) -> Reference | None:
        if watch.version is None:
            return None
        key = (watch.language, watch.version)
        if key not in self._references:
            self._references[key] = self.references(*key)
        return self._references[key]

    def _stored_reference(self, language: str, version: str) -> Reference | None:
        return reference_of(self.run, self.drift, language, version)

    def _follow(self, event: Event, events: list[Event]) -> None:
        self._watch(event["language"]).apply(event)
        events.append(event)

    def _applied(self, event: Event) -> list[Event]:
        events: list[Event] = []
        self._follow(event, events)
        return events

    def _commit(self, events: list[Event]) -> None:
        try:
            journal.append(self.run, TRAFFIC, events)
            journal.append(self.run, CHECKS, _lines(events, "line"))
            journal.append(self.run, DECISIONS, _lines(events, "decision"))
        except BaseException:
            self._rebuild()
            raise
        self._remember(events)
        self._length += len(events)
        if self._length > self._longest:
            self._compact()

    def _compact(self) -> None:
        """Shorten the log to the present state; prompts that left their window are forgotten with it."""
        snapshots = [watch.snapshot() for watch in self.watches.values()]
        journal.rewrite(self.run, TRAFFIC, snapshots)
        self._length = len(snapshots)

    @property
    def _longest(self) -> int:
        return 1000 + 4 * self.drift.window * len(self.config.languages)

    def _remember(self, events: Iterable[Event]) -> None:
        for event in events:
            for prompt in event["window"] if event["event"] == "snapshot" else [event]:
                if "id" in prompt:
                    self._recent[prompt["id"]] = None
        while len(self._recent) > _RECENT_IDS:
            self._recent.popitem(last=False)

    def _rebuild(self) -> None:
        events = [e for e in journal.read(self.run, TRAFFIC) if e.get("language") in self.config.languages]
        self.watches: dict[str, Watch] = {}
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._length = len(events)
        for event in events:
            self._watch(event["language"]).apply(event)
        self._remember(events)
        _publish_missing(self.run, CHECKS, _lines(events, "line"))
        _publish_missing(self.run, DECISIONS, _lines(events, "decision"))


def _lines(events: Iterable[Event], key: str) -> list[Event]:
    return [event[key] for event in events if event["event"] == "check" and event[key]]


def _publish_missing(run: RunDir, file: str, lines: Sequence[Event]) -> None:
    """Lines that were decided and logged by a monitor killed before it could publish them."""
    if not lines:
        return
    there = {(line.get("language"), line.get("prompts")) for line in journal.read(run, file)}
    journal.append(run, file, [line for line in lines if (line["language"], line["prompts"]) not in there])
