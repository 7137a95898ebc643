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
        rows = run.pool.read_table("rows.parquet", ["row_id", "language", "subject"])
        assigned = run.clusters.read_table("assignments.parquet")
        row_id = np.asarray(rows["row_id"].to_pylist())
        order = np.argsort(row_id, kind="stable")
        return cls(
            row_id=row_id[order],
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
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12).astype(np.float32)


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
        questions = run.guide(language).read_table("test.parquet", ["question"])["question"].to_pylist()
        return cls(
            labels=clusterer.assign(vectors).astype(np.int64),
            vectors=vectors,
            subjects=run.guide(language).read_table("guide.parquet", ["subject"])["subject"].to_pylist(),
            tested=frozenset(prompt_key(q) for q in questions),
        )


@dataclass(frozen=True)
class Chosen:
    """Selected rows (tables.SELECTED) and the record of their allocation."""

    rows: pa.Table
    allocation: dict[str, Any]
    selected: int


class LanguageSelection:
    """Everything that the methods of one language share: its own rows after bias simulation, and its candidates."""

    def __init__(self, config: RunConfig, language: str, pool: PoolView, guide: Guide) -> None:
        """Simulate bias, and part the pool into the language's own rows and those of the others."""
        self.config, self.language, self.pool, self.guide = config, language, pool, guide
        mine = np.flatnonzero(pool.language == language)
        self.others = np.flatnonzero(pool.language != language)
        self.bias = self._bias(mine)
        self.mine = mine[self.bias.kept]

    def choose(self, method: str) -> Chosen:
        """The selection of one method."""
        candidates = Candidates(
            self.pool.cluster[self.others],
            self.pool.proto[self.others],
            self.pool.margin[self.others],
            lambda positions: self.pool.embeddings(self.others[positions]),
        )
        selection = select_rows(
            self.pool.cluster[self.mine],
            self.guide.labels,
            candidates,
            self.pool.n_clusters,
            rule(self.config.select, method),
            seed=self.config.seed,
            language=self.language,
        )
        return Chosen(self._rows(selection), self._record(selection, method), len(selection.rows))

    def _bias(self, mine: IntArray) -> Bias:
        settings = self.config.pool.bias
        if settings is None:
            return Bias(np.ones(len(mine), np.bool_), ())
        rng = generator(self.config.seed, "bias", self.language)
        return simulate_bias(self._subjects(mine), p_low=settings.p_low, keep=settings.keep, rng=rng)

    def _subjects(self, mine: IntArray) -> list[str | None]:
        """The rows' own subjects; the nearest guide prompts' subjects where the source names none."""
        own = [self.pool.subject[i] for i in mine]
        if all(own) or not len(mine):
            return own
        pool, guide = self.pool, self.guide
        nearest = pseudo_subjects(
            pool.embeddings(mine),
            pool.cluster[mine],
            guide.vectors,
            guide.labels,
            guide.subjects,
            pool.n_clusters,
        )
        return [subject or pseudo for subject, pseudo in zip(own, nearest, strict=True)]

    def _rows(self, selection: Selection) -> pa.Table:
        added = selection.rows
        index = np.concatenate([self.mine, self.others[added.index]])
        own = len(self.mine)
        columns: list[Any] = [
            self.pool.row_id[index],
            ["target"] * own + ["auxiliary"] * len(added),
            self.pool.language[index],
            self.pool.cluster[index],
            np.concatenate([np.full(own, -1), added.order]),
            *(
                _beside(own, values)
                for values in (added.score, added.proto, added.boundary, added.neighbours)
            ),
            np.concatenate([np.ones(own), added.weight]),
        ]
        arrays = [pa.array(c, f.type) for c, f in zip(map(_plain, columns), tables.SELECTED, strict=True)]
        return pa.table(arrays, schema=tables.SELECTED)

    def _record(self, selection: Selection, method: str) -> dict[str, Any]:
        k, plan, added = self.pool.n_clusters, selection.allocation, selection.rows
        n_eval = cluster_counts(self.guide.labels, k)
        n_target = cluster_counts(self.pool.cluster[self.mine], k)
        n_aux = cluster_counts(self.pool.cluster[self.others], k)
        selected = cluster_counts(added.cluster, k)
        gap = measure_gap(n_eval, n_target, selected)
        counts = {"n_target": n_target, "n_aux": n_aux, "n_eval": n_eval, "selected": selected}
        clusters = [
            {"cluster": i, "weight": float(plan.weights[i]), "quota": int(plan.quota[i])}
            | {name: int(values[i]) for name, values in counts.items()}
            for i in range(k)
        ]
        return {
            "language": self.language,
            "method": method,
            "budget": plan.budget,
            "unfilled": plan.unallocated,
            "low_subjects": list(self.bias.low),
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
