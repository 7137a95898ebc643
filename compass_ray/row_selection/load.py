"""Load the pool and the guide sets with the clusters of a language's selection (COMPASS, section 3.2.1).

Key property: in a shared clustering, guide prompts are assigned to clusters without a fit. In a clustering per language,
guide prompts were part of the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
    """The pool with the clusters of a language."""
    return PoolView.read(run.clustering(clustering_key(config, language)))


def open_problems(config: RunConfig, run: RunDir, pool: PoolView, languages: Sequence[str]) -> list[SelectionProblem]:
    """Selection problem of the first adapter of each language."""
    guides = open_guides(config, run, languages)
    return [first_adapter_problem(config, code, pool, guide) for code, guide in zip(languages, guides, strict=True)]


def open_guides(config: RunConfig, run: RunDir, languages: Sequence[str]) -> list[Guide]:
    """The guide set of each language with its clusters."""
    keys = {clustering_key(config, language) for language in languages}
    return _assign_guides(run, languages) if keys == {SHARED} else [_read_fitted_guide(run, language) for language in languages]


def _assign_guides(run: RunDir, languages: Sequence[str]) -> list[Guide]:
    with run.clusters.local_folder(HEADER_FILE, ARRAYS_FILE) as folder:
        clusterer = load_clusterer(folder)
    return [Guide.read(run, language, clusterer.assign) for language in languages]


def _read_fitted_guide(run: RunDir, language: str) -> Guide:
    labels: npt.NDArray[np.int32] = run.clustering(language).read_array(GUIDE_LABELS)
    return replace(Guide.read(run, language, lambda vectors: labels), asked_labels=None)
