"""What a language's budget is made of, and the files of it while it is being made."""

from __future__ import annotations

from typing import Any

from compass_ray.artifacts import Identity, RunDir, clustering_key
from compass_ray.config import RunConfig
from compass_ray.models.model_resolver import model_identity
from compass_ray.row_selection import method_settings

METHOD = "compass"
"""Whose selection the budget is tuned for; other methods take as many rows."""
HELD_OUT_FILE = "held.parquet"
"""The slice that trials are judged by: row_id, language, cluster, weight."""
TEXT_FILE = "text.parquet"


def identity(config: RunConfig, run: RunDir, language: str) -> Identity:
    """What the language's budget is made of; training shapes it only where it is tuned."""
    bias = config.pool.bias.fingerprint_settings() if config.pool.bias else None
    settings: dict[str, Any] = {"select": method_settings(config.select, METHOD), "bias": bias, "seed": config.seed}
    if config.select.budget == "tuned":
        base = model_identity(config.train.base_model, config.train.revision)
        # Its trials are judged by a slice of their own.
        train = {name: value for name, value in config.train.identity().items() if name != "holdout"} | {"base_model": base}
        settings |= {"tune": config.tune.fingerprint_settings(exclude={"filled"}), "train": train}
    else:
        settings["tune"] = config.tune.fingerprint_settings(include={"budgets", "filled"})
    inputs = (run.pool, run.guide(language), run.guide_embeddings(language), run.clustering(clustering_key(config, language)))
    return Identity("tune", settings, {a.name: a.require().fingerprint for a in inputs})


def rows_file(budget: float) -> str:
    """The rows that one budget trains on: row_id, weight."""
    return f"selected-{budget:g}.parquet"


def trial_file(budget: float) -> str:
    """A trial that ended."""
    return f"trial-{budget:g}.json"
