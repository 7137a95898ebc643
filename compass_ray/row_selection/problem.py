"""What a selection is made for: a first adapter, or an update for a traffic window."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.core.bias_simulation import SimulatedBias, simulate_bias
from compass_ray.core.pseudo_subjects import pseudo_subjects
from compass_ray.core.seeds import generator
from compass_ray.row_selection.pool_store import KeyArray, prompt_keys
from compass_ray.row_selection.pool_view import BoolArray, IntArray, PoolView

_WITHOUT_WEIGHTS = frozenset({"target", "all"})
"""Methods that take rows without weights of clusters; every other takes as many as COMPASS does by them."""


@dataclass(frozen=True)
class Guide:
    """A guide set with its clusters; `tested` holds the keys of test questions, which no training row may equal."""

    labels: IntArray
    vectors: npt.NDArray[np.float32]
    subjects: list[str | None]
    tested: KeyArray

    @classmethod
    def read(cls, run: RunDir, language: str, place: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.int32]]) -> Guide:
        """Read a language's guide set, put into clusters by `place`: float32[n, d] -> int32[n]."""
        vectors = run.guide_embeddings(language).read_embeddings()
        return cls(
            labels=place(vectors).astype(np.int64),
            vectors=vectors,
            subjects=run.guide(language).read_table("guide.parquet", ["subject"])["subject"].to_pylist(),
            tested=eval_question_keys(run, language),
        )


def eval_question_keys(run: RunDir, language: str) -> KeyArray:
    """Keys uint64[m] of a language's test questions."""
    return prompt_keys(run.guide(language).read_table("test.parquet", ["question"])["question"].to_pylist())


@dataclass(frozen=True)
class WindowGuide:
    """A traffic window as the guide set of an update, and what the adapter was trained on before."""

    labels: IntArray
    trained: frozenset[str]
    """row_ids, which are no candidates any more."""
    trained_labels: IntArray
    tested: KeyArray
    """Keys of the language's test questions, as in `Guide`."""


@dataclass(frozen=True)
class SelectionProblem:
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


def first_adapter_problem(config: RunConfig, language: str, pool: PoolView, guide: Guide) -> SelectionProblem:
    """The language's own rows after bias simulation, and every other language's rows to choose from.

    Rows whose prompt is a test question of the language are left out of both.

    Raises:
        ConfigError: weights are asked of the guide set's clusters, and it is in none.
    """
    require_guide_in_clusters(config, language, guide.labels)
    allowed, speaks = _not_in_test_set(pool, guide.tested), pool.language_mask(language)
    mine = _sort_by_row_id(np.flatnonzero(speaks & allowed), pool)
    others = np.flatnonzero(~speaks & allowed)
    bias = _simulate_bias(config, language, mine, pool, guide)
    own = mine[bias.kept]
    return SelectionProblem(language, own, pool.cluster[own].astype(np.int64), others, guide.labels, bias.thinned_subjects)


def require_guide_in_clusters(config: RunConfig, language: str, guide_labels: IntArray) -> None:
    """Stop before a selection that would silently be empty: with all of the guide set in noise no cluster has a weight.

    Raises:
        ConfigError: the guide set has prompts, all of them are noise, and a method takes rows, or a number of rows, by it.
    """
    weighted = config.select.weights != "none" and not _WITHOUT_WEIGHTS.issuperset(config.select.methods)
    if weighted and len(guide_labels) and bool((guide_labels < 0).all()):
        raise ConfigError(
            f"all {len(guide_labels)} guide prompts of {language} are noise to the {config.cluster.method} clusters, so no "
            f"cluster has a weight and nothing would be selected; set cluster.method=kmeans, which has no noise, or "
            f"select.weights=none, or look at the language's guide set and the encoder"
        )


def update_problem(language: str, pool: PoolView, window: WindowGuide) -> SelectionProblem:
    """What was trained on so far as the target's rows, and the other languages' unused rows to choose from."""
    others = _candidate_rows(language, pool, window.trained, window.tested)
    return SelectionProblem(language, np.zeros(0, np.int64), window.trained_labels, others, window.labels)


def retrain_problem(
    language: str, pool: PoolView, own: Sequence[str], held: Set[str], tested: KeyArray, guide_labels: IntArray
) -> SelectionProblem:
    """The rows ``own`` (row_ids) again, and all rows of other languages to choose from, but those that are ``held`` out."""
    kept = pc.index_in(pa.array(own, pa.string()), value_set=pool.row_id).drop_null().to_numpy().astype(np.int64)
    return SelectionProblem(
        language, kept, pool.cluster[kept].astype(np.int64), _candidate_rows(language, pool, held, tested), guide_labels
    )


def _candidate_rows(language: str, pool: PoolView, barred: Set[str], tested: KeyArray) -> IntArray:
    used = pc.is_in(pool.row_id, pa.array(sorted(barred), pa.string())).to_numpy(zero_copy_only=False)
    return np.flatnonzero(~pool.language_mask(language) & ~used & _not_in_test_set(pool, tested))


def _not_in_test_set(pool: PoolView, tested: KeyArray) -> BoolArray:
    return np.isin(pool.prompt_key, tested, invert=True)


def _sort_by_row_id(rows: IntArray, pool: PoolView) -> IntArray:
    """Rows in order of row_id, whatever their clusters, so that what is drawn for them does not follow the clustering."""
    return np.asarray(rows[pc.sort_indices(pool.row_id.take(pa.array(rows))).to_numpy()])


def _simulate_bias(config: RunConfig, language: str, mine: IntArray, pool: PoolView, guide: Guide) -> SimulatedBias:
    settings = config.pool.bias
    if settings is None:
        return SimulatedBias(np.ones(len(mine), np.bool_), ())
    rng = generator(config.seed, "bias", language)
    return simulate_bias(_subjects(mine, pool, guide), p_low=settings.p_low, keep=settings.keep, rng=rng)


def _subjects(mine: IntArray, pool: PoolView, guide: Guide) -> list[str | None]:
    """The rows' own subjects; the nearest guide prompts' subjects where the source names none."""
    own: list[str | None] = pool.subject.take(pa.array(mine)).to_pylist()
    if all(own) or not len(mine):
        return own
    nearest = pseudo_subjects(
        pool.unit_vectors(mine), pool.cluster[mine], guide.vectors, guide.labels, guide.subjects, pool.n_clusters
    )
    return [subject or pseudo for subject, pseudo in zip(own, nearest, strict=True)]
