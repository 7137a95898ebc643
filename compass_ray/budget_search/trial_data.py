"""Prepare the data that the trials of a language share: held-out rows, training rows of each budget, and their text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from compass_ray import schemas
from compass_ray.artifacts import ArtifactError, RunDir, Writer
from compass_ray.budget_search.artifact_spec import HELD_OUT_FILE, METHOD, TEXT_FILE, identity, rows_file
from compass_ray.config import RunConfig
from compass_ray.core.budget_forecast import forecast_budget
from compass_ray.core.budget_holdout import BudgetHoldout, make_budget_holdout
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.seeds import generator
from compass_ray.records.budgets import BudgetHoldoutRecord, ForecastRecord, PreparedTrialsRecord
from compass_ray.row_selection import PoolView, SelectionProblem, open_pool, open_problems, select_by_method
from compass_ray.training.continual_state import read_rows


def prepare(config: RunConfig, run: RunDir, language: str) -> None:
    """Write held-out rows, training rows of each budget and their text; do nothing if they exist.

    Raises:
        ArtifactError: the language has no rows to hold out, or no rows are left to train on.
    """
    artifact = run.budget(language)
    if artifact.exists(PreparedTrialsRecord.FILE):
        return
    pool, problem = open_problem(config, run, language)
    found = forecast_record(config, pool, problem)
    held, problem, rows = hold_out(config, pool, problem)
    chosen = {budget: _select_rows(config, pool, problem, budget) for budget in config.tune.budgets}
    artifact.store_table(HELD_OUT_FILE, rows)
    for budget, table in chosen.items():
        artifact.store_table(rows_file(budget), table)
    ids = pa.chunked_array([chunk for table in (rows, *chosen.values()) for chunk in table["row_id"].chunks])
    artifact.store_table(TEXT_FILE, _read_text(run, ids))
    record = PreparedTrialsRecord(
        forecast=found,
        held=BudgetHoldoutRecord(own=int(held.own.sum()), stand_ins=len(held.stand_ins), language=held.language),
        rows={f"{budget:g}": table.num_rows for budget, table in chosen.items()},
    )
    record.write(Writer(artifact, identity(config, run, language)))


def open_problem(config: RunConfig, run: RunDir, language: str) -> tuple[PoolView, SelectionProblem]:
    """The pool and the selection problem of the language's first adapter."""
    pool = open_pool(config, run, language)
    [problem] = open_problems(config, run, pool, [language])
    return pool, problem


def forecast_record(config: RunConfig, pool: PoolView, problem: SelectionProblem) -> ForecastRecord:
    """Record of the budget forecast from the cluster counts of a problem."""
    labels = (problem.trained_labels, pool.cluster[problem.others], problem.guide_labels)
    n_target, n_aux, n_eval = (cluster_counts(each, pool.n_clusters) for each in labels)
    select, tune = config.select, config.tune
    found = forecast_budget(
        n_target, n_aux, n_eval, tune.budgets, share=tune.filled, weights=select.weights, overflow=select.overflow
    )
    budgets, filled = tuple(found.budgets.tolist()), tuple(found.filled.tolist())
    return ForecastRecord(budgets=budgets, filled=filled, suggestion=found.suggestion)


def hold_out(config: RunConfig, pool: PoolView, problem: SelectionProblem) -> tuple[BudgetHoldout, SelectionProblem, pa.Table]:
    """Held-out rows, the remaining problem, and a table of the held-out rows: row_id, cluster, language, weight.

    Raises:
        ArtifactError: nothing can be held out, or nothing is left to train on.
    """
    found = make_budget_holdout(
        problem.trained_labels,
        pool.cluster[problem.others],
        np.asarray(pool.language.take(pa.array(problem.others)).to_pylist()),
        cluster_counts(problem.guide_labels, pool.n_clusters),
        fraction=config.tune.holdout,
        rng=generator(config.seed, "held", problem.language),
    )
    if not found.own.any():
        raise ArtifactError(
            f"{problem.language} has {len(problem.own)} rows of its own, and none can be held out to evaluate budgets; "
            f"add rows of the language, or set select.budget to a number"
        )
    index = np.concatenate([problem.own[found.own], problem.others[found.stand_ins]])
    columns = {name: column.take(pa.array(index)) for name, column in (("row_id", pool.row_id), ("language", pool.language))}
    table = pa.table({**columns, "cluster": pool.cluster[index], "weight": found.weights})
    return found, _without_held_out(problem, pool, found, index), table


def _without_held_out(problem: SelectionProblem, pool: PoolView, held: BudgetHoldout, index: np.ndarray) -> SelectionProblem:
    """The problem without the held-out rows, the language of stand-ins, and rows with held-out prompts.

    Raises:
        ArtifactError: no own row of the language is left.
    """
    same = np.isin(pool.prompt_key, pool.prompt_key[index])
    excluded = same if held.language is None else same | pool.language_mask(held.language)
    kept = ~same[problem.own]
    if not kept.any():
        raise ArtifactError(
            f"{problem.language}: the prompts of all {len(problem.own)} rows are held out to evaluate budgets; no row is left "
            f"to train on; add rows with other prompts, or set select.budget to a number"
        )
    trained, others = problem.trained_labels[kept], problem.others[~excluded[problem.others]]
    return replace(problem, own=problem.own[kept], trained_labels=trained, others=others)


def _select_rows(config: RunConfig, pool: PoolView, problem: SelectionProblem, budget: float) -> pa.Table:
    settings = config.select.model_copy(update={"budget": budget})
    return select_by_method(settings, METHOD, problem, pool, seed=config.seed).rows.select(["row_id", "weight"])


def _read_text(run: RunDir, ids: pa.ChunkedArray) -> pa.Table:
    rows = [
        {"row_id": row_id, "prompt": row.prompt, "response": row.response, "messages": row.turns() if row.messages else None}
        for row_id, row in read_rows(run, ids).items()
    ]
    fields = [schemas.POOL.field(name) for name in ("row_id", "prompt", "response", "messages")]
    return pa.Table.from_pylist(rows, pa.schema(fields))
