"""A run's pool and guide sets in the clusters that a language's selection is made in (COMPASS, section 3.2.1).

Key property: where all languages share one clustering, guide prompts are placed on it without a fit; where a language has
its own, its guide prompts were part of the fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import SHARED, RunDir, clustered
from compass_ray.config import RunConfig
from compass_ray.language_selection.pool_view import PoolView
from compass_ray.language_selection.questions import Guide, Question, first_question
from compass_ray.models.clusterers import load_clusterer
from compass_ray.models.clusterers.storage import ARRAYS, MARK

GUIDE_LABELS = "guide_labels.npy"


def open_pool(config: RunConfig, run: RunDir, language: str) -> PoolView:
    """The pool in a language's clusters."""
    return PoolView.read(run.clustering(clustered(config, language)))


def open_questions(config: RunConfig, run: RunDir, pool: PoolView, languages: Sequence[str]) -> list[Question]:
    """What a first adapter of each language is selected for."""
    guides = open_guides(config, run, languages)
    return [first_question(config, code, pool, guide) for code, guide in zip(languages, guides, strict=True)]


def open_guides(config: RunConfig, run: RunDir, languages: Sequence[str]) -> list[Guide]:
    """The guide set of each language in its clusters."""
    whose = {clustered(config, language) for language in languages}
    return _placed(run, languages) if whose == {SHARED} else [_fitted(run, language) for language in languages]


def _placed(run: RunDir, languages: Sequence[str]) -> list[Guide]:
    with run.clusters.local(MARK, ARRAYS) as folder:
        clusterer = load_clusterer(folder)
    return [Guide.read(run, language, clusterer.assign) for language in languages]


def _fitted(run: RunDir, language: str) -> Guide:
    labels: npt.NDArray[np.int32] = run.clustering(language).read_array(GUIDE_LABELS)
    return Guide.read(run, language, lambda vectors: labels)
