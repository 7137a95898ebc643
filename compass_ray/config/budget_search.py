"""Settings of the search for each language's budget (COMPASS, section 5.2)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from compass_ray.config.base import AtLeastTwo, ConfigSection, Fraction, Positive, Share
from compass_ray.core.budget_forecast import SHARE

BudgetRule = Literal["tuned", "predicted"]
"""How a language's budget is found: by a sweep of trainings, or from cluster counts alone."""
Budget = Annotated[float, Field(ge=0.2, le=10.0)]


class TuneConfig(ConfigSection):
    """Budgets to try if ``select.budget`` is ``tuned`` or ``predicted``, and how to try them."""

    budgets: Annotated[tuple[Budget, ...], Field(min_length=1)] = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
    """Budgets to compare, as factors of a language's own rows, in ascending order; each from 0.2 to 10."""
    holdout: Share = 0.2
    """Share of a language's own rows that evaluates all trials; no trial trains on them."""
    grace: Positive = 2
    """Epochs that every trial trains before it can be stopped; on the atlas the best budgets often lag after one."""
    reduction: AtLeastTwo = 2
    """At epochs ``grace``, ``grace * reduction``, ... about one in this many trials continues."""
    filled: Fraction = SHARE
    """The predicted budget is the smallest that fills this share of the gap that the largest budget fills."""

    @field_validator("budgets")
    @classmethod
    def _budgets_grow(cls, budgets: tuple[float, ...]) -> tuple[float, ...]:
        if list(budgets) != sorted(set(budgets)):
            raise ValueError("expected distinct budgets in ascending order")
        return budgets
