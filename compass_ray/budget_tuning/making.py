"""What a language's budget is made of, and the files of it while it is being made."""

from __future__ import annotations

from typing import Any

from compass_ray.artifacts import Identity, RunDir, clustered
from compass_ray.config import RunConfig
from compass_ray.language_selection import settings_of
from compass_ray.models.location import model_identity

METHOD = "compass"
"""Whose selection the budget is tuned for; other methods take as many rows."""
HELD = "held.parquet"
"""The slice that trials are judged by: row_id, language, cluster, weight."""
PREPARED, TEXT = "prepared.json", "text.parquet"


def identity(config: RunConfig, run: RunDir, language: str) -> Identity:
    """What the language's budget is made of; training shapes it only where it is tuned."""
    bias = config.pool.bias.model_dump() if config.pool.bias else None
    settings: dict[str, Any] = {"select": settings_of(config.select, METHOD), "bias": bias, "seed": config.seed}
    if config.select.budget == "tuned":
        base = model_identity(config.train.base_model, config.train.revision)
        # Its trials are judged by a slice of their own.
        train = {name: value for name, value in config.train.identity().items() if name != "holdout"} | {"base_model": base}
        settings |= {"tune": config.tune.model_dump(exclude={"filled"}), "train": train}
    else:
        settings["tune"] = config.tune.model_dump(include={"budgets", "filled"})
    inputs = (run.pool, run.guide(language), run.guide_embeddings(language), run.clustering(clustered(config, language)))
    return Identity("tune", settings, {a.name: a.require().fingerprint for a in inputs})


def rows_file(budget: float) -> str:
    """The rows that one budget trains on: row_id, weight."""
    return f"selected-{budget:g}.parquet"


def trial_file(budget: float) -> str:
    """A trial that ended."""
    return f"trial-{budget:g}.json"
