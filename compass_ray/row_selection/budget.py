"""Which budget a language's selection has: the one of the settings, or the one that was found for the language."""

from __future__ import annotations

from compass_ray.artifacts import SHARED, Artifact, RunDir
from compass_ray.config import RunConfig, SelectConfig
from compass_ray.records.budgets import BudgetRecord


def budget_artifacts(config: RunConfig, run: RunDir, language: str) -> tuple[Artifact, ...]:
    """Where the language's budget stands, if it had to be found; what all languages share has no budget."""
    found = isinstance(config.select.budget, str) and language != SHARED
    return (run.budget(language),) if found else ()


def resolve_budget(config: RunConfig, run: RunDir, language: str) -> SelectConfig:
    """The selection's settings with the language's budget as a number.

    Raises:
        ArtifactError: it has not been found yet.
    """
    for artifact in budget_artifacts(config, run, language):
        artifact.require()
        return config.select.model_copy(update={"budget": BudgetRecord.read(artifact).budget})
    return config.select
