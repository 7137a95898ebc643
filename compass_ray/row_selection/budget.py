"""Resolve the budget of a language: from the settings, or from the budget stage."""

from __future__ import annotations

from compass_ray.artifacts import SHARED, Artifact, RunDir
from compass_ray.config import RunConfig, SelectConfig
from compass_ray.records.budgets import BudgetRecord


def budget_artifacts(config: RunConfig, run: RunDir, language: str) -> tuple[Artifact, ...]:
    """The artifact of the language's budget if the budget stage finds it; none for `SHARED`."""
    is_searched = isinstance(config.select.budget, str) and language != SHARED
    return (run.budget(language),) if is_searched else ()


def resolve_budget(config: RunConfig, run: RunDir, language: str) -> SelectConfig:
    """Selection settings with the budget of the language as a number.

    Raises:
        ArtifactError: the budget stage has not run.
    """
    for artifact in budget_artifacts(config, run, language):
        artifact.require()
        return config.select.model_copy(update={"budget": BudgetRecord.read(artifact).budget})
    return config.select
