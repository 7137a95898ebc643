"""Build the picker of each baseline for a problem, and its record (COMPASS, section 4.3).

Key property: candidates are sorted by row_id, so the result depends neither on the clustering nor on the order of files.
Baselines ignore clusters and may select noise rows. Nothing is sampled here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from compass_ray.config import SelectConfig
from compass_ray.core.array_checks import FloatArray
from compass_ray.core.baselines.guide_turns import GuideTurnsPicker
from compass_ray.core.baselines.importance_resampling import ImportanceResamplingPicker, importance_log_weights
from compass_ray.core.baselines.nearest import guide_similarity
from compass_ray.core.baselines.pickers import PermutedPicker, QuantilePicker, TopKPicker
from compass_ray.core.selection import DRAWN_BY_QUOTA, QUANTILE_METHODS
from compass_ray.models.text_features import hashed_ngram_counts
from compass_ray.row_selection.baseline_features import BaselineFeatures
from compass_ray.row_selection.baseline_inputs import Baseline, BaselineInputs
from compass_ray.row_selection.pool_view import PoolView
from compass_ray.row_selection.problem import SelectionProblem
from compass_ray.row_selection.transfer_languages import langrank, langsim
from compass_ray.sources.typology import read_transfers, vectors_source


def needs_features(method: str) -> bool:
    """Whether a method uses more than clusters."""
    return method in _BASELINES


def build_baseline(
    config: SelectConfig, method: str, problem: SelectionProblem, pool: PoolView, features: BaselineFeatures
) -> Baseline:
    """The picker of a method for a problem, with its record.

    Raises:
        ConfigError: no language of the pool has vectors, or the table of transfers cannot be used.
        ModelError: langrank without lightgbm.
    """
    inputs = BaselineInputs.of(config.transfer, problem, pool, features)
    baseline = _BASELINES[method](inputs)
    return Baseline(PermutedPicker(inputs.order, baseline.picker), baseline.transfer)


def method_settings(config: SelectConfig, method: str) -> dict[str, Any]:
    """Settings that the selection of a method depends on, for its fingerprint.

    Baselines select as many rows as COMPASS, so only the settings of that number count for them. A table of transfers counts
    by its content. The source of the language vectors counts too.
    """
    settings = _rule_settings(config, method) | {"method": method}
    if method in ("langsim", "langrank"):
        settings["transfer"] = config.transfer.fingerprint_settings(exclude={"results"}) | {"vectors": vectors_source()}
    if method == "langrank":
        settings["transfer"]["results"] = read_transfers(config.transfer.results).sha256
    return settings


def _rule_settings(config: SelectConfig, method: str) -> dict[str, Any]:
    """Settings of the selection rule that a method uses: all, those of the number of rows, or none."""
    if method in DRAWN_BY_QUOTA:
        return config.fingerprint_settings(exclude={"methods", "transfer"})
    return {} if method in ("target", "all") else config.fingerprint_settings(include={"budget", "weights", "overflow"})


def _similarity(inputs: BaselineInputs) -> FloatArray:
    """Cosine float64[n] of each candidate to its nearest guide prompt."""
    guide = inputs.features.guide_vectors()
    return guide_similarity(lambda at: inputs.pool.stored_vectors(inputs.rows[at]), len(inputs.rows), guide)


def _nearest(inputs: BaselineInputs) -> Baseline:
    return Baseline(TopKPicker(_similarity(inputs)))


def _quantile(inputs: BaselineInputs, number: int) -> Baseline:
    return Baseline(QuantilePicker(_similarity(inputs), number))


def _round_robin(inputs: BaselineInputs) -> Baseline:
    pool, own = inputs.pool, inputs.problem.own
    return Baseline(
        GuideTurnsPicker(
            rows=lambda at: pool.stored_vectors(inputs.rows[at]),
            n=len(inputs.rows),
            guide=inputs.features.guide_vectors(),
            own=lambda at: pool.stored_vectors(own[at]),
            n_own=len(own),
        )
    )


def _dsir(inputs: BaselineInputs) -> Baseline:
    counts = inputs.features.texts().counts[inputs.pool.position[inputs.rows]]
    return Baseline(
        ImportanceResamplingPicker(importance_log_weights(counts, hashed_ngram_counts(inputs.features.guide_prompts())))
    )


_BASELINES: Mapping[str, Callable[[BaselineInputs], Baseline]] = {
    "nearest": _nearest,
    "dsir": _dsir,
    "langsim": langsim,
    "langrank": langrank,
    "round_robin": _round_robin,
    **{method: partial(_quantile, number=number) for number, method in enumerate(QUANTILE_METHODS, start=1)},
}
