"""Training jobs: one adapter each, with its identity and its artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compass_ray.artifacts import FIRST_VERSION, Artifact, Identity, RunDir, adapter_owners, version_of
from compass_ray.config import RunConfig
from compass_ray.models.model_resolver import model_identity

if TYPE_CHECKING:
    from compass_ray.training.adapter_job import AdapterPlan


@dataclass(frozen=True)
class Job:
    """One adapter to train: the selection of a method for a language (or all of them), and the version it becomes."""

    language: str
    method: str
    version: str


def list_jobs(config: RunConfig, language: str | None = None) -> list[Job]:
    """Training jobs of a run, or of one owner: a language, or `SHARED`."""
    owners = adapter_owners(config)
    return [Job(owner, method, version_of(config, method)) for method, owner in owners if language in (None, owner)]


def adapter_artifact(run: RunDir, job: Job) -> Artifact:
    """The artifact of the adapter."""
    return run.adapter(job.language, job.version)


def identity(config: RunConfig, run: RunDir, job: Job) -> Identity:
    """Identity of the adapter: its settings and its selection.

    Raises:
        ArtifactError: its selection is missing.
    """
    selection = run.selection(job.method, job.language)
    settings = config.train.identity() | {
        "base_model": model_identity(config.train.base_model, config.train.revision),
        "seed": config.seed,
        "anchors": config.update.anchors if job.version == FIRST_VERSION else 0.0,
    }
    return Identity("train", settings, {selection.name: selection.require().fingerprint})


def plan(config: RunConfig, run: RunDir, job: Job) -> AdapterPlan:
    """Plan for `train_adapter`."""
    from compass_ray.training.adapter_job import AdapterPlan

    return AdapterPlan(
        language=job.language,
        artifact=adapter_artifact(run, job),
        identity=identity(config, run, job),
        selection=run.selection(job.method, job.language),
        # Anchors and reference counts need clusters that all languages share.
        served=job.version == FIRST_VERSION and config.cluster.scope == "shared",
    )
