"""Takes the time of an attempt's stages and keeps it in the run.

Key property: only stages that had something to make are kept, so a call that finds everything whole leaves no record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from compass_ray.artifacts.attempts import StageTime, begin_attempt
from compass_ray.artifacts.run_dir import RunDir


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
