"""How long the stages of a run took, attempt by attempt: what makespan and utilisation are computed from.

Key property: an attempt is written anew after every stage, under a name of its own, so a killed one leaves what it had
finished and two attempts never write the same file. It is a record of time only, and never part of a fingerprint.
"""

from __future__ import annotations

import uuid
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
