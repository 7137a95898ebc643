"""One target language's selection from a run's artefacts: labels and scores in, selected rows and their record out.

Joins what the stages left on disk with the pure selection of `core`; used for the first selection of a language and,
with a traffic window as the guide set, for its updates. No Ray; writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from compass_ray import tables
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig, SelectConfig
from compass_ray.core.bias import Bias, simulate_bias
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.gap import measure_gap
from compass_ray.core.instance_scores import Boundary
from compass_ray.core.pseudo_subjects import pseudo_subjects
from compass_ray.core.quotas import Overflow
from compass_ray.core.sampling import Mode
from compass_ray.core.seeding import generator
from compass_ray.core.selection import Candidates, Method, Rule, Selection, select_rows
from compass_ray.core.weights import Weighting
from compass_ray.models.clusterers import Clusterer
from compass_ray.sources.guides import prompt_key

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PoolView:
    """The pool as selection sees it, every array in order of row_id."""

    row_id: npt.NDArray[np.str_]
    prompt_key: list[str]
    language: npt.NDArray[np.str_]
    subject: list[str | None]
    cluster: IntArray
    proto: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    position: IntArray
    """Row of `vectors` that belongs to each row."""
    vectors: npt.NDArray[np.float16]
    """Embeddings (n, d) in the pool's own order, memory-mapped where the run is local."""
    n_clusters: int

    @classmethod
    def read(cls, run: RunDir) -> PoolView:
        """Read labels, scores and vectors of the whole pool."""
        rows = run.pool.read_table("rows.parquet", ["row_id", "prompt", "language", "subject"])
        assigned = run.clusters.read_table("assignments.parquet")
        row_id = np.asarray(rows["row_id"].to_pylist())
        order = np.argsort(row_id, kind="stable")
        return cls(
            row_id=row_id[order],
            prompt_key=[prompt_key(p) for p in rows["prompt"].take(order).to_pylist()],
            language=np.asarray(rows["language"].to_pylist())[order],
            subject=rows["subject"].take(order).to_pylist(),
            cluster=assigned["cluster"].to_numpy()[order].astype(np.int64),
            proto=assigned["proto"].to_numpy()[order],
            margin=assigned["margin"].to_numpy()[order],
            position=order,
            vectors=run.clusters.map_array("vectors.npy"),
            n_clusters=len(run.clusters.read_array("centroids.npy")),
        )

    def embeddings(self, indices: IntArray) -> npt.NDArray[np.float32]:
        """Unit rows float32 (m, d) of some rows."""
        found = np.asarray(self.vectors[self.position[indices]], dtype=np.float32)
        length = np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return np.asarray(found / length, dtype=np.float32)


@dataclass(frozen=True)
class Guide:
    """A guide set with its clusters; `tested` holds the keys of test questions, which no training row may equal."""

    labels: IntArray
    vectors: npt.NDArray[np.float32]
    subjects: list[str | None]
    tested: frozenset[str]

    @classmethod
    def read(cls, run: RunDir, language: str, clusterer: Clusterer) -> Guide:
        """Read a language's guide set and assign it to clusters."""
        vectors = run.guide_embeddings(language).read_embeddings()
        return cls(
            labels=clusterer.assign(vectors).astype(np.int64),
            vectors=vectors,
            subjects=run.guide(language).read_table("guide.parquet", ["subject"])["subject"].to_pylist(),
            tested=tested_keys(run, language),
        )


def tested_keys(run: RunDir, language: str) -> frozenset[str]:
    """Keys of a language's test questions."""
    questions = run.guide(language).read_table("test.parquet", ["question"])["question"].to_pylist()
    return frozenset(prompt_key(question) for question in questions)


@dataclass(frozen=True)
class Chosen:
    """Selected rows (tables.SELECTED) and the record of their allocation."""

    rows: pa.Table
    allocation: dict[str, Any]
    selected: int


@dataclass(frozen=True)
class WindowGuide:
    """A traffic window as the guide set of an update, and what the adapter was trained on before."""

    labels: IntArray
    trained: frozenset[str]
    """row_ids, which are no candidates any more."""
    trained_labels: IntArray
    tested: frozenset[str]
    """Keys of the language's test questions, as in `Guide`."""


@dataclass(frozen=True)
class Question:
    """What a selection is made for: whom it adds to, what it may add, and what is asked."""

    language: str
    own: IntArray
    """Pool rows that are kept in training beside the selected ones."""
    trained_labels: IntArray
    """Clusters of everything trained on so far."""
    others: IntArray
    """Pool rows that may be selected."""
    guide_labels: IntArray
    low_subjects: tuple[str, ...] = ()


def first_question(config: RunConfig, language: str, pool: PoolView, guide: Guide) -> Question:
    """The language's own rows after bias simulation, and every other language's rows to choose from.

    Rows whose prompt is a test question of the language are left out of both.
    """
    allowed = np.array([prompt not in guide.tested for prompt in pool.prompt_key])
    mine = np.flatnonzero((pool.language == language) & allowed)
    others = np.flatnonzero((pool.language != language) & allowed)
    bias = _bias(config, language, mine, pool, guide)
    own = mine[bias.kept]
    return Question(language, own, pool.cluster[own], others, guide.labels, bias.low)


