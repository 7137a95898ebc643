"""One method's answer to a question: the selected rows as a table, and the record of their allocation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from compass_ray import tables
from compass_ray.config import SelectConfig
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.gap import measure_gap
from compass_ray.core.instance_scores import Boundary
from compass_ray.core.quotas import Overflow
from compass_ray.core.sampling import Mode
from compass_ray.core.selection import Candidates, Method, Rule, Selection, select_rows
from compass_ray.core.weights import Weighting
from compass_ray.language_selection.pool_view import PoolView
from compass_ray.language_selection.questions import Question


@dataclass(frozen=True)
class Chosen:
    """Selected rows (tables.SELECTED) and the record of their allocation."""

    rows: pa.Table
    allocation: dict[str, Any]
    selected: int


def choose(config: SelectConfig, method: str, question: Question, pool: PoolView, *, seed: int) -> Chosen:
    """The selection of one method for one question."""
    candidates = Candidates(
        pool.cluster[question.others],
        pool.proto[question.others],
        pool.margin[question.others],
        lambda positions: pool.embeddings(question.others[positions]),
    )
    selection = select_rows(
        question.trained_labels,
        question.guide_labels,
        candidates,
        pool.n_clusters,
        rule(config, method),
        seed=seed,
        language=question.language,
    )
    rows = _rows(selection, question, pool)
    return Chosen(rows, _record(selection, method, question, pool), len(selection.rows))


def _rows(selection: Selection, question: Question, pool: PoolView) -> pa.Table:
    added, own = selection.rows, len(question.own)
    index = np.concatenate([question.own, question.others[added.index]])
    columns: list[Any] = [
        pool.row_id[index],
        ["target"] * own + ["auxiliary"] * len(added),
        pool.language[index],
        pool.cluster[index],
        np.concatenate([np.full(own, -1), added.order]),
        *(_beside(own, values) for values in (added.score, added.proto, added.boundary, added.neighbours)),
        np.concatenate([np.ones(own), added.weight]),
    ]
    arrays = [pa.array(c, f.type) for c, f in zip(map(_plain, columns), tables.SELECTED, strict=True)]
    return pa.table(arrays, schema=tables.SELECTED)


def _record(selection: Selection, method: str, question: Question, pool: PoolView) -> dict[str, Any]:
    k, plan = pool.n_clusters, selection.allocation
    n_eval = cluster_counts(question.guide_labels, k)
    n_target = cluster_counts(question.trained_labels, k)
    n_aux = cluster_counts(pool.cluster[question.others], k)
    selected = cluster_counts(selection.rows.cluster, k)
    gap = measure_gap(n_eval, n_target, selected)
    counts = {"n_target": n_target, "n_aux": n_aux, "n_eval": n_eval, "selected": selected}
    clusters = [
        {"cluster": i, "weight": float(plan.weights[i]), "quota": int(plan.quota[i])}
        | {name: int(values[i]) for name, values in counts.items()}
        for i in range(k)
    ]
    return {
        "language": question.language,
        "method": method,
        "budget": plan.budget,
        "unfilled": plan.unallocated,
        "low_subjects": list(question.low_subjects),
        "js_before": gap.js_before,
        "js_after": gap.js_after,
        "noise": {"target": int(n_target[-1]), "auxiliary": int(n_aux[-1]), "guide": int(n_eval[-1])},
        "clusters": clusters,
    }


def rule(select: SelectConfig, method: str) -> Rule:
    """The rule of `core` that the settings ask for."""
    return Rule(
        method=Method(method),
        budget=select.budget,
        weights=Weighting(select.weights),
        overflow=Overflow(select.overflow),
        mode=Mode(select.mode),
        tau=select.tau,
        delta=select.delta,
        boundary=Boundary.AS_PRINTED if select.as_printed else Boundary.NEAR,
    )


def _beside(own: int, values: npt.NDArray[Any]) -> list[Any]:
    return [None] * own + list(values.tolist())


def _plain(values: Any) -> Any:
    return values.tolist() if isinstance(values, np.ndarray) else values
