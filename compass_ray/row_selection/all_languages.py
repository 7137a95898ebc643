"""The rows of one adapter for all languages: the whole pool, as the baseline "all" has it (COMPASS, section 4.3).

Key property: what a language may not be trained on, no adapter that answers in it is trained on: rows that the bias
simulation of any target language removed and prompts that are a test question of any are left out.
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
    config: SelectConfig, questions: Sequence[SelectionProblem], pool: PoolView, *, seed: int
) -> MethodSelection:
    """All rows that every one of the target languages' questions allows.

    The record's counts are over the guide sets of all languages together; `by_language` holds each one's own. No cluster
    has a weight or a quota in either.
    """
    unbudgeted = config.model_copy(update={"budget": 0.0})
    chosen = select_by_method(unbudgeted, Method.TARGET, _combine_problems(questions, pool), pool, seed=seed)
    apart = {q.language: _language_record(unbudgeted, q, pool, seed) for q in questions}
    allocation = chosen.allocation.model_copy(update={"method": ALL_LANGUAGES, "by_language": apart})
    return MethodSelection(chosen.rows, allocation, chosen.selected)


def _combine_problems(questions: Sequence[SelectionProblem], pool: PoolView) -> SelectionProblem:
    kept = reduce(np.intersect1d, (np.concatenate([q.own, q.others]) for q in questions))
    guides = np.concatenate([q.guide_labels for q in questions])
    return SelectionProblem(SHARED, kept, pool.cluster[kept].astype(np.int64), np.zeros(0, np.int64), guides)


def _language_record(config: SelectConfig, question: SelectionProblem, pool: PoolView, seed: int) -> AllocationRecord:
    selection = apply_method(config, ALL_LANGUAGES, question, pool, seed=seed)
    unweighted = replace(selection, allocation=selection.allocation.with_zero_quota())
    return allocation_record(unweighted, ALL_LANGUAGES, question, pool)
