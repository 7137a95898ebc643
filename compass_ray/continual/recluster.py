"""Re-cluster the pool together with the retained traffic, and recompute the references in the new clustering.

The old clustering and everything computed from it stay. The new clustering and its references are complete before one
pointer switches to it. After a kill, a complete clustering is reused; a partial one is fitted again. No prompt of the
traffic becomes a row of the pool. The paper mentions this reset but does not define it (section 3.3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from compass_ray import ray_session, registry
from compass_ray.artifacts import ArtifactError, Identity, RunDir, content_hash
from compass_ray.clustering.versions import INITIAL_CLUSTERING, ActiveClustering, is_of_current_pool, read_active, set_active
from compass_ray.config import ConfigError, RunConfig
from compass_ray.monitoring.references import ensure_reference, read_published_reference
from compass_ray.monitoring.retained_traffic import embed_rows, make_prompt_encoder, read_retained_traffic
from compass_ray.progress import Progress, silent
from compass_ray.records.decisions import ReclusterRecord
from compass_ray.row_selection.clustering_findings import find_artifact_degeneracies

_ROLLBACK_VERSIONS = 3
"""Earlier live versions that also get references. Older versions get theirs when they are live again."""


@dataclass(frozen=True)
class ReclusterResult:
    """The result of a re-clustering: the active clustering ``name``, the one ``before``, and the source of each reference."""

    name: str
    before: str
    prompts: int
    clusters: int
    noise_share: float
    references: Mapping[str, str]
    """Source of the reference by language and version, for example ``sw@v0002``."""
    degenerate: tuple[str, ...] = ()
    """What is degenerate in the clustering, with remedies."""

    @property
    def changed(self) -> bool:
        """Whether another clustering is active now."""
        return self.name != self.before

    def summarize(self) -> list[str]:
        """The result as lines for a terminal."""
        if not self.changed:
            return [f"nothing to do: clustering {self.name} is up to date (same settings, no new retained traffic)"]
        fitted = f"{self.clusters} clusters, {self.noise_share:.1%} of the pool is noise, fitted with {self.prompts} prompts"
        references = [f"reference of {name}: {source}" for name, source in sorted(self.references.items())]
        findings = [f"{self.name}: {finding}" for finding in self.degenerate]
        return [f"clustering {self.name} is active (before: {self.before}): {fitted}", *findings, *references]


def recluster(config: RunConfig, run: RunDir, *, reason: str = "requested", progress: Progress = silent) -> ReclusterResult:
    """Fit the configured clusterer again, recompute the reference of every live version, and activate the clustering.

    Raises:
        ConfigError: each language has its own clusters, or no node of the cluster can hold the fit.
        ArtifactError: the run has no clusters yet, or another process changed the active clustering.
        ModelError: nothing can be fitted.
    """
    if config.cluster.scope != "shared":
        raise ConfigError("cluster.scope is per_language, but monitoring needs clusters that all languages share; set shared")
    run.clusters.require()
    active = read_active(run)
    name = _unfinished_clustering(config, run, active)
    if name is None:
        traffic = read_retained_traffic(run, config.languages, run.pool.read_table("rows.parquet", ["row_id"]).num_rows)
        identity = _identity(config, run, traffic)
        if _is_current(run, active, identity, traffic):
            return _result(config, run, active.name, active.name, {})
        name = _fit_new_clustering(config, run, identity, traffic)
    progress("recluster", 1, 2)
    references = _make_references(config, run, name)
    set_active(run, active, name, reason=reason)
    _record(run, config, active.name, name, reason)
    progress("recluster", 2, 2)
    return _result(config, run, name, active.name, references)


def _unfinished_clustering(config: RunConfig, run: RunDir, active: ActiveClustering) -> str | None:
    """A complete clustering of this pool that was never active: only its references and the pointer are missing.

    It has the configured settings and is newer than the active one.
    """
    last = next(
        (name for name in reversed(run.reclusterings()) if not active.was_ever_active(name) and is_of_current_pool(run, name)),
        None,
    )
    if last is None or (active.name != INITIAL_CLUSTERING and last < active.name):
        return None
    stored = run.reclustering(last).require().config
    same = Identity("cluster", stored, {}).fingerprint == Identity("cluster", _settings(config), {}).fingerprint
    return last if same else None


def _settings(config: RunConfig) -> dict[str, Any]:
    return config.cluster.fingerprint_settings() | {"seed": config.seed}


def _identity(config: RunConfig, run: RunDir, traffic: pa.Table) -> Identity:
    inputs = {"embeddings": run.embeddings.require().fingerprint}
    if len(traffic):
        rows = traffic.select(["language", "row_id", "time"]).to_pylist()
        inputs["traffic"] = content_hash(*(f"{row['language']} {row['row_id']} {row['time']!r}" for row in rows))
    return Identity("cluster", _settings(config), inputs)


def _is_current(run: RunDir, active: ActiveClustering, identity: Identity, traffic: pa.Table) -> bool:
    """Whether a fit would give the active clustering, or one fitted on less traffic."""
    current = run.reclustering(active.name).require()
    same_settings = Identity(identity.stage, current.config, identity.inputs).fingerprint == identity.fingerprint
    return current.fingerprint == identity.fingerprint or (same_settings and not len(traffic))


def _fit_new_clustering(config: RunConfig, run: RunDir, identity: Identity, traffic: pa.Table) -> str:
    name = f"c{max((int(each[1:]) for each in run.reclusterings()), default=1) + 1:04d}"
    _task(config, _fit, run.uri, config.model_dump(mode="json"), name, identity, traffic)
    return name


def _fit(uri: str, settings: Mapping[str, Any], name: str, identity: Identity, traffic: pa.Table) -> None:
    """Ray task: embed the retained texts, fit, and write the clustering."""
    from compass_ray.stages.cluster import ExtraRows, fit_and_store

    config, run = RunConfig.model_validate(settings), RunDir(uri)
    embedded = embed_rows(traffic, make_prompt_encoder(config.embed))
    extra = ExtraRows(embedded.vectors, embedded.rows["language"].to_pylist()) if len(embedded.vectors) else None
    fit_and_store(config, run, run.reclustering(name), identity, extra)


def _make_references(config: RunConfig, run: RunDir, name: str) -> dict[str, str]:
    wanted = [(code, version) for code in config.languages for version in _versions_to_reference(run, code)]
    made: dict[str, str] = (
        _task(config, _references_task, run.uri, config.model_dump(mode="json"), name, wanted) if wanted else {}
    )
    return made


def _versions_to_reference(run: RunDir, language: str) -> list[str]:
    """The live version, its canary and shadow, and versions to roll back to, as far as they have a reference."""
    live = registry.read_pointer(run, language).live
    if live is None:
        return []
    candidates = [live.canary.version if live.canary else None, live.shadow]
    past = [past.version for past in live.history[-_ROLLBACK_VERSIONS:]]
    return [v for v in dict.fromkeys([live.version, *candidates, *past]) if v and read_published_reference(run, language, v)]


def _references_task(uri: str, settings: Mapping[str, Any], name: str, wanted: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Ray task: compute the references of some versions. A failure of one does not stop the others."""
    config, run = RunConfig.model_validate(settings), RunDir(uri)
    encode, made = make_prompt_encoder(config.embed), {}
    for language, version in wanted:
        try:
            made[f"{language}@{version}"] = ensure_reference(config, run, name, language, version, encode)
        except (ArtifactError, FileNotFoundError) as error:
            made[f"{language}@{version}"] = f"none: {error}"
    return made


def _task(config: RunConfig, function: Any, *arguments: Any) -> Any:
    """The result of a Ray task with the resources of the cluster stage."""
    ray_session.start(config.resources)
    ray_session.require_worker_capacity(config.resources, "the re-clustering")
    import ray

    resources = config.resources
    options = {"num_cpus": resources.cpus_per_worker, "num_gpus": resources.gpus_per_worker}
    task = ray.remote(function).options(**options, resources=dict(resources.worker_resources), max_retries=resources.max_failures)
    return ray.get(task.remote(*arguments))


def _record(run: RunDir, config: RunConfig, before: str, name: str, reason: str) -> None:
    for code in config.languages:
        registry.append_decision(run, ReclusterRecord(language=code, clusters=name, clusters_before=before, reason=reason))


def _result(config: RunConfig, run: RunDir, name: str, before: str, references: Mapping[str, str]) -> ReclusterResult:
    clusters = run.reclustering(name)
    metrics = clusters.require().metrics
    return ReclusterResult(
        name,
        before,
        int(metrics.get("beside", 0)),
        int(metrics["clusters"]),
        float(metrics["noise_share"]),
        references,
        tuple(f"{each.found}; {each.remedy}" for each in find_artifact_degeneracies(config, run, clusters)),
    )
