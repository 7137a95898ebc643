"""Selection problems: the first adapter of a language, a retraining, or an update for a traffic window."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.artifacts import RunDir
from compass_ray.config import BiasConfig, ConfigError, RunConfig
from compass_ray.core.bias_simulation import SimulatedBias, simulate_bias
from compass_ray.core.families import family_of
from compass_ray.core.pseudo_subjects import pseudo_subjects
from compass_ray.core.seeds import generator
from compass_ray.core.selection import Candidates
from compass_ray.row_selection.pool_store import KeyArray, prompt_keys
from compass_ray.row_selection.pool_view import BoolArray, IntArray, PoolView

_WITHOUT_WEIGHTS = frozenset({"target", "all"})
"""Methods that use no cluster weights; all others select as many rows as COMPASS does."""


@dataclass(frozen=True)
class Guide:
    """A guide set with its clusters; `tested` holds the keys of test questions, which are excluded from training.

    `labels` are of the `vectors`. With `embed.guide_options` these count the options; `asked_labels` are then of the prompts
    alone, which is how traffic is assigned. Otherwise they are None.
    """

    labels: IntArray
    vectors: npt.NDArray[np.float32]
    subjects: list[str | None]
    tested: KeyArray
    asked_labels: IntArray | None = None

    @classmethod
    def read(cls, run: RunDir, language: str, assign: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.int32]]) -> Guide:
        """Read the guide set of a language; `assign` maps float32[n, d] to clusters int32[n]."""
        embedded = run.guide_embeddings(language)
        vectors, asked = embedded.read_guide_vectors(), embedded.read_embeddings()
        return cls(
            labels=assign(vectors).astype(np.int64),
            vectors=vectors,
            subjects=run.guide(language).read_table("guide.parquet", ["subject"])["subject"].to_pylist(),
            tested=eval_question_keys(run, language),
            asked_labels=None if np.array_equal(vectors, asked) else assign(asked).astype(np.int64),
        )


def eval_question_keys(run: RunDir, language: str) -> KeyArray:
    """Keys uint64[m] of the test questions of a language."""
    return prompt_keys(run.guide(language).read_table("test.parquet", ["question"])["question"].to_pylist())


@dataclass(frozen=True)
class WindowGuide:
    """A traffic window as the guide set of an update, and the rows that the adapter was trained on."""

    labels: IntArray
    trained: frozenset[str]
    """row_ids; excluded from the candidates."""
    trained_labels: IntArray
    tested: KeyArray
    """Keys of the test questions of the language, as in `Guide`."""
    vectors: npt.NDArray[np.float32] | None = None
    """Embeddings (n, d) of prompts of the window; those that are retained."""


@dataclass(frozen=True)
class SelectionProblem:
    """A selection problem: rows that are kept, candidates, and the distribution of the prompts."""

    language: str
    own: IntArray
    """Pool rows that are trained on together with the selected rows."""
    trained_labels: IntArray
    """Clusters of all rows trained on so far."""
    others: IntArray
    """Pool rows that may be selected."""
    guide_labels: IntArray
    low_subjects: tuple[str, ...] = ()
    guide_vectors: npt.NDArray[np.float32] | None = None
    """Embeddings (g, d) of prompts of that distribution, for `select.mode: nearest`. They may be fewer than the labels."""
    asked_labels: IntArray | None = None
    """Clusters of the guide prompts as traffic is assigned, where `guide_labels` count their options."""

    def candidates(
        self, pool: PoolView, cluster: npt.NDArray[Any], proto: npt.NDArray[Any], margin: npt.NDArray[Any]
    ) -> Candidates:
        """The candidates with their clusters and scores, given those of all pool rows, each (n,)."""
        others = self.others
        return Candidates(
            cluster[others],
            proto[others],
            margin[others],
            lambda positions: pool.stored_vectors(others[positions]),
            self.guide_vectors,
        )


def first_adapter_problem(config: RunConfig, language: str, pool: PoolView, guide: Guide) -> SelectionProblem:
    """The own rows of the language after bias simulation, and the rows of all other languages as candidates.

    Rows whose prompt, or an earlier turn of whose user, is a test question of the language are left out of both.

    Raises:
        ConfigError: cluster weights are needed, and all guide prompts are noise.
    """
    require_guide_in_clusters(config, language, guide.labels)
    allowed, in_language = _not_in_test_set(pool, guide.tested), pool.language_mask(language)
    language_rows = _sort_by_row_id(np.flatnonzero(in_language & allowed), pool)
    others = np.flatnonzero(~in_language & allowed)
    bias = _simulate_bias(config, language, language_rows, pool, guide)
    own = language_rows[bias.kept]
    labels = pool.cluster[own].astype(np.int64)
    prompts = (guide.labels, bias.thinned_subjects, guide.vectors, guide.asked_labels)
    return SelectionProblem(language, own, labels, others, *prompts)


def require_guide_in_clusters(config: RunConfig, language: str, guide_labels: IntArray) -> None:
    """Refuse a selection that would silently be empty: if all guide prompts are noise, no cluster has a weight.

    Raises:
        ConfigError: all guide prompts are noise, and a method needs cluster weights.
    """
    weighted = config.select.weights != "none" and not _WITHOUT_WEIGHTS.issuperset(config.select.methods)
    if weighted and len(guide_labels) and bool((guide_labels < 0).all()):
        raise ConfigError(
            f"all {len(guide_labels)} guide prompts of {language} are noise to the {config.cluster.method} clusters, so no "
            f"cluster has a weight and nothing would be selected; set cluster.method=kmeans, which has no noise, or "
            f"select.weights=none, or check the guide set of the language and the encoder"
        )


def update_problem(language: str, pool: PoolView, window: WindowGuide) -> SelectionProblem:
    """Rows trained on so far as target rows, and unused rows of other languages as candidates."""
    others = _candidate_rows(language, pool, window.trained, window.tested)
    own = np.zeros(0, np.int64)
    return SelectionProblem(language, own, window.trained_labels, others, window.labels, guide_vectors=window.vectors)


def retrain_problem(
    language: str, pool: PoolView, own: Sequence[str], held: Set[str], tested: KeyArray, guide_labels: IntArray
) -> SelectionProblem:
    """The rows ``own`` (row_ids), and all rows of other languages that are not ``held`` out as candidates."""
    kept = pc.index_in(pa.array(own, pa.string()), value_set=pool.row_id).drop_null().to_numpy().astype(np.int64)
    return SelectionProblem(
        language, kept, pool.cluster[kept].astype(np.int64), _candidate_rows(language, pool, held, tested), guide_labels
    )


def _candidate_rows(language: str, pool: PoolView, barred: Set[str], tested: KeyArray) -> IntArray:
    used = pc.is_in(pool.row_id, pa.array(sorted(barred), pa.string())).to_numpy(zero_copy_only=False)
    return np.flatnonzero(~pool.language_mask(language) & ~used & _not_in_test_set(pool, tested))


def _not_in_test_set(pool: PoolView, tested: KeyArray) -> BoolArray:
    return np.logical_not(pool.prompt_mask(tested))


def _sort_by_row_id(rows: IntArray, pool: PoolView) -> IntArray:
    """Rows sorted by row_id, so that sampling does not depend on the clustering."""
    return np.asarray(rows[pc.sort_indices(pool.row_id.take(pa.array(rows))).to_numpy()])


def _simulate_bias(config: RunConfig, language: str, rows: IntArray, pool: PoolView, guide: Guide) -> SimulatedBias:
    settings = config.pool.bias
    if settings is None:
        return SimulatedBias(np.ones(len(rows), np.bool_), ())
    return draw_bias(settings, config.seed, language, _subjects(rows, pool, guide))


def draw_bias(settings: BiasConfig, seed: int, language: str, subjects: Sequence[str | None]) -> SimulatedBias:
    """The rows that stay and the thinned subjects of a language, for the subject of each of its rows in order of row_id."""
    rng = generator(settings.seed_of(language, seed), "bias", language)
    groups = [[each for each in subjects if each and family_of(each) in group] for group in settings.groups]
    return simulate_bias(subjects, p_low=settings.p_low, keep=settings.keep, groups=groups, rng=rng)


def _subjects(rows: IntArray, pool: PoolView, guide: Guide) -> list[str | None]:
    """Subjects of rows; the subject of the nearest guide prompts where the source has none."""
    own: list[str | None] = pool.subject.take(pa.array(rows)).to_pylist()
    if all(own) or not len(rows):
        return own
    nearest = pseudo_subjects(
        pool.unit_vectors(rows), pool.cluster[rows], guide.vectors, guide.labels, guide.subjects, pool.n_clusters
    )
    return [subject or pseudo for subject, pseudo in zip(own, nearest, strict=True)]
