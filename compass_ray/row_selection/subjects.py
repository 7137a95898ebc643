"""Selection by true subjects instead of clusters: the method "oracle", a ceiling of what any selection by subject can reach.

Key property: COMPASS's own code selects; only its labels and scores differ. A row or prompt without a subject is what noise is
to a clustering: it is never added, and counts in a bin of its own. Not in the paper; a control for COMPASS, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.clustering.centroids import spherical_means
from compass_ray.config import ConfigError
from compass_ray.core.array_checks import FloatArray
from compass_ray.core.instance_scores import pool_scores
from compass_ray.core.selection import Selection, SelectionRule, select_rows
from compass_ray.records.allocation import SubjectQuotaRecord
from compass_ray.row_selection.pool_view import IntArray, PoolView
from compass_ray.row_selection.problem import SelectionProblem


@dataclass(frozen=True)
class SubjectLabels:
    """Subjects as clusters: `names`, and the number of each pool row int64[n] and guide prompt int64[m]; -1 without one."""

    names: tuple[str, ...]
    pool: IntArray
    guide: IntArray

    @classmethod
    def of(cls, pool: PoolView, guide: Sequence[str | None], language: str) -> SubjectLabels:
        """Number the subjects of a pool and of a language's guide set, those of the pool first, each by name.

        Raises:
            ConfigError: no row of the pool, or no guide prompt, has a subject.
        """
        rows = pool.subject.to_pylist()
        for owner, subjects in ((f"row of pool.sources, for {language},", rows), (f"guide prompt of {language}", guide)):
            if not any(subjects):
                raise ConfigError(
                    f"oracle: no {owner} has a subject; add a column subject, or map one with columns: {{subject: NAME}}, "
                    f"or remove oracle from select.methods"
                )
        in_pool = sorted({each for each in rows if each})
        names = (*in_pool, *sorted({each for each in guide if each} - set(in_pool)))
        number = {name: k for k, name in enumerate(names)}
        return cls(names, *(np.array([number.get(each or "", -1) for each in each_set], np.int64) for each_set in (rows, guide)))


@dataclass(frozen=True)
class SubjectSelection:
    """Rows selected by subject, with their clusters of the run, and the quotas by subject."""

    selection: Selection
    subjects: tuple[SubjectQuotaRecord, ...]


def select_by_subject(
    rule: SelectionRule, problem: SelectionProblem, pool: PoolView, guide_subjects: Sequence[str | None], *, seed: int
) -> SubjectSelection:
    """Rows that COMPASS adds with subjects as clusters; the clustering of the run has no influence.

    Prototype and boundary scores are those of the subjects' mean directions over the pool.

    Raises:
        ConfigError: no row of the pool, or no guide prompt, has a subject.
    """
    labels = SubjectLabels.of(pool, guide_subjects, problem.language)
    proto, margin = _scores(pool, labels.pool)
    order = pc.sort_indices(pool.row_id.take(pa.array(problem.others))).to_numpy().astype(np.int64)
    selection = select_rows(
        labels.pool[problem.own],
        labels.guide,
        replace(problem, others=problem.others[order]).candidates(pool, labels.pool, proto, margin),
        len(labels.names),
        rule,
        seed=seed,
        language=problem.language,
    )
    index = order[selection.rows.index]
    rows = replace(selection.rows, index=index, cluster=pool.cluster[problem.others[index]].astype(np.int64))
    return SubjectSelection(replace(selection, rows=rows), _records(selection, labels.names))


def _scores(pool: PoolView, labels: IntArray) -> tuple[FloatArray, FloatArray]:
    """Prototype scores and margins of all pool rows, float64[n], by the mean directions of the subjects."""
    vectors = pool.stored_vectors(np.arange(len(pool)))
    centroids = spherical_means(vectors, labels.astype(np.int32), np.ones(len(pool), np.float32))
    scores = pool_scores(vectors, labels, centroids)
    return scores.proto, scores.margin_raw


def _records(selection: Selection, names: Sequence[str]) -> tuple[SubjectQuotaRecord, ...]:
    plan, selected = selection.allocation, np.bincount(selection.rows.cluster, minlength=len(names))
    return tuple(
        SubjectQuotaRecord(
            subject=name,
            n_target=int(plan.n_target[k]),
            n_aux=int(plan.n_aux[k]),
            n_eval=int(plan.n_eval[k]),
            weight=float(plan.weights[k]),
            quota=int(plan.quota[k]),
            selected=int(selected[k]),
        )
        for k, name in enumerate(names)
    )
