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
from compass_ray.stages.train.jobs import Job, artifact_of, identity, jobs_of
from compass_ray.stages.train.layouts import Layout, PerLanguage, Pooled

__all__ = ["Job", "Trainings", "identity", "run"]


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``adapters/<language>/<version>`` for every language and method.

    Raises:
        ArtifactError: a selection is missing.
        LanguagesFailedError: languages failed; the others are whole then.
    """
    jobs = jobs_of(config)
    with Trainings(config, run, force=force, progress=progress) as trainings:
        for home in dict.fromkeys(job.language for job in jobs):
            trainings.start(home)
    if trainings.failures:
        raise LanguagesFailedError(trainings.failures)
    return [artifact_of(run, job).require() for job in jobs]


class Trainings:
    """The adapters of a run, started language by language; leaving the ``with`` block waits for them."""

    def __init__(self, config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> None:
        """Nothing is started, nor Ray."""
        self._config, self._run, self._force, self._progress = config, run, force, progress
        self._jobs = jobs_of(config)
        self._layout: Layout | None = None
        self._waiting: set[Job] = set()
        self.failures: dict[str, str] = {}
        """What went wrong, by language; complete once the block is left."""

    def start(self, home: str) -> None:
        """Train what is missing of a language, or of what all share; its selections are whole."""
        mine = [job for job in self._jobs if job.language == home]
        pending = [job for job in mine if not self._done(job)]
        for job in pending:
            artifact_of(self._run, job).begin(identity(self._config, self._run, job), keep_partial=not self._force)
        if pending:
            self._waiting.update(pending)
            self._opened().start(pending)

    def __enter__(self) -> Trainings:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._layout is None:
            return
        if kind is not None:
            self._layout.abandon()
            return
        try:
            found = self._layout.finish(self._tell)
        except BaseException:  # threads outlive the main one, and what waits there would start a Ray of its own
            self._layout.abandon()
            raise
        self.failures = {home: f"training: {reason}" for home, reason in found.items()}

    def _opened(self) -> Layout:
        if self._layout is None:
            ray_session.start(self._config.resources)
            self._layout = self._made()
        return self._layout

    def _made(self) -> Layout:
        if self._config.train.layout == "per_language":
            return PerLanguage(self._config, self._run)
        return Pooled(self._config, self._run, expected=len(self._jobs))

    def _done(self, job: Job) -> bool:
        return artifact_of(self._run, job).done(identity(self._config, self._run, job), force=self._force) is not None

    def _tell(self) -> None:
        self._waiting = {job for job in self._waiting if not artifact_of(self._run, job).manifest()}
        self._progress("train", len(self._jobs) - len(self._waiting), len(self._jobs))
