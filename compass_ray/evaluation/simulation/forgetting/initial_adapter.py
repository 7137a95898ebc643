"""The first adapter of a simulation, made only for the subjects of the first period.

If the pool has subjects, rows about subjects that join later are excluded, both the language's own and others, so that
updates have something to learn. Otherwise it is an ordinary first adapter. COMPASS, section 5.5 and appendix D.1.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.artifacts import Identity
from compass_ray.config import ConfigError, RunConfig
from compass_ray.core.array_checks import BoolArray, IntArray
from compass_ray.evaluation.simulation.drift.scenarios import Scenario
from compass_ray.evaluation.simulation.forgetting.overlay_run import FIRST_VERSION, OverlayRun
from compass_ray.models.model_resolver import model_identity
from compass_ray.row_selection import Guide, PoolView, SelectionProblem, open_guides, select_by_method
from compass_ray.row_selection.problem import first_adapter_problem
from compass_ray.training.adapter_job import AdapterPlan, train_adapter

if TYPE_CHECKING:
    from compass_ray.models.base_model import BaseModel


def make_initial_adapter(config: RunConfig, overlay: OverlayRun, language: str, scenario: Scenario, base: BaseModel) -> None:
    """Select rows for the guide prompts of the first group and train, unless that is done.

    Raises:
        ConfigError: no guide prompt is about these subjects.
    """
    _select(config, overlay, language, scenario)
    selection = overlay.selection(config.serve.method, language)
    inputs = {selection.name: selection.require().fingerprint}
    made_with = {"base_model": model_identity(config.train.base_model, config.train.revision), "anchors": config.update.anchors}
    identity = Identity("train", config.train.identity() | made_with | {"seed": config.seed}, inputs)
    adapter = overlay.own_artifact("adapters", language, FIRST_VERSION)
    made = adapter.manifest()
    if made is None or made.fingerprint != identity.fingerprint:
        adapter.begin(identity, keep_partial=True)
        train_adapter(config, overlay, AdapterPlan(language, adapter, identity, selection, served=True), base)


def _select(config: RunConfig, overlay: OverlayRun, language: str, scenario: Scenario) -> None:
    artifact = overlay.own_artifact("selections", config.serve.method, language)
    inputs = {each.name: each.require().fingerprint for each in (overlay.clusters, overlay.guide(language))}
    bias = config.pool.bias.restrict_to([language]).fingerprint_settings() if config.pool.bias else None
    rule = config.select.model_copy(update={"budget": _budget(config)})
    settings = rule.fingerprint_settings(exclude={"methods"}) | {"bias": bias, "seed": config.seed, "groups": scenario.groups}
    identity = Identity("select", settings, inputs)
    made = artifact.manifest()
    if made is not None and made.fingerprint == identity.fingerprint:
        return
    pool = PoolView.read(overlay.clusters)
    chosen = select_by_method(rule, "compass", initial_problem(config, overlay, language, scenario, pool), pool, seed=config.seed)
    writer = artifact.begin(identity)
    writer.write_table("rows.parquet", chosen.rows)
    chosen.allocation.write(writer)
    writer.publish({"selected": chosen.selected})


def initial_problem(
    config: RunConfig, overlay: OverlayRun, language: str, scenario: Scenario, pool: PoolView
) -> SelectionProblem:
    """The selection problem of a first adapter, without rows about subjects that join later."""
    first, *joining = scenario.groups
    [guide] = open_guides(config, overlay, [language])
    problem = first_adapter_problem(config, language, pool, _restrict_guide(guide, first, language))
    later = _subject_mask(pool, {subject for group in joining for subject in group})
    own, others = (rows[~later[rows]] for rows in (problem.own, problem.others))
    return replace(problem, own=own, others=others, trained_labels=pool.cluster[own].astype(np.int64))


def _restrict_guide(guide: Guide, subjects: Collection[str], language: str) -> Guide:
    chosen = np.flatnonzero([subject in subjects for subject in guide.subjects])
    if not len(chosen):
        raise ConfigError(f"no guide prompt of {language} is about the first subjects of the scenario; choose another --scenario")
    names = [guide.subjects[i] for i in chosen]
    return replace(guide, labels=guide.labels[chosen], vectors=guide.vectors[chosen], subjects=names)


def _subject_mask(pool: PoolView, subjects: Collection[str]) -> BoolArray:
    """Whether each row of the pool is about one of the subjects, bool[n]."""
    wanted = pc.is_in(pool.subject.dictionary, pa.array(sorted(subjects), pa.string())).to_numpy(zero_copy_only=False)
    codes: IntArray = pc.fill_null(pool.subject.indices, len(wanted)).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.asarray(np.r_[wanted, False][codes], np.bool_)


def _budget(config: RunConfig) -> float:
    """The budget of the first selection. If ``select.budget`` is tuned, use that of an update instead."""
    return config.select.budget if isinstance(config.select.budget, float) else config.update.budget
