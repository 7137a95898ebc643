"""Read the results of the variants of an experiment and compare them.

A difference is computed over the items that both variants answered. For under-represented subjects, only languages count
in which both variants classify the same subjects as under-represented. Nothing is trained or scored here. COMPASS,
sections 4.3 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from compass_ray import pipeline
from compass_ray.artifacts import read_attempts
from compass_ray.core.bootstrap import paired_bootstrap
from compass_ray.core.choice_measures import MEASURES
from compass_ray.core.seeds import generator
from compass_ray.evaluation.experiments.artifact_reuse import REUSED_FROM
from compass_ray.evaluation.experiments.results import (
    AccuracyDifference,
    ExperimentOutcomes,
    MethodMeasures,
    RemainingGap,
    SeedGroup,
    SeedStatistics,
    VariantCost,
    VariantOutcome,
)
from compass_ray.evaluation.experiments.run_variants import VariantAttempt
from compass_ray.evaluation.experiments.variants import Experiment
from compass_ray.records.evaluations import ScoredItems
from compass_ray.report.comparison import MEAN, SCOPES, Scope, compare, low_subjects
from compass_ray.report.measures import MEASURE_SCOPES, MeasureRows, MeasureScope, measure
from compass_ray.report.run_reader import METHODS, RunReader

_TRAINING = ("train", "full")
_MAX_CONCURRENT_READS = 16
"""Concurrent reads of manifests: an object store takes about 20 ms for one."""


def collect_outcomes(experiment: Experiment, attempts: Sequence[VariantAttempt]) -> ExperimentOutcomes:
    """Read the results of the variants, complete or not."""
    readers = {each.variant.name: RunReader(each.run) for each in attempts}
    outcomes = tuple(_read_outcome(experiment, each, readers) for each in attempts)
    settings = attempts[0].variant.config.evaluate
    return ExperimentOutcomes(experiment.against, settings.confidence, outcomes, _group_by_seed(outcomes))


def _read_outcome(experiment: Experiment, attempt: VariantAttempt, readers: Mapping[str, RunReader]) -> VariantOutcome:
    variant, own = attempt.variant, readers[attempt.variant.name]
    reference = experiment.reference_for(variant)
    compared = compare(attempt.run, variant.config)
    measured = measure(own, variant.config)
    means = {scope: mean for scope in SCOPES if (mean := compared.mean_row(scope))}
    differ = {} if reference == variant else _differences(attempt, own, readers[reference.name])
    return VariantOutcome(
        name=variant.name,
        group=variant.group,
        seed=variant.config.seed,
        settings=variant.settings,
        run=attempt.run.shown_uri,
        failure=attempt.failure,
        accuracy={scope: dict(mean.accuracy) for scope, mean in means.items()},
        items={scope: mean.items for scope, mean in means.items()},
        chance={scope: mean.chance for scope, mean in means.items() if mean.chance is not None},
        measures={scope: by for scope in MEASURE_SCOPES if (by := _mean_measures(measured, scope))},
        text_bits_per_byte={m: bits for m in METHODS if (bits := measured.text_bits(MEAN, m)) is not None},
        reference=reference.name,
        difference=differ,
        gap={m: left for m in variant.config.select.methods if (left := _gap(own, m, variant.config.languages))},
        served=variant.config.serve.method,
        cost=_cost(attempt),
        training=compared.costs,
    )


def _mean_measures(measured: MeasureRows, scope: MeasureScope) -> dict[str, MethodMeasures]:
    return {row.method: MethodMeasures(row.mean, row.families, row.languages) for row in measured.mean_rows(scope)}


def _differences(attempt: VariantAttempt, own: RunReader, other: RunReader) -> dict[Scope, dict[str, AccuracyDifference]]:
    found = {scope: {m: _difference(attempt, scope, m, own, other) for m in METHODS} for scope in SCOPES}
    return {scope: {m: each for m, each in by.items() if each} for scope, by in found.items() if any(by.values())}


def _difference(
    attempt: VariantAttempt, scope: Scope, method: str, own: RunReader, other: RunReader
) -> AccuracyDifference | None:
    config = attempt.variant.config
    paired = [found for code in config.languages if (found := _pair_answers(scope, method, code, own, other)) is not None]
    if not paired:
        return None
    a, b = (np.concatenate([each[side] for each in paired]) for side in (0, 1))
    interval = paired_bootstrap(
        a,
        b,
        strata=np.repeat(np.arange(len(paired)), [each.shape[1] for each in paired]),
        resamples=config.evaluate.resamples,
        confidence=config.evaluate.confidence,
        rng=generator(config.seed, "experiment", attempt.variant.name, scope, method),
    )
    return AccuracyDifference(interval, len(a), len(paired))


def _pair_answers(scope: Scope, method: str, code: str, own: RunReader, other: RunReader) -> np.ndarray | None:
    """Answers of both variants to the items that both answered, float64[2, n], 1 if correct. None if there are none."""
    a, b = own.scored_items(method, code), other.scored_items(method, code)
    if not (a and b):
        return None
    low = low_subjects(own, code)
    if scope == "low" and low != low_subjects(other, code):
        return None
    left, right = _answers(a), _answers(b)
    subjects = dict(zip(a.item_ids, a.subjects, strict=True))
    common = sorted(item for item in left.keys() & right.keys() if scope == "all" or subjects[item] in low)
    return np.array([[left[i] for i in common], [right[i] for i in common]], dtype=np.float64) if common else None


def _answers(scored: ScoredItems) -> dict[str, bool]:
    return dict(zip(scored.item_ids, scored.correct.tolist(), strict=True))


def _gap(reader: RunReader, method: str, languages: Sequence[str]) -> RemainingGap | None:
    allocations = [found for code in languages if (found := reader.allocation(method, code))]
    measured = [(a.js_before, a.js_after) for a in allocations if a.js_before is not None and a.js_after is not None]
    if not measured:
        return None
    before, after = np.mean(measured, axis=0)
    unfilled = [a.unfilled / a.budget for a in allocations if a.budget]
    return RemainingGap(float(before), float(after), float(np.mean(unfilled)) if unfilled else 0.0, len(measured))


def _cost(attempt: VariantAttempt) -> VariantCost:
    config, run = attempt.variant.config, attempt.run
    artifacts = [artifact for stage in pipeline.STAGES for artifact in stage.artifacts(config, run)]
    with ThreadPoolExecutor(_MAX_CONCURRENT_READS) as pool:
        manifests = [manifest for manifest in pool.map(lambda artifact: artifact.manifest(), artifacts) if manifest]
    return VariantCost(
        seconds=round(sum(each.makespan for each in read_attempts(run)), 2),
        training_seconds=round(sum(float(m.metrics.get("seconds", 0.0)) for m in manifests if m.stage in _TRAINING), 2),
        whole=len(manifests),
        total=len(artifacts),
        taken=sum(REUSED_FROM in manifest.provenance for manifest in manifests),
    )


def _group_by_seed(outcomes: Sequence[VariantOutcome]) -> tuple[SeedGroup, ...]:
    groups = {o.group: [p for p in outcomes if p.group == o.group] for o in outcomes}
    if all(len(members) < 2 for members in groups.values()):
        return ()
    return tuple(_group(name, members, outcomes) for name, members in groups.items())


def _group(name: str, members: Sequence[VariantOutcome], outcomes: Sequence[VariantOutcome]) -> SeedGroup:
    seed_of = {outcome.name: outcome.seed for outcome in outcomes}
    paired = [o for o in members if seed_of[o.reference] == o.seed]
    return SeedGroup(
        group=name,
        seeds=tuple(o.seed for o in members),
        accuracy={s: _spreads([{m: i.mean for m, i in o.accuracy.get(s, {}).items()} for o in members]) for s in SCOPES},
        difference={
            s: _spreads([{m: d.interval.mean for m, d in o.difference.get(s, {}).items()} for o in paired]) for s in SCOPES
        },
        measures={s: by for s in MEASURE_SCOPES if (by := _measure_spreads([o.measures.get(s, {}) for o in members]))},
        gap=_spreads([{m: left.after for m, left in o.gap.items()} for o in members]),
    )


def _spreads(measured: Sequence[Mapping[str, float]]) -> dict[str, SeedStatistics]:
    found = {m: [each[m] for each in measured if m in each] for m in METHODS}
    return {m: summarize_seeds(values) for m, values in found.items() if values}


def _measure_spreads(members: Sequence[Mapping[str, MethodMeasures]]) -> dict[str, dict[str, SeedStatistics]]:
    """Statistics over seeds by method and measure."""
    by_measure = {
        name: _spreads([{m: v for m, each in by.items() if (v := each.mean.value(name)) is not None} for by in members])
        for name in MEASURES
    }
    found = {m: {name: by[m] for name, by in by_measure.items() if m in by} for m in METHODS}
    return {m: by for m, by in found.items() if by}


def summarize_seeds(values: Sequence[float]) -> SeedStatistics:
    """Return the mean and the sample standard deviation over seeds.

    >>> summarize_seeds([1.0, 3.0])
    SeedStatistics(mean=2.0, deviation=1.4142135623730951, seeds=2)
    """
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return SeedStatistics(float(np.mean(values)), deviation, len(values))
