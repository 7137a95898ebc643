"""Stage: train one adapter for each language and method on a frozen base model (COMPASS, sections 3.2.4 and 4.3).

Key property: training stores its state in the run directory after every epoch. After the kill of a worker, the driver or a
node it resumes from the last complete epoch and ends with the same adapter. A language that fails permanently is reported;
the other languages are completed. Languages can start one by one while others are still being selected.
"""

from __future__ import annotations

from types import TracebackType

from compass_ray import ray_session
from compass_ray.artifacts import LanguagesFailedError, Manifest, RunDir
from compass_ray.config import RunConfig
from compass_ray.models.memory_watch import find_kill, forget_kill
from compass_ray.progress import Progress, silent
from compass_ray.stages.train.schedulers import JobScheduler, PerLanguageScheduler, PooledScheduler
from compass_ray.stages.train.train_jobs import Job, adapter_artifact, identity, list_jobs

__all__ = ["Job", "Trainings", "identity", "run"]


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``adapters/<language>/<version>`` for every language and method.

    Raises:
        ArtifactError: a selection is missing.
        LanguagesFailedError: some languages failed; the artifacts of the others are complete.
    """
    jobs = list_jobs(config)
    with Trainings(config, run, force=force, progress=progress) as trainings:
        for owner in dict.fromkeys(job.language for job in jobs):
            trainings.start(owner)
    if trainings.failures:
        raise LanguagesFailedError(trainings.failures)
    return [adapter_artifact(run, job).require() for job in jobs]


class Trainings:
    """Trainings of a run, started language by language; leaving the ``with`` block waits for them."""

    def __init__(self, config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> None:
        """Start neither training nor Ray."""
        self._config, self._run, self._force, self._progress = config, run, force, progress
        self._jobs = list_jobs(config)
        self._scheduler: JobScheduler | None = None
        self._waiting: set[Job] = set()
        self.failures: dict[str, str] = {}
        """Error messages by language; complete after the block."""

    def start(self, owner: str) -> None:
        """Train the missing adapters of a language, or of all languages together. Its selections must be complete."""
        pending = [job for job in self._jobs if job.language == owner and not self._is_done(job)]
        for job in pending:
            artifact = adapter_artifact(self._run, job)
            artifact.begin(identity(self._config, self._run, job), keep_partial=not self._force)
            forget_kill(artifact)
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
        except BaseException:  # a waiting thread would outlive the driver and start Ray again
            self._scheduler.abandon()
            raise
        self.failures = {owner: f"training: {self._find_kill(owner) or reason}" for owner, reason in found.items()}

    def _find_kill(self, owner: str) -> str | None:
        """The message about a worker that was killed for lack of memory while it trained for ``owner``."""
        found = (find_kill(adapter_artifact(self._run, job)) for job in self._jobs if job.language == owner)
        return next(filter(None, found), None)

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
