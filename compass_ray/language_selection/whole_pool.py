"""The rows of one adapter for all languages: the whole pool, as the baseline "all" has it (COMPASS, section 4.3).

Key property: what a language may not be trained on, no adapter that answers in it is trained on: rows that the bias
simulation of any target language removed and prompts that are a test question of any are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from compass_ray.artifacts import SHARED, WHOLE_POOL
from compass_ray.config import SelectConfig
from compass_ray.core.selection import Method
from compass_ray.language_selection.choosing import Chosen, allocation_record, choose, select
from compass_ray.language_selection.pool_view import PoolView
from compass_ray.language_selection.questions import Question


def choose_whole_pool(config: SelectConfig, questions: Sequence[Question], pool: PoolView, *, seed: int) -> Chosen:
    """All rows that every one of the target languages' questions allows.

    The record's counts are over the guide sets of all languages together; `by_language` holds each one's own. No cluster
    has a weight or a quota in either.
    """
    unbudgeted = config.model_copy(update={"budget": 0.0})
    chosen = choose(unbudgeted, Method.TARGET, _together(questions, pool), pool, seed=seed)
    apart = {q.language: _of_language(unbudgeted, q, pool, seed) for q in questions}
    return Chosen(chosen.rows, chosen.allocation | {"method": WHOLE_POOL, "by_language": apart}, chosen.selected)


def _together(questions: Sequence[Question], pool: PoolView) -> Question:
    kept = reduce(np.intersect1d, (np.concatenate([q.own, q.others]) for q in questions))
    guides = np.concatenate([q.guide_labels for q in questions])
    return Question(SHARED, kept, pool.cluster[kept].astype(np.int64), np.zeros(0, np.int64), guides)


def _of_language(config: SelectConfig, question: Question, pool: PoolView, seed: int) -> dict[str, object]:
    selection = select(config, WHOLE_POOL, question, pool, seed=seed)
    unweighted = replace(selection, allocation=selection.allocation.nothing())
    return allocation_record(unweighted, WHOLE_POOL, question, pool)
