"""Prompts of simulated users: assigned to the clusters of a run once, and stored in the run without their texts.

They are real prompts of the language with a known subject: its guide set, its own pool rows, and optionally its test
questions. The encoder and the clusters of the run assign them, as in the service. Nothing is drawn here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import ray_session
from compass_ray.artifacts import Artifact, Identity, RunDir
from compass_ray.clustering.versions import INITIAL_CLUSTERING, ClusterSpace
from compass_ray.config import ConfigError, RunConfig
from compass_ray.core.array_checks import IntArray
from compass_ray.evaluation.simulation.drift.reference_policies import PromptsAndSelectedRows, PromptsOnly
from compass_ray.evaluation.simulation.drift.settings import SimulationSettings
from compass_ray.evaluation.simulation.drift.streams import PromptBank
from compass_ray.monitoring.cluster_assigner import load_prompt_assigner

FILE = "prompts.parquet"
_GUIDE, _POOL, _TEST = "guide", "pool", "test"


def prepare_prompts(config: RunConfig, run: RunDir, language: str, plan: SimulationSettings) -> Artifact:
    """Assign the prompts of a language to clusters in a Ray task, unless that is done.

    Raises:
        ArtifactError: the run has no clusters or guide set yet.
        ConfigError: no machine of the cluster can hold the encoder.
    """
    if not is_prepared(run, language, plan):
        ray_session.start(config.resources)
        ray_session.require_worker_capacity(config.resources, f"assigning prompts of {language} to clusters")
        import ray

        resources = config.resources
        task = ray.remote(write_prompts).options(
            num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker, resources=dict(resources.worker_resources)
        )
        ray.get(task.remote(run.uri, config.model_dump(mode="json"), language, plan))
    return run.simulation(language, "prompts")


def is_prepared(run: RunDir, language: str, plan: SimulationSettings) -> bool:
    """Whether the stored prompts match the plan.

    Raises:
        ArtifactError: the run has no clusters or guide set yet.
    """
    expected, manifest = _identity(run, language, plan), run.simulation(language, "prompts").manifest()
    return manifest is not None and manifest.fingerprint == expected.fingerprint


def write_prompts(uri: str, settings: Mapping[str, Any], language: str, plan: SimulationSettings) -> None:
    """Ray task: write the cluster of each prompt."""
    config, run = RunConfig.model_validate(settings), RunDir(uri)
    rows = pa.concat_tables([_own_rows(run, language), _cluster_guide_and_test(config, run, language, plan)])
    bounded = rows.take(_first_rows_by_subject(rows, plan.per_subject))
    writer = run.simulation(language, "prompts").begin(_identity(run, language, plan))
    writer.write_table(FILE, bounded)
    writer.publish({"prompts": bounded.num_rows, "subjects": len(pc.unique(bounded["subject"]))})


def read_prompts(run: RunDir, language: str) -> PromptBank:
    """Read what `write_prompts` wrote."""
    rows = run.simulation(language, "prompts").read_table(FILE)
    guide = rows.filter(pc.equal(rows["part"], _GUIDE))
    return PromptBank(_by_subject(rows), _by_subject(guide), run.clusters.read_array("coarse.npy").astype(np.int64))


def initial_references(
    config: RunConfig, run: RunDir, language: str, prompts: PromptBank, clusters: IntArray, rng: np.random.Generator
) -> tuple[PromptsOnly, PromptsAndSelectedRows]:
    """References of a first adapter for prompts in fine ``clusters`` int64[n], by both policies.

    Raises:
        ConfigError: there are no such prompts.
    """
    if not len(clusters):
        raise ConfigError(f"no guide prompt of {language} is about the first subjects of the scenario; choose another --scenario")
    assigned = run.clusters.map_table("assignments.arrow")
    pool, own = assigned["cluster"].to_numpy(), pc.equal(assigned["language"], language).to_numpy(zero_copy_only=False)
    counts = [np.bincount(pool[mask & (pool >= 0)], minlength=len(prompts.coarse)) for mask in (own, ~own)]
    factor = config.select.budget if isinstance(config.select.budget, float) else config.update.budget
    printed = PromptsAndSelectedRows(config.select, factor, int(own.sum()), counts[0], counts[1])
    return PromptsOnly().after_update(prompts, clusters, rng), printed.after_update(prompts, clusters, rng)


def _identity(run: RunDir, language: str, plan: SimulationSettings) -> Identity:
    inputs = {each.name: each.require().fingerprint for each in (run.clusters, run.guide(language))}
    return Identity("simulate", {"tests": plan.tests, "per_subject": plan.per_subject}, inputs)


def _own_rows(run: RunDir, language: str) -> pa.Table:
    """The language's pool rows with a known subject."""
    assigned = run.clusters.map_table("assignments.arrow").select(["language", "subject", "cluster"])
    own = assigned.filter(pc.and_(pc.equal(assigned["language"], language), pc.is_valid(assigned["subject"])))
    return _table(own["subject"].cast(pa.string()).to_pylist(), own["cluster"].to_numpy(), _POOL)


def _cluster_guide_and_test(config: RunConfig, run: RunDir, language: str, plan: SimulationSettings) -> pa.Table:
    """Guide prompts and, if the plan has them, test questions, with their clusters."""
    guide = run.guide(language).read_table("guide.parquet", ["prompt", "subject"])
    parts = [(guide["prompt"], guide["subject"], _GUIDE)]
    if plan.tests:
        test = run.guide(language).read_table("test.parquet", ["question", "subject"])
        chosen = test.take(_first_rows_by_subject(test, plan.per_subject))
        parts.append((chosen["question"], chosen["subject"], _TEST))
    assigner = load_prompt_assigner(run, config, ClusterSpace(INITIAL_CLUSTERING))
    rows = pa.concat_tables([_table(s.to_pylist(), assigner.assign(p.to_pylist()).cluster, part) for p, s, part in parts])
    return rows.filter(pc.is_valid(rows["subject"]))


def _table(subjects: list[str | None], clusters: np.ndarray, part: str) -> pa.Table:
    columns = {"subject": pa.array(subjects, pa.string()), "cluster": pa.array(clusters, pa.int32())}
    return pa.table(columns | {"part": pa.array([part] * len(subjects), pa.string())})


def _first_rows_by_subject(rows: pa.Table, limit: int) -> IntArray:
    """Indices int64[m] of the first ``limit`` rows of each subject, ascending."""
    subjects = np.asarray(rows["subject"].to_pylist(), dtype=object)
    found = [np.flatnonzero(subjects == subject)[:limit] for subject in dict.fromkeys(subjects)]
    return np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)


def _by_subject(rows: pa.Table) -> dict[str, IntArray]:
    subjects, clusters = np.asarray(rows["subject"].to_pylist(), dtype=object), rows["cluster"].to_numpy().astype(np.int64)
    return {subject: clusters[subjects == subject] for subject in sorted(set(subjects))}
