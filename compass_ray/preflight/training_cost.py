"""Tokens and optimizer steps of all adapters, if ``train.tokens`` fixes them. They follow from the settings alone."""

from __future__ import annotations

from compass_ray.artifacts import adapter_owners
from compass_ray.preflight.check_result import CheckContext, CheckResult


def check_training_cost(context: CheckContext) -> list[CheckResult]:
    """Report the cost of the run's adapters; warn if one row may have more tokens than a step."""
    train, adapters = context.config.train, len(adapter_owners(context.config))
    if train.tokens is None or "train" not in context.stages:
        return []
    share = train.tokens // train.token_steps
    found = (
        f"{train.tokens:,} tokens in {train.token_steps:,} steps of {share:,} for each adapter; {adapters:,} adapters, "
        f"{adapters * train.tokens:,} tokens"
    )
    if train.max_tokens <= share:
        return [CheckResult("training cost", found)]
    remedy = f"set train.step_tokens to {train.max_tokens:,} or more, or lower train.max_tokens, for steps of equal size"
    return [CheckResult("training cost", f"{found}, but a row may have {train.max_tokens:,}", remedy)]
