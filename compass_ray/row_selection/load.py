"""A run's pool and guide sets in the clusters that a language's selection is made in (COMPASS, section 3.2.1).

Key property: where all languages share one clustering, guide prompts are placed on it without a fit; where a language has
its own, its guide prompts were part of the fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import SHARED, RunDir, clustering_key
from compass_ray.clustering import load_clusterer
from compass_ray.clustering.serialization import ARRAYS_FILE, HEADER_FILE
from compass_ray.config import RunConfig
from compass_ray.row_selection.pool_view import PoolView
from compass_ray.row_selection.problem import Guide, SelectionProblem, first_adapter_problem

GUIDE_LABELS = "guide_labels.npy"


def open_pool(config: RunConfig, run: RunDir, language: str) -> PoolView:
    """The pool in a language's clusters."""
    return PoolView.read(run.clustering(clustering_key(config, language)))


def open_problems(config: RunConfig, run: RunDir, pool: PoolView, languages: Sequence[str]) -> list[SelectionProblem]:
    """What a first adapter of each language is selected for."""
    guides = open_guides(config, run, languages)
    return [first_adapter_problem(config, code, pool, guide) for code, guide in zip(languages, guides, strict=True)]


def open_guides(config: RunConfig, run: RunDir, languages: Sequence[str]) -> list[Guide]:
    """The guide set of each language in its clusters."""
    whose = {clustering_key(config, language) for language in languages}
    return _assign_guides(run, languages) if whose == {SHARED} else [_read_fitted_guide(run, language) for language in languages]


def _assign_guides(run: RunDir, languages: Sequence[str]) -> list[Guide]:
    with run.clusters.local_folder(HEADER_FILE, ARRAYS_FILE) as folder:
        clusterer = load_clusterer(folder)
    return [Guide.read(run, language, clusterer.assign) for language in languages]


def _read_fitted_guide(run: RunDir, language: str) -> Guide:
    labels: npt.NDArray[np.int32] = run.clustering(language).read_array(GUIDE_LABELS)
    return Guide.read(run, language, lambda vectors: labels)
