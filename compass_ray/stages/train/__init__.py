"""Stage: one adapter a language and method on a frozen base model, by Ray Train (COMPASS, sections 3.2.4 and 4.3).

Key property: training keeps its state in the run directory after every epoch, so a killed worker, driver or node goes
on from the last whole epoch and ends with the same adapter. A language that fails again and again is named, and the
others end. Languages may be started one by one, while others are still being selected.
"""

from __future__ import annotations

from types import TracebackType

from compass_ray import ray_session
from compass_ray.artifacts import LanguagesFailedError, Manifest, RunDir
from compass_ray.config import RunConfig
from compass_ray.progress import Progress, silent
from compass_ray.stages.train.scheduling import JobScheduler, PerLanguageScheduler, PooledScheduler
from compass_ray.stages.train.train_jobs import Job, adapter_artifact, identity, list_jobs

__all__ = ["Job", "Trainings", "identity", "run"]


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``adapters/<language>/<version>`` for every language and method.

    Raises:
        ArtifactError: a selection is missing.
        LanguagesFailedError: languages failed; the others are whole then.
    """
    jobs = list_jobs(config)
    with Trainings(config, run, force=force, progress=progress) as trainings:
        for home in dict.fromkeys(job.language for job in jobs):
            trainings.start(home)
    if trainings.failures:
        raise LanguagesFailedError(trainings.failures)
    return [adapter_artifact(run, job).require() for job in jobs]


class Trainings:
    """The adapters of a run, started language by language; leaving the ``with`` block waits for them."""

    def __init__(self, config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> None:
        """Nothing is started, nor Ray."""
        self._config, self._run, self._force, self._progress = config, run, force, progress
        self._jobs = list_jobs(config)
        self._scheduler: JobScheduler | None = None
        self._waiting: set[Job] = set()
        self.failures: dict[str, str] = {}
        """What went wrong, by language; complete once the block is left."""

    def start(self, home: str) -> None:
        """Train what is missing of a language, or of what all share; its selections are whole."""
        mine = [job for job in self._jobs if job.language == home]
        pending = [job for job in mine if not self._is_done(job)]
        for job in pending:
            adapter_artifact(self._run, job).begin(identity(self._config, self._run, job), keep_partial=not self._force)
        if pending:
            self._waiting.update(pending)
            self._open_scheduler().start(pending)

    def __enter__(self) -> Trainings:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._scheduler is None:
            return
        if kind is not None:
            self._scheduler.abandon()
            return
        try:
            found = self._scheduler.finish(self._report_progress)
        except BaseException:  # threads outlive the main one, and what waits there would start a Ray of its own
            self._scheduler.abandon()
            raise
        self.failures = {home: f"training: {reason}" for home, reason in found.items()}

    def _open_scheduler(self) -> JobScheduler:
        if self._scheduler is None:
            ray_session.start(self._config.resources)
            self._scheduler = self._make_scheduler()
        return self._scheduler

    def _make_scheduler(self) -> JobScheduler:
        if self._config.train.layout == "per_language":
            return PerLanguageScheduler(self._config, self._run)
        return PooledScheduler(self._config, self._run, expected=len(self._jobs))

    def _is_done(self, job: Job) -> bool:
        return (
            adapter_artifact(self._run, job).find_complete(identity(self._config, self._run, job), force=self._force) is not None
        )

    def _report_progress(self) -> None:
        self._waiting = {job for job in self._waiting if not adapter_artifact(self._run, job).manifest()}
        self._progress("train", len(self._jobs) - len(self._waiting), len(self._jobs))
