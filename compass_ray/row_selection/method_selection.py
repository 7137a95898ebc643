"""Select rows by one method: a table of selected rows and the record of their allocation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from compass_ray import schemas
from compass_ray.config import SelectConfig
from compass_ray.core.baselines.pickers import Picker
from compass_ray.core.cluster_weights import Weighting
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.gap import measure_gap
from compass_ray.core.instance_scores import Boundary
from compass_ray.core.quotas import Overflow
from compass_ray.core.repetition import repeat_evenly
from compass_ray.core.sampling import SamplingMode
from compass_ray.core.seeds import generator
from compass_ray.core.selection import DRAWN_BY_QUOTA, Method, Selection, SelectionRule, select_rows
from compass_ray.records.allocation import AllocationRecord, MatchedRecord, NoiseRecord, QuotaRecord
from compass_ray.row_selection.baseline_features import BaselineFeatures
from compass_ray.row_selection.baselines import build_baseline, needs_features
from compass_ray.row_selection.pool_view import PoolView
from compass_ray.row_selection.problem import SelectionProblem
from compass_ray.row_selection.subjects import select_by_subject


@dataclass(frozen=True)
class MethodSelection:
    """Selected rows (schemas.SELECTED) and the record of their allocation."""

    rows: pa.Table
    allocation: AllocationRecord
    selected: int


def select_by_method(
    config: SelectConfig,
    method: str,
    problem: SelectionProblem,
    pool: PoolView,
    *,
    seed: int,
    features: BaselineFeatures | None = None,
) -> MethodSelection:
    """Select rows for one problem by one method; `features` are the extra inputs of the baselines.

    Raises:
        ConfigError, ModelError: an input of a baseline is missing.
        ValueError: a baseline needs features, and none are given.
    """
    if method == Method.ORACLE:
        return _select_by_subject(config, problem, pool, seed, features)
    if method == Method.OWN_REPEATED:
        return _repeat_own_rows(config, problem, pool, seed)
    baseline = build_baseline(config, method, problem, pool, features) if features and needs_features(method) else None
    selection = apply_method(config, method, problem, pool, seed=seed, picker=baseline.picker if baseline else None)
    record = allocation_record(selection, method, problem, pool)
    if baseline:
        transfer = {} if baseline.transfer is None else {"transfer": baseline.transfer}
        record = record.model_copy(update={**transfer, "matched": _matched(selection, len(selection.rows))})
    return MethodSelection(_selected_table(selection, problem, pool), record, len(selection.rows))


def _select_by_subject(
    config: SelectConfig, problem: SelectionProblem, pool: PoolView, seed: int, features: BaselineFeatures | None
) -> MethodSelection:
    """Rows of the method "oracle", recorded with the quotas of COMPASS by cluster, as for the baselines."""
    if features is None:
        raise ValueError("method 'oracle' needs the subjects of the guide prompts; pass features=.")
    found = select_by_subject(build_rule(config, Method.ORACLE), problem, pool, features.guide_subjects(), seed=seed)
    planned = replace(apply_method(config, Method.OWN_REPEATED, problem, pool, seed=seed), rows=found.selection.rows)
    count = len(planned.rows)
    changes = {"subjects": found.subjects, "matched": _matched(planned, count)}
    record = allocation_record(planned, Method.ORACLE, problem, pool).model_copy(update=changes)
    return MethodSelection(_selected_table(planned, problem, pool), record, count)


def _repeat_own_rows(config: SelectConfig, problem: SelectionProblem, pool: PoolView, seed: int) -> MethodSelection:
    """Own rows, repeated until they are as many as own and added rows of COMPASS. No row is added."""
    selection = apply_method(config, Method.OWN_REPEATED, problem, pool, seed=seed)
    rng = generator(seed, Method.OWN_REPEATED.value, problem.language)
    repeats = repeat_evenly(len(problem.own), int(selection.allocation.quota.sum()), rng)
    record = allocation_record(selection, Method.OWN_REPEATED, problem, pool)
    record = record.model_copy(update={"matched": _matched(selection, len(repeats))})
    repeated = replace(problem, own=np.concatenate([problem.own, problem.own[repeats]]))
    return MethodSelection(_selected_table(selection, repeated, pool), record, 0)


def _matched(selection: Selection, taken: int) -> MatchedRecord:
    return MatchedRecord(compass=int(selection.allocation.quota.sum()), taken=taken)


def apply_method(
    config: SelectConfig, method: str, problem: SelectionProblem, pool: PoolView, *, seed: int, picker: Picker | None = None
) -> Selection:
    """Rows that a method adds for a problem; baselines use a `picker`."""
    return select_rows(
        problem.trained_labels,
        problem.guide_labels,
        problem.candidates(pool, pool.cluster, pool.proto, pool.margin),
        pool.n_clusters,
        build_rule(config, method),
        seed=seed,
        language=problem.language,
        picker=picker,
    )


def _selected_table(selection: Selection, problem: SelectionProblem, pool: PoolView) -> pa.Table:
    added, own = selection.rows, len(problem.own)
    index = np.concatenate([problem.own, problem.others[added.index]])
    columns = {
        "row_id": pool.row_id.take(pa.array(index)),
        "role": np.repeat(["target", "auxiliary"], [own, len(added)]),
        "language": pool.language.take(pa.array(index)),
        "cluster": pool.cluster[index],
        "order": np.concatenate([np.full(own, -1), added.order]),
        "score": _null_for_own_rows(own, added.score),
        "proto": _null_for_own_rows(own, added.proto),
        "boundary": _null_for_own_rows(own, added.boundary),
        "neighbours": _null_for_own_rows(own, added.neighbours),
        "weight": np.concatenate([np.ones(own), added.weight]),
    }
    return pa.table(columns).cast(schemas.SELECTED)


def allocation_record(selection: Selection, method: str, problem: SelectionProblem, pool: PoolView) -> AllocationRecord:
    """Record of how the budget was allocated to clusters, and of the gap before and after."""
    k, plan = pool.n_clusters, selection.allocation
    n_eval = cluster_counts(problem.guide_labels, k)
    n_target = cluster_counts(problem.trained_labels, k)
    n_aux = cluster_counts(pool.cluster[problem.others], k)
    selected = cluster_counts(selection.rows.cluster, k)
    gap = measure_gap(n_eval, n_target, selected)
    clusters = [
        QuotaRecord(
            cluster=i,
            n_target=int(n_target[i]),
            n_aux=int(n_aux[i]),
            n_eval=int(n_eval[i]),
            weight=float(plan.weights[i]),
            quota=int(plan.quota[i]),
            selected=int(selected[i]),
        )
        for i in range(k)
    ]
    return AllocationRecord(
        language=problem.language,
        method=str(method),
        budget=plan.budget,
        unfilled=plan.unallocated,
        low_subjects=problem.low_subjects,
        js_before=gap.js_before,
        js_after=gap.js_after,
        noise=NoiseRecord(target=int(n_target[-1]), auxiliary=int(n_aux[-1]), guide=int(n_eval[-1]), selected=int(selected[-1])),
        clusters=tuple(clusters),
        asked=None if problem.asked_labels is None else tuple(cluster_counts(problem.asked_labels, k).tolist()),
    )


def build_rule(select: SelectConfig, method: str) -> SelectionRule:
    """Selection rule of the settings; only COMPASS and its controls use the boundary score."""
    as_printed = select.paper_boundary_score and method in DRAWN_BY_QUOTA
    return SelectionRule(
        method=Method(method),
        budget=float(select.budget),
        weights=Weighting(select.weights),
        overflow=Overflow(select.overflow),
        mode=SamplingMode(select.mode),
        tau=select.tau,
        delta=select.delta,
        boundary=Boundary.AS_PRINTED if as_printed else Boundary.NEAR,
    )


def _null_for_own_rows(own: int, values: npt.NDArray[Any]) -> pa.Array:
    """Null for each own row of the language, then the values of the added rows."""
    return pa.array(np.concatenate([np.zeros(own, values.dtype), values]), mask=np.arange(own + len(values)) < own)
