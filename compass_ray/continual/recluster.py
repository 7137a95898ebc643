"""Full re-clustering: clusters of the pool together with what is kept of the traffic, and references counted in them.

Key property: ``clusters`` and all that was made of it stay; a new clustering stands beside it with its references before one
pointer is moved to it. Killed before that, a whole clustering is finished and not fitted again; a part of one is begun anew. No
prompt of the traffic becomes a row of the pool. The reset that the paper leaves open (section 3.3.1).
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

_ROLLBACK_VERSIONS = 3
"""Versions that were live before whose references are made too; those of older ones are made when they are live again."""
_NOTHING_NEW = "no traffic is kept that they were not fitted on, and the settings are the same"


@dataclass(frozen=True)
class ReclusterResult:
    """What came of a re-clustering: the clustering in use now, the one before, and what each reference was made of."""

    name: str
    before: str
    prompts: int
    clusters: int
    noise_share: float
    references: Mapping[str, str]
    """By language and version, as in ``sw@v0002``."""

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return self.name != self.before

    def summarize(self) -> list[str]:
        """The outcome for a terminal."""
        if not self.changed:
            return [f"nothing to do: traffic is counted in {self.name}, and {_NOTHING_NEW}"]
        fitted = f"{self.clusters} clusters, {self.noise_share:.1%} of the pool noise, fitted with {self.prompts} prompts"
        told = [f"reference of {name}: {of}" for name, of in sorted(self.references.items())]
        return [f"traffic is counted in {self.name} now, in {self.before} before: {fitted}", *told]


def recluster(config: RunConfig, run: RunDir, *, reason: str = "asked for", progress: Progress = silent) -> ReclusterResult:
    """Fit the configured clusterer anew, count every live version's reference in it, and watch traffic in it from then on.

    Raises:
        ConfigError: languages have clusters of their own, or no machine of the cluster can hold the fit.
        ArtifactError: the run has no clusters yet, or another process has changed which are in use meanwhile.
        ModelError: nothing can be fitted.
    """
    if config.cluster.scope != "shared":
        raise ConfigError("cluster.scope is per_language, and traffic is watched in clusters that all languages share")
    run.clusters.require()
    found = read_active(run)
    name = _unfinished_clustering(config, run, found)
    if name is None:
        traffic = read_retained_traffic(run, config.languages, run.pool.read_table("rows.parquet", ["row_id"]).num_rows)
        identity = _identity(config, run, traffic)
        if _is_current(run, found, identity, traffic):
            return _result(run, found.name, found.name, {})
        name = _fit_new_clustering(config, run, identity, traffic)
    progress("recluster", 1, 2)
    references = _make_references(config, run, name)
    set_active(run, found, name, reason=reason)
    _record(run, config, found.name, name, reason)
    progress("recluster", 2, 2)
    return _result(run, name, found.name, references)


def _unfinished_clustering(config: RunConfig, run: RunDir, found: ActiveClustering) -> str | None:
    """A whole clustering of this very pool that was never used: only its references and the pointer are missing.

    It has the settings that are asked for, and is newer than the one in use.
    """
    last = next(
        (name for name in reversed(run.reclusterings()) if not found.was_ever_active(name) and is_of_current_pool(run, name)),
        None,
    )
    if last is None or (found.name != INITIAL_CLUSTERING and last < found.name):
        return None
    made = run.reclustering(last).require().config
    same = Identity("cluster", made, {}).fingerprint == Identity("cluster", _settings(config), {}).fingerprint
    return last if same else None


def _settings(config: RunConfig) -> dict[str, Any]:
    return config.cluster.fingerprint_settings() | {"seed": config.seed}


def _identity(config: RunConfig, run: RunDir, traffic: pa.Table) -> Identity:
    inputs = {"embeddings": run.embeddings.require().fingerprint}
    if len(traffic):
        kept = traffic.select(["language", "row_id", "time"]).to_pylist()
        inputs["traffic"] = content_hash(*(f"{row['language']} {row['row_id']} {row['time']!r}" for row in kept))
    return Identity("cluster", _settings(config), inputs)


def _is_current(run: RunDir, found: ActiveClustering, identity: Identity, traffic: pa.Table) -> bool:
    """Whether a fit would give the clustering that is in use, or one that knows less traffic than it."""
    now = run.reclustering(found.name).require()
    alike = Identity(identity.stage, now.config, identity.inputs).fingerprint == identity.fingerprint
    return now.fingerprint == identity.fingerprint or (alike and not len(traffic))


def _fit_new_clustering(config: RunConfig, run: RunDir, identity: Identity, traffic: pa.Table) -> str:
    name = f"c{max((int(each[1:]) for each in run.reclusterings()), default=1) + 1:04d}"
    _task(config, _fit, run.uri, config.model_dump(mode="json"), name, identity, traffic)
    return name


def _fit(uri: str, settings: Mapping[str, Any], name: str, identity: Identity, traffic: pa.Table) -> None:
    """Ray task: embed what is kept as text, fit, and write the clustering."""
    from compass_ray.stages.cluster import ExtraRows, fit_and_store

    config, run = RunConfig.model_validate(settings), RunDir(uri)
    known = embed_rows(traffic, make_prompt_encoder(config.embed))
    beside = ExtraRows(known.vectors, known.rows["language"].to_pylist()) if len(known.vectors) else None
    fit_and_store(config, run, run.reclustering(name), identity, beside)


def _make_references(config: RunConfig, run: RunDir, name: str) -> dict[str, str]:
    wanted = [(code, version) for code in config.languages for version in _versions_to_reference(run, code)]
    made: dict[str, str] = (
        _task(config, _references_task, run.uri, config.model_dump(mode="json"), name, wanted) if wanted else {}
    )
    return made


def _versions_to_reference(run: RunDir, language: str) -> list[str]:
    """Versions that are live, on trial, or a roll-back away, and that traffic can be compared with."""
    live = registry.read_pointer(run, language).live
    if live is None:
        return []
    tried = [live.canary.version if live.canary else None, live.shadow]
    past = [past.version for past in live.history[-_ROLLBACK_VERSIONS:]]
    return [v for v in dict.fromkeys([live.version, *tried, *past]) if v and read_published_reference(run, language, v)]


def _references_task(uri: str, settings: Mapping[str, Any], name: str, wanted: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Ray task: the references of some versions; what one of them lacks stops no other."""
    config, run = RunConfig.model_validate(settings), RunDir(uri)
    encode, made = make_prompt_encoder(config.embed), {}
    for language, version in wanted:
        try:
            made[f"{language}@{version}"] = ensure_reference(config, run, name, language, version, encode)
        except (ArtifactError, FileNotFoundError) as error:
            made[f"{language}@{version}"] = f"none, as {error}"
    return made


def _task(config: RunConfig, function: Any, *arguments: Any) -> Any:
    """The result of a Ray task with the room and the machines that the cluster stage has."""
    ray_session.start(config.resources)
    ray_session.require_worker_capacity(config.resources, "the re-clustering")
    import ray

    resources = config.resources
    options = {"num_cpus": resources.cpus_per_worker, "num_gpus": resources.gpus_per_worker}
    task = ray.remote(function).options(**options, resources=dict(resources.worker_resources), max_retries=resources.max_failures)
    return ray.get(task.remote(*arguments))


def _record(run: RunDir, config: RunConfig, before: str, name: str, reason: str) -> None:
    for code in config.languages:
        line = {"kind": "recluster", "language": code, "clusters": name, "clusters_before": before, "reason": reason}
        registry.append_decision(run, line)


def _result(run: RunDir, name: str, before: str, references: Mapping[str, str]) -> ReclusterResult:
    metrics = run.reclustering(name).require().metrics
    return ReclusterResult(
        name, before, int(metrics.get("beside", 0)), int(metrics["clusters"]), float(metrics["noise_share"]), references
    )
