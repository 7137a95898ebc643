"""The product's stages in this process: what they make and reuse is the same, only Ray and its workers are left out.

A language's adapter takes about a minute, and a Ray worker half of that to start. Each stage hands its pending work to one
function that runs it on Ray; here it is replaced by a loop. The base model and the encoder are loaded once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from compass_ray.artifacts import SHARED, Identity, Output, RunDir
from compass_ray.config import RunConfig, TrainConfig
from compass_ray.models import base_model
from compass_ray.models.base_model import BaseModel
from compass_ray.progress import Progress
from compass_ray.stages import cluster, embed, evaluate, pool, select
from compass_ray.stages.train.train_jobs import Job, plan
from compass_ray.training.adapter_job import train_adapter

_load = base_model.load_base


@contextmanager
def without_ray() -> Iterator[None]:
    """Stages work in this process while the block runs."""
    with (
        patch.object(pool, "_read", _read),
        patch.object(embed, "_embed", _embed),
        patch.object(select, "_select", _select),
        patch.object(evaluate, "_score", _score),
        patch.object(base_model, "load_base", load_shared_base),
    ):
        yield


def load_shared_base(config: TrainConfig, *, device: str | None = None) -> BaseModel:
    """The base model of a configuration, loaded once."""
    return _cached_base(config.base_model, config.revision, config.dtype, device)


@functools.lru_cache(maxsize=1)
def _cached_base(model: str, revision: str | None, dtype: Any, device: str | None) -> BaseModel:
    return _load(TrainConfig(base_model=model, revision=revision, dtype=dtype), device=device)


def fit_clusters(config: RunConfig, run: RunDir) -> None:
    """The stage `cluster` of a clustering that all languages share."""
    identity = cluster._identity(config, run, SHARED)
    if not run.clusters.find_complete(identity):
        cluster.fit_and_store(config, run, run.clusters, identity)


def train(config: RunConfig, run: RunDir, job: Job) -> None:
    """Train one adapter, without what only a served adapter needs."""
    adapter = plan(config, run, job)
    if not adapter.artifact.find_complete(adapter.identity):
        adapter.artifact.begin(adapter.identity, keep_partial=True)  # removes the state of a training under other settings
        train_adapter(config, run, replace(adapter, served=False), load_shared_base(config.train))


def _read(config: RunConfig, run: RunDir, pending: Mapping[str, Identity], progress: Progress, total: int) -> None:
    for whose, identity in pending.items():
        pool.read_sources(run.uri, config.model_dump(mode="json"), whose, identity, pool.SourceEnvironment({}))


def _embed(config: RunConfig, run: RunDir, shards: list[int], guides: list[str], progress: Progress) -> list[embed.ShardOutput]:
    embedder = embed.ShardEmbedder(run.uri, config.model_dump(mode="json"), config.resources.threads_per_worker)
    work = [(shard, "") for shard in shards] + [(-1, language) for language in guides]
    found = []
    for done, (shard, language) in enumerate(work, start=1):
        made = {name: values[0] for name, values in embedder(_unit(shard, language)).items()}
        output, encoder = Output.model_validate_json(str(made["output"])), {"in_process": True}
        found.append(embed.ShardOutput(str(made["artifact"]), output, float(made["seconds"]), str(made["device"]), encoder))
        progress("embed", done, len(work))
    return found


def _unit(shard: int, language: str) -> dict[str, np.ndarray]:
    return {"shard": np.array([shard]), "language": np.array([language])}


def _select(
    config: RunConfig, run: RunDir, pending: Sequence[tuple[str, str]], progress: Progress, ready: select.OnReady
) -> dict[str, str]:
    for owner in dict.fromkeys(owner for _, owner in pending):
        methods = [method for method, each in pending if each == owner]
        select.select_language(run.uri, config.model_dump(mode="json"), owner, methods)
        ready(owner)
    return {}


def _score(config: RunConfig, run: RunDir, pending: list[evaluate.Evaluation], progress: Progress, total: int) -> list[str]:
    scorer = evaluate.Scorer(run.uri, config.model_dump(mode="json"))
    for each in pending:
        scorer.score(each, evaluate._identity(config, run, each), evaluate.read_texts(config, each.language))
    return []
