"""What a selection is made for: a first adapter, or an update for a traffic window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.core.bias import Bias, simulate_bias
from compass_ray.core.pseudo_subjects import pseudo_subjects
from compass_ray.core.seeding import generator
from compass_ray.language_selection.pool_view import PoolView
from compass_ray.models.clusterers import Clusterer
from compass_ray.sources.guides import prompt_key

IntArray = npt.NDArray[np.int64]


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
