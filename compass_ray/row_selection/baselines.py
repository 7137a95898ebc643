"""How each baseline would take rows for a question, and what to record of it (COMPASS, section 4.3).

Key property: candidates are seen in order of row_id, so that what is taken follows neither the clustering nor the order
of a file. Rows in noise may be taken: no baseline knows of clusters. Draws nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from compass_ray.config import SelectConfig
from compass_ray.core.baselines.importance_resampling import ImportanceResamplingPicker, importance_log_weights
from compass_ray.core.baselines.nearest import guide_similarity
from compass_ray.core.baselines.pickers import PermutedPicker, TopKPicker
from compass_ray.models.text_features import hashed_ngram_counts
from compass_ray.row_selection.baseline_features import BaselineFeatures
from compass_ray.row_selection.baseline_inputs import Baseline, BaselineInputs
from compass_ray.row_selection.pool_view import PoolView
from compass_ray.row_selection.problem import SelectionProblem
from compass_ray.row_selection.transfer_languages import langrank, langsim
from compass_ray.sources.typology import read_transfers, vectors_source


def needs_features(method: str) -> bool:
    """Whether a method looks at more than clusters."""
    return method in _BASELINES


def build_baseline(
    config: SelectConfig, method: str, question: SelectionProblem, pool: PoolView, material: BaselineFeatures
) -> Baseline:
    """How a method would take rows.

    Raises:
        ConfigError: no language of the pool has vectors, or the table of transfers cannot be used.
        ModelError: langrank without lightgbm.
    """
    asked = BaselineInputs.of(config.transfer, question, pool, material)
    made = _BASELINES[method](asked)
    return Baseline(PermutedPicker(asked.order, made.picker), made.transfer)


def method_settings(config: SelectConfig, method: str) -> dict[str, Any]:
    """The settings that a method's selection depends on, for its fingerprint.

    The baselines take as many rows as COMPASS does, and of its settings only those of that number count for them. A table
    of transfers counts by its content; which vectors of languages there are counts too.
    """
    settings = _rule_settings(config, method) | {"method": method}
    if method in ("langsim", "langrank"):
        settings["transfer"] = config.transfer.fingerprint_settings(exclude={"results"}) | {"vectors": vectors_source()}
    if method == "langrank":
        settings["transfer"]["results"] = read_transfers(config.transfer.results).sha256
    return settings


def _rule_settings(config: SelectConfig, method: str) -> dict[str, Any]:
    """What is read of the rule that COMPASS draws by: all, the number of rows, or nothing."""
    if method == "compass":
        return config.fingerprint_settings(exclude={"methods", "transfer"})
    return {} if method in ("target", "all") else config.fingerprint_settings(include={"budget", "weights", "overflow"})


def _nearest(asked: BaselineInputs) -> Baseline:
    guide = asked.features.guide_vectors()
    return Baseline(TopKPicker(guide_similarity(lambda at: asked.pool.stored_vectors(asked.rows[at]), len(asked.rows), guide)))


def _dsir(asked: BaselineInputs) -> Baseline:
    counts = asked.features.texts().counts[asked.pool.position[asked.rows]]
    return Baseline(
        ImportanceResamplingPicker(importance_log_weights(counts, hashed_ngram_counts(asked.features.guide_prompts())))
    )


_BASELINES: Mapping[str, Callable[[BaselineInputs], Baseline]] = {
    "nearest": _nearest,
    "dsir": _dsir,
    "langsim": langsim,
    "langrank": langrank,
}
