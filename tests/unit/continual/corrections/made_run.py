"""A hand-written run with a pool, clusters, a test set and a selected first version; words replace languages and models."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from compass_ray import schemas
from compass_ray.artifacts import Identity, RunDir
from compass_ray.clustering.versions import INITIAL_CLUSTERING, ClusterSpace
from compass_ray.config import RunConfig, parse_config
from compass_ray.continual.corrections import FilterModels
from compass_ray.core.instance_scores import pool_scores
from compass_ray.models.language_id import LanguagePrediction
from compass_ray.monitoring.cluster_assigner import EmbeddingAssigner, PromptAssigner
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import Feedback, Observation
from compass_ray.row_selection import store_pool
from tests.unit.fakes import make_allocation

NOW = 1000.0
DIMENSION = 256
TESTED = "sw swali la mtihani kuhusu milima ya nchi hii"
POOLED = "sw swali la kale kuhusu bahari na samaki wake"


class WordEmbedder:
    """Texts with the same words, in any order, have the same embedding."""

    def encode(self, prompts: Sequence[str], *, batch_size: int) -> npt.NDArray[np.float32]:
        found = np.zeros((len(prompts), DIMENSION), np.float32)
        for row, prompt in zip(found, prompts, strict=True):
            for word in prompt.split():
                row[zlib.crc32(word.encode()) % DIMENSION] += 1.0
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


class NearestOf:
    """Assigns the nearest centroid."""

    def __init__(self, centroids: npt.NDArray[np.float32]) -> None:
        self.centroids = centroids

    def assign(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        return np.asarray((embeddings @ self.centroids.T).argmax(axis=1), np.int32)


class FirstWord:
    """The language of a text is its first word; a ``maybe`` before it lowers the confidence."""

    def identify(self, texts: Sequence[str], restrict: Collection[str] | None = None) -> list[LanguagePrediction]:
        return [self._one(text.split(), restrict or ()) for text in texts]

    def _one(self, words: list[str], known: Collection[str]) -> LanguagePrediction:
        sure = words[0] != "maybe"
        word = words[0] if sure else words[1]
        return LanguagePrediction(word if word in known else None, word, 0.9 if sure else 0.2)


CENTROIDS = WordEmbedder().encode(["sw mji na nchi", "sw samaki na bahari"], batch_size=1)
ASSIGNER = EmbeddingAssigner.of(NearestOf(CENTROIDS), np.array([0, 1], np.int32))
MODELS = FilterModels(PromptAssigner(WordEmbedder(), ClusterSpace(INITIAL_CLUSTERING), lambda space: ASSIGNER), FirstWord())


def config_of(corrections: str = "all", **update: Any) -> RunConfig:
    adapter = {"r": 4, "alpha": 8}
    return parse_config(
        {
            "languages": ["sw", "de"],
            "train": {"adapter": adapter, "epochs": 1, "batch_size": 8, "holdout": 0.25, "max_tokens": 200},
            "update": {"corrections": corrections, "epochs": 1, "anchors": 1.0, "budget": 1.0, **update},
        }
    )


def make_run(uri: str, config: RunConfig) -> RunDir:
    """Version ``v0001`` of Swahili was selected; nothing is trained or live."""
    run = RunDir(uri)
    run.write_config(config)
    pool = _pool()
    writer = run.pool.begin(Identity("pool", {}, {}))
    writer.write_table("rows.parquet", pool)
    writer.publish()
    vectors = WordEmbedder().encode(pool["prompt"].to_pylist(), batch_size=64)
    labels, coarse = NearestOf(CENTROIDS).assign(vectors), np.array([0, 1], np.int32)
    writer = run.clusters.begin(Identity("cluster", {}, {}))
    store_pool(writer, pool, vectors, labels, coarse, pool_scores(vectors, labels, CENTROIDS))
    writer.write_array("centroids.npy", CENTROIDS)
    writer.write_array("coarse.npy", coarse)
    writer.publish()
    writer = run.guide("sw").begin(Identity("guide", {}, {}))
    writer.write_table("test.parquet", pa.table({"question": [TESTED]}))
    writer.publish()
    _first_selection(run, pool)
    return run


def _pool() -> pa.Table:
    own = [POOLED, *(f"sw mji namba {n} katika nchi ya {n * 7}" for n in range(7))]
    others = [f"de stadt nummer {n} und {n * 3} fisch" for n in range(40)]
    rows = [
        {"row_id": f"row-{n:03}", "prompt": text, "response": f"jibu {n}", "language": text[:2], "source": "made"}
        for n, text in enumerate(own + others)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.POOL)


def _first_selection(run: RunDir, pool: pa.Table) -> None:
    own = pool.filter(pa.array([code == "sw" for code in pool["language"].to_pylist()]))
    labels = NearestOf(CENTROIDS).assign(WordEmbedder().encode(own["prompt"].to_pylist(), batch_size=64))
    rows = [
        {"row_id": name, "role": "target", "language": "sw", "cluster": int(label), "order": -1, "weight": 1.0}
        for name, label in zip(own["row_id"].to_pylist(), labels, strict=True)
    ]
    writer = run.selection("compass", "sw").begin(Identity("select", {}, {}))
    writer.write_table("rows.parquet", pa.Table.from_pylist(rows, schema=schemas.SELECTED))
    make_allocation(3, 1).write(writer)
    writer.publish()


def feed(
    run: RunDir, config: RunConfig, corrected: Sequence[tuple[str, str, str | None]], start: int = 0, *, single_turn: bool = True
) -> None:
    """Record prompts and corrections of their replies; ``corrected`` has prompt, correction and API key of each."""
    monitor = TrafficMonitor(run, config, MODELS.prompt_assigner, lambda: NOW)
    for first in range(0, len(corrected), config.drift.window):
        batch = list(enumerate(corrected[first : first + config.drift.window], start + first))
        monitor.record(
            [Observation(f"id-{n}", "sw", prompt, "v0001", 1.0, NOW, key, single_turn) for n, (prompt, _, key) in batch]
        )
        monitor.record_feedback([Feedback(f"id-{n}", None, correction, None, key, NOW) for n, (_, correction, key) in batch])
