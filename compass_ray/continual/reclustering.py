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

from compass_ray import ray_session
from compass_ray.artifacts import ArtifactError, Identity, RunDir, content_hash
from compass_ray.config import ConfigError, RunConfig
from compass_ray.progress import Progress, silent
from compass_ray.serving import registry
from compass_ray.serving.monitoring.kept import embedded, encoding, kept_traffic
from compass_ray.serving.monitoring.references import leave_reference, own_reference
from compass_ray.watched_clusters import FITTED, InUse, in_use, of_this_pool, use

_ROLL_BACKS = 3
"""Versions that were live before whose references are made too; those of older ones are made when they are live again."""
_NONE_KEPT = "no traffic is kept that they were not fitted on, and the settings are the same"


@dataclass(frozen=True)
class Reclustered:
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

    def sentences(self) -> list[str]:
        """The outcome for a terminal."""
        if not self.changed:
            return [f"nothing to do: traffic is counted in {self.name}, and {_NONE_KEPT}"]
        fitted = f"{self.clusters} clusters, {self.noise_share:.1%} of the pool noise, fitted with {self.prompts} prompts"
        told = [f"reference of {name}: {of}" for name, of in sorted(self.references.items())]
        return [f"traffic is counted in {self.name} now, in {self.before} before: {fitted}", *told]


def recluster(config: RunConfig, run: RunDir, *, reason: str = "asked for", progress: Progress = silent) -> Reclustered:
    """Fit the configured clusterer anew, count every live version's reference in it, and watch traffic in it from then on.

    Raises:
        ConfigError: languages have clusters of their own, or no machine of the cluster can hold the fit.
        ArtifactError: the run has no clusters yet, or another process has changed which are in use meanwhile.
        ModelError: nothing can be fitted.
    """
    if config.cluster.scope != "shared":
        raise ConfigError("cluster.scope is per_language, and traffic is watched in clusters that all languages share")
    run.clusters.require()
    found = in_use(run)
    name = _interrupted(config, run, found)
    if name is None:
        traffic = kept_traffic(run, config.languages, run.pool.read_table("rows.parquet", ["row_id"]).num_rows)
        identity = _identity(config, run, traffic)
        if _stands(run, found, identity, traffic):
            return _outcome(run, found.name, found.name, {})
        name = _fitted(config, run, identity, traffic)
    progress("recluster", 1, 2)
    references = _references(config, run, name)
    use(run, found, name, reason=reason)
    _record(run, config, found.name, name, reason)
    progress("recluster", 2, 2)
    return _outcome(run, name, found.name, references)


def _interrupted(config: RunConfig, run: RunDir, found: InUse) -> str | None:
    """A whole clustering of this very pool that was never used: only its references and the pointer are missing.

    It has the settings that are asked for, and is newer than the one in use.
    """
    last = next((name for name in reversed(run.refits()) if not found.knows(name) and of_this_pool(run, name)), None)
    if last is None or (found.name != FITTED and last < found.name):
        return None
    made = run.refitted(last).require().config
    same = Identity("cluster", made, {}).fingerprint == Identity("cluster", _settings(config), {}).fingerprint
    return last if same else None


def _settings(config: RunConfig) -> dict[str, Any]:
    return config.cluster.model_dump() | {"seed": config.seed}


def _identity(config: RunConfig, run: RunDir, traffic: pa.Table) -> Identity:
    inputs = {"embeddings": run.embeddings.require().fingerprint}
    if len(traffic):
        kept = traffic.select(["language", "row_id", "time"]).to_pylist()
        inputs["traffic"] = content_hash(*(f"{row['language']} {row['row_id']} {row['time']!r}" for row in kept))
    return Identity("cluster", _settings(config), inputs)


def _stands(run: RunDir, found: InUse, identity: Identity, traffic: pa.Table) -> bool:
    """Whether a fit would give the clustering that is in use, or one that knows less traffic than it."""
    now = run.refitted(found.name).require()
    alike = Identity(identity.stage, now.config, identity.inputs).fingerprint == identity.fingerprint
    return now.fingerprint == identity.fingerprint or (alike and not len(traffic))


def _fitted(config: RunConfig, run: RunDir, identity: Identity, traffic: pa.Table) -> str:
    name = f"c{max((int(each[1:]) for each in run.refits()), default=1) + 1:04d}"
    _task(config, _fit, run.uri, config.model_dump(mode="json"), name, identity, traffic)
    return name


def _fit(uri: str, settings: Mapping[str, Any], name: str, identity: Identity, traffic: pa.Table) -> None:
    """Ray task: embed what is kept as text, fit, and write the clustering."""
    from compass_ray.stages.cluster import Beside, fit_into

    config, run = RunConfig.model_validate(settings), RunDir(uri)
    known = embedded(traffic, encoding(config.embed))
    beside = Beside(known.vectors, known.rows["language"].to_pylist()) if len(known.vectors) else None
    fit_into(config, run, run.refitted(name), identity, beside)


def _references(config: RunConfig, run: RunDir, name: str) -> dict[str, str]:
    wanted = [(code, version) for code in config.languages for version in _versions(run, code)]
    made: dict[str, str] = _task(config, _refer, run.uri, config.model_dump(mode="json"), name, wanted) if wanted else {}
    return made


def _versions(run: RunDir, language: str) -> list[str]:
    """Versions that are live, on trial, or a roll-back away, and that traffic can be compared with."""
    live = registry.look(run, language).live
    if live is None:
        return []
    tried = [live.canary.version if live.canary else None, live.shadow]
    past = [past.version for past in live.history[-_ROLL_BACKS:]]
    return [v for v in dict.fromkeys([live.version, *tried, *past]) if v and own_reference(run, language, v)]


def _refer(uri: str, settings: Mapping[str, Any], name: str, wanted: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Ray task: the references of some versions; what one of them lacks stops no other."""
    config, run = RunConfig.model_validate(settings), RunDir(uri)
    encode, made = encoding(config.embed), {}
    for language, version in wanted:
        try:
            made[f"{language}@{version}"] = leave_reference(config, run, name, language, version, encode)
        except (ArtifactError, FileNotFoundError) as error:
            made[f"{language}@{version}"] = f"none, as {error}"
    return made


def _task(config: RunConfig, function: Any, *arguments: Any) -> Any:
    """The result of a Ray task with the room and the machines that the cluster stage has."""
    ray_session.start(config.resources)
    ray_session.require_worker(config.resources, "the re-clustering")
    import ray

    resources = config.resources
    options = {"num_cpus": resources.cpus_per_worker, "num_gpus": resources.gpus_per_worker}
    task = ray.remote(function).options(**options, resources=dict(resources.worker_resources), max_retries=resources.max_failures)
    return ray.get(task.remote(*arguments))


def _record(run: RunDir, config: RunConfig, before: str, name: str, reason: str) -> None:
    for code in config.languages:
        line = {"kind": "recluster", "language": code, "clusters": name, "clusters_before": before, "reason": reason}
        registry.append_decision(run, line)


def _outcome(run: RunDir, name: str, before: str, references: Mapping[str, str]) -> Reclustered:
    metrics = run.refitted(name).require().metrics
    return Reclustered(
        name, before, int(metrics.get("beside", 0)), int(metrics["clusters"]), float(metrics["noise_share"]), references
    )
