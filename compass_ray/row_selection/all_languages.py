"""Select the rows of one adapter for all languages: the pool, as in the baseline "all" (COMPASS, section 4.3).

Key property: a row is excluded if any target language excludes it. Rows that the bias simulation of a language removed, and
prompts that are test questions of a language, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from compass_ray.artifacts import ALL_LANGUAGES, SHARED
from compass_ray.config import SelectConfig
from compass_ray.core.selection import Method
from compass_ray.records.allocation import AllocationRecord
from compass_ray.row_selection.method_selection import MethodSelection, allocation_record, apply_method, select_by_method
from compass_ray.row_selection.pool_view import PoolView
from compass_ray.row_selection.problem import SelectionProblem


def select_for_all_languages(
    config: SelectConfig, problems: Sequence[SelectionProblem], pool: PoolView, *, seed: int
) -> MethodSelection:
    """All rows that the problems of all target languages allow.

    The counts of the record cover the guide sets of all languages; `by_language` holds the counts of each language. No
    cluster has a weight or a quota in either.
    """
    unbudgeted = config.model_copy(update={"budget": 0.0})
    selected = select_by_method(unbudgeted, Method.TARGET, _combine_problems(problems, pool), pool, seed=seed)
    by_language = {q.language: _language_record(unbudgeted, q, pool, seed) for q in problems}
    allocation = selected.allocation.model_copy(update={"method": ALL_LANGUAGES, "by_language": by_language})
    return MethodSelection(selected.rows, allocation, selected.selected)


def _combine_problems(problems: Sequence[SelectionProblem], pool: PoolView) -> SelectionProblem:
    kept = reduce(np.intersect1d, (np.concatenate([q.own, q.others]) for q in problems))
    guides = np.concatenate([q.guide_labels for q in problems])
    return SelectionProblem(SHARED, kept, pool.cluster[kept].astype(np.int64), np.zeros(0, np.int64), guides)


def _language_record(config: SelectConfig, problem: SelectionProblem, pool: PoolView, seed: int) -> AllocationRecord:
    selection = apply_method(config, ALL_LANGUAGES, problem, pool, seed=seed)
    unweighted = replace(selection, allocation=selection.allocation.with_zero_quota())
    return allocation_record(unweighted, ALL_LANGUAGES, problem, pool)