def window_question(language: str, pool: PoolView, window: WindowGuide) -> Question:
    """What was trained on so far as the target's rows, and the other languages' unused rows to choose from."""
    rows = zip(pool.row_id, pool.prompt_key, strict=True)
    unused = np.array([row_id not in window.trained and key not in window.tested for row_id, key in rows])
    others = np.flatnonzero((pool.language != language) & unused)
    return Question(language, np.zeros(0, np.int64), window.trained_labels, others, window.labels)


def choose(config: SelectConfig, method: str, question: Question, pool: PoolView, *, seed: int) -> Chosen:
    """The selection of one method for one question."""
    candidates = Candidates(
        pool.cluster[question.others],
        pool.proto[question.others],
        pool.margin[question.others],
        lambda positions: pool.embeddings(question.others[positions]),
    )
    selection = select_rows(
        question.trained_labels,
        question.guide_labels,
        candidates,
        pool.n_clusters,
        rule(config, method),
        seed=seed,
        language=question.language,
    )
    rows = _rows(selection, question, pool)
    return Chosen(rows, _record(selection, method, question, pool), len(selection.rows))


def _bias(config: RunConfig, language: str, mine: IntArray, pool: PoolView, guide: Guide) -> Bias:
    settings = config.pool.bias
    if settings is None:
        return Bias(np.ones(len(mine), np.bool_), ())
    rng = generator(config.seed, "bias", language)
    return simulate_bias(_subjects(mine, pool, guide), p_low=settings.p_low, keep=settings.keep, rng=rng)


def _subjects(mine: IntArray, pool: PoolView, guide: Guide) -> list[str | None]:
    """The rows' own subjects; the nearest guide prompts' subjects where the source names none."""
    own = [pool.subject[i] for i in mine]
    if all(own) or not len(mine):
        return own
    nearest = pseudo_subjects(
        pool.embeddings(mine), pool.cluster[mine], guide.vectors, guide.labels, guide.subjects, pool.n_clusters
    )
    return [subject or pseudo for subject, pseudo in zip(own, nearest, strict=True)]


def _rows(selection: Selection, question: Question, pool: PoolView) -> pa.Table:
    added, own = selection.rows, len(question.own)
    index = np.concatenate([question.own, question.others[added.index]])
    columns: list[Any] = [
        pool.row_id[index],
        ["target"] * own + ["auxiliary"] * len(added),
        pool.language[index],
        pool.cluster[index],
        np.concatenate([np.full(own, -1), added.order]),
        *(_beside(own, values) for values in (added.score, added.proto, added.boundary, added.neighbours)),
        np.concatenate([np.ones(own), added.weight]),
    ]
    arrays = [pa.array(c, f.type) for c, f in zip(map(_plain, columns), tables.SELECTED, strict=True)]
    return pa.table(arrays, schema=tables.SELECTED)


def _record(selection: Selection, method: str, question: Question, pool: PoolView) -> dict[str, Any]:
    k, plan = pool.n_clusters, selection.allocation
    n_eval = cluster_counts(question.guide_labels, k)
    n_target = cluster_counts(question.trained_labels, k)
    n_aux = cluster_counts(pool.cluster[question.others], k)
    selected = cluster_counts(selection.rows.cluster, k)
    gap = measure_gap(n_eval, n_target, selected)
    counts = {"n_target": n_target, "n_aux": n_aux, "n_eval": n_eval, "selected": selected}
    clusters = [
        {"cluster": i, "weight": float(plan.weights[i]), "quota": int(plan.quota[i])}
        | {name: int(values[i]) for name, values in counts.items()}
        for i in range(k)
    ]
    return {
        "language": question.language,
        "method": method,
        "budget": plan.budget,
        "unfilled": plan.unallocated,
        "low_subjects": list(question.low_subjects),
        "js_before": gap.js_before,
        "js_after": gap.js_after,
        "noise": {"target": int(n_target[-1]), "auxiliary": int(n_aux[-1]), "guide": int(n_eval[-1])},
        "clusters": clusters,
    }


def rule(select: SelectConfig, method: str) -> Rule:
    """The rule of `core` that the settings ask for."""
    return Rule(
        method=Method(method),
        budget=select.budget,
        weights=Weighting(select.weights),
        overflow=Overflow(select.overflow),
        mode=Mode(select.mode),
        tau=select.tau,
        delta=select.delta,
        boundary=Boundary.AS_PRINTED if select.as_printed else Boundary.NEAR,
    )


def _beside(own: int, values: npt.NDArray[Any]) -> list[Any]:
    return [None] * own + list(values.tolist())


def _plain(values: Any) -> Any:
    return values.tolist() if isinstance(values, np.ndarray) else values
