"""How long the stages of a run took, attempt by attempt: what makespan and utilisation are computed from.

Key property: an attempt is written anew after every stage, under a name of its own, so a killed one leaves what it had
finished and two attempts never write the same file. It is a record of time only, and never part of a fingerprint.
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
    """One stage of an attempt: when it began and how long it took, in seconds, and what the cluster had when it ended."""

    model_config = ConfigDict(frozen=True)
    stage: str
    started: float
    """Since the attempt began."""
    seconds: float
    cpus: float = 0.0
    gpus: float = 0.0


class Attempt(BaseModel):
    """One call that made something of a run: its stages in the order in which they ended."""

    model_config = ConfigDict(frozen=True)
    name: str
    started: datetime
    stages: tuple[StageTime, ...] = ()

    @property
    def makespan(self) -> float:
        """Seconds from the beginning to the end of the last stage."""
        return max((time.started + time.seconds for time in self.stages), default=0.0)

    def with_stage(self, time: StageTime) -> Attempt:
        """The attempt with one stage more."""
        return self.model_copy(update={"stages": (*self.stages, time)})

    def store(self, run: RunDir) -> None:
        """Write it, in place of what it was before."""
        run.artifact(FOLDER).store_bytes(f"{self.name}.json", self.model_dump_json(indent=2).encode())


def begin_attempt(now: datetime | None = None) -> Attempt:
    """An attempt that begins now; its name sorts by time."""
    started = now or datetime.now(UTC)
    return Attempt(name=f"{started:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}", started=started)


def read_attempts(run: RunDir) -> list[Attempt]:
    """What was kept of all attempts, the oldest first; a file that cannot be read is left out."""
    folder = run.artifact(FOLDER)
    found = [_read(folder.read_bytes(file)) for file in folder.files() if file.endswith(".json")]
    return [attempt for attempt in found if attempt]


def _read(data: bytes) -> Attempt | None:
    try:
        return Attempt.model_validate_json(data)
    except ValidationError:
        return None


class StageTimer:
    """The stages of one attempt.

    ``resources`` gives the CPUs and GPUs of the cluster; ``now`` gives seconds of a monotonic clock.
    """

    def __init__(
        self, run: RunDir, resources: Callable[[], Mapping[str, float]], now: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the attempt."""
        self._run, self._resources, self._now = run, resources, now
        self._began = now()
        self._attempt = begin_attempt()
        self.seconds: dict[str, float] = {}
        """Of each stage, whether it had something to make or not."""

    @contextmanager
    def measure(self, stage: str, *, works: bool) -> Iterator[None]:
        """Take the time of a stage, also of one that fails; it is kept if the stage works."""
        started = self._now()
        try:
            yield
        finally:
            self.seconds[stage] = self._now() - started
            if works:
                self._store_time(stage, started - self._began)

    def _store_time(self, stage: str, started: float) -> None:
        has = self._resources()
        kept = StageTime(
            stage=stage, started=started, seconds=self.seconds[stage], cpus=has.get("CPU", 0.0), gpus=has.get("GPU", 0.0)
        )
        self._attempt = self._attempt.with_stage(kept)
        self._attempt.store(self._run)
