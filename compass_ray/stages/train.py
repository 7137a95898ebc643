"""Stage: one adapter a language and method on a frozen base model, by Ray Train (COMPASS, sections 3.2.4 and 4.3).

Key property: training keeps its state in the run directory after every epoch, so a killed worker, driver or node goes
on from the last whole epoch and ends with the same adapter. Layout ``per_language`` gives each language a Train run of
its own; ``pooled`` has workers that load the base once and take languages in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from compass_ray import ray_session
from compass_ray.adapter_training import AdapterPlan, train_adapter
from compass_ray.artifacts import FIRST_VERSION, Artifact, ArtifactError, Identity, Manifest, RunDir, homes, version_of
from compass_ray.config import RunConfig
from compass_ray.models.location import model_identity
from compass_ray.progress import Progress, silent


@dataclass(frozen=True)
class Job:
    """One adapter to train: the selection of a method for a language (or all of them), and the version it becomes."""

    language: str
    method: str
    version: str


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``adapters/<language>/<version>`` for every language and method.

    Raises:
        ArtifactError: a selection is missing, or languages failed; the others are whole then.
    """
    jobs = [Job(code, method, version_of(config, method)) for method, code in homes(config)]
    pending = [job for job in jobs if not _artifact(run, job).done(identity(config, run, job), force=force)]
    if pending:
        _launch(config, run, pending, force, progress, total=len(jobs))
    return [_artifact(run, job).require() for job in jobs]


def identity(config: RunConfig, run: RunDir, job: Job) -> Identity:
    """What the adapter is made of."""
    selection = run.selection(job.method, job.language)
    settings = config.train.model_dump(exclude={"layout"}) | {
        "base_model": model_identity(config.train.base_model, config.train.revision),
        "seed": config.seed,
        "anchors": config.update.anchors if job.version == FIRST_VERSION else 0.0,
    }
    return Identity("train", settings, {selection.name: selection.require().fingerprint})


def _plan(config: RunConfig, run: RunDir, job: Job) -> AdapterPlan:
    return AdapterPlan(
        language=job.language,
        artifact=_artifact(run, job),
        identity=identity(config, run, job),
        selection=run.selection(job.method, job.language),
        # Anchors and references are counted in clusters that all languages share.
        served=job.version == FIRST_VERSION and config.cluster.scope == "shared",
    )


def _artifact(run: RunDir, job: Job) -> Artifact:
    return run.adapter(job.language, job.version)


def _launch(config: RunConfig, run: RunDir, jobs: list[Job], force: bool, progress: Progress, *, total: int) -> None:
    ray_session.start(config.resources)
    for job in jobs:
        _artifact(run, job).begin(identity(config, run, job), keep_partial=not force)
    groups = _groups(config, jobs)
    failures: list[str] = []
    with ThreadPoolExecutor(max_workers=config.resources.train_concurrency) as pool:
        futures = {pool.submit(_train_run, config, run, group): group for group in groups}
        for future in as_completed(futures):
            if error := future.exception():
                failures.append(f"{', '.join(sorted({j.language for j in futures[future]}))}: {ray_session.told(error)}")
            progress("train", total - sum(not _artifact(run, j).manifest() for j in jobs), total)
    if failures:
        raise ArtifactError("training failed; the other languages are complete. " + "; ".join(failures))


def _groups(config: RunConfig, jobs: list[Job]) -> list[list[Job]]:
    if config.train.layout == "pooled":
        return [jobs]
    return [[j for j in jobs if j.language == code] for code in dict.fromkeys(j.language for j in jobs)]


def _train_run(config: RunConfig, run: RunDir, jobs: Sequence[Job]) -> None:
    """One Ray Train run over some jobs; returns when all of them are published."""
    workers = config.resources.train_workers if config.train.layout == "pooled" else 1
    loop = {"jobs": [(j.language, j.method, j.version) for j in jobs]}
    ray_session.fit(config, run, train_worker, loop, workers=min(workers, len(jobs)))


def train_worker(loop: Mapping[str, Any]) -> None:
    """Ray Train worker: load the base once, train this worker's share of the jobs, publish each when it is done."""
    import ray.train
    import torch

    from compass_ray.models.base import load_base

    config, run = RunConfig.model_validate(loop["config"]), RunDir(loop["uri"])
    torch.set_num_threads(config.resources.threads_per_worker)
    base = load_base(config.train)
    context = ray.train.get_context()
    jobs = [Job(*job) for job in loop["jobs"]][context.get_world_rank() :: context.get_world_size()]
    for job in jobs:
        if not _artifact(run, job).manifest():
            train_adapter(config, run, _plan(config, run, job), base)
