"""Identity and files of the budget artifact of a language."""

from __future__ import annotations

from typing import Any

from compass_ray.artifacts import Identity, RunDir, clustering_key
from compass_ray.config import RunConfig
from compass_ray.models.model_resolver import model_identity
from compass_ray.row_selection import method_settings

METHOD = "compass"
"""Method whose selection the budget is tuned for; other methods select as many rows."""
HELD_OUT_FILE = "held.parquet"
"""Held-out rows that evaluate the trials: row_id, language, cluster, weight."""
TEXT_FILE = "text.parquet"


def identity(config: RunConfig, run: RunDir, language: str) -> Identity:
    """Identity of the budget; training settings count only if the budget is tuned."""
    bias = config.pool.bias.restrict_to([language]).fingerprint_settings() if config.pool.bias else None
    settings: dict[str, Any] = {"select": method_settings(config.select, METHOD), "bias": bias, "seed": config.seed}
    if config.select.budget == "tuned":
        base = model_identity(config.train.base_model, config.train.revision)
        # Trials have their own holdout.
        train = {name: value for name, value in config.train.identity().items() if name != "holdout"} | {"base_model": base}
        settings |= {"tune": config.tune.fingerprint_settings(exclude={"filled"}), "train": train}
    else:
        settings["tune"] = config.tune.fingerprint_settings(include={"budgets", "filled"})
    inputs = (run.pool, run.guide(language), run.guide_embeddings(language), run.clustering(clustering_key(config, language)))
    return Identity("tune", settings, {a.name: a.require().fingerprint for a in inputs})


def rows_file(budget: float) -> str:
    """File of the training rows of one budget: row_id, weight."""
    return f"selected-{budget:g}.parquet"


def trial_file(budget: float) -> str:
    """File of a finished trial."""
    return f"trial-{budget:g}.json"
