"""Durations of the stages of a run by attempt, from which makespan and utilisation are computed.

Each attempt has its own file, which is rewritten after every stage. A killed attempt therefore keeps its finished stages.
Times never enter a fingerprint.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from compass_ray.artifacts.run_dir import RunDir

FOLDER = "attempts"


class StageTime(BaseModel):
    """One stage of an attempt: start and duration in seconds, and the cluster's CPUs and GPUs when it ended."""

    model_config = ConfigDict(frozen=True)
    stage: str
    started: float
    """Seconds since the start of the attempt."""
    seconds: float
    cpus: float = 0.0
    gpus: float = 0.0


class Attempt(BaseModel):
    """One call that ran stages of a run: its stages in the order in which they ended."""

    model_config = ConfigDict(frozen=True)
    name: str
    started: datetime
    stages: tuple[StageTime, ...] = ()

    @property
    def makespan(self) -> float:
        """Seconds from the start of the attempt to the end of the last stage."""
        return max((time.started + time.seconds for time in self.stages), default=0.0)

    def with_stage(self, time: StageTime) -> Attempt:
        """The attempt with one more stage."""
        return self.model_copy(update={"stages": (*self.stages, time)})

    def store(self, run: RunDir) -> None:
        """Write the attempt's file."""
        run.artifact(FOLDER).store_bytes(f"{self.name}.json", self.model_dump_json(indent=2).encode())


def begin_attempt(now: datetime | None = None) -> Attempt:
    """A new attempt that starts now; names sort by time."""
    started = now or datetime.now(UTC)
    return Attempt(name=f"{started:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}", started=started)


def read_attempts(run: RunDir) -> list[Attempt]:
    """All recorded attempts, oldest first; damaged files are skipped."""
    folder = run.artifact(FOLDER)
    attempts = [_parse_attempt(folder.read_bytes(file)) for file in folder.files() if file.endswith(".json")]
    return [attempt for attempt in attempts if attempt]


def _parse_attempt(data: bytes) -> Attempt | None:
    try:
        return Attempt.model_validate_json(data)
    except ValidationError:
        return None


class StageTimer:
    """Measures the stages of one attempt.

    ``resources`` returns the CPUs and GPUs of the cluster; ``now`` returns seconds of a monotonic clock.
    """

    def __init__(
        self, run: RunDir, resources: Callable[[], Mapping[str, float]], now: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the attempt."""
        self._run, self._resources, self._now = run, resources, now
        self._began = now()
        self._attempt = begin_attempt()
        self.seconds: dict[str, float] = {}
        """Seconds of each stage, including stages without work."""

    @contextmanager
    def measure(self, stage: str, *, works: bool) -> Iterator[None]:
        """Measure a stage, even if it fails; record the time if the stage has work to do."""
        started = self._now()
        try:
            yield
        finally:
            self.seconds[stage] = self._now() - started
            if works:
                self._store_time(stage, started - self._began)

    def _store_time(self, stage: str, started: float) -> None:
        resources = self._resources()
        time = StageTime(
            stage=stage,
            started=started,
            seconds=self.seconds[stage],
            cpus=resources.get("CPU", 0.0),
            gpus=resources.get("GPU", 0.0),
        )
        self._attempt = self._attempt.with_stage(time)
        self._attempt.store(self._run)
