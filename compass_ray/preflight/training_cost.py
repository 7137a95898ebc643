"""Tokens and optimizer steps of all adapters, if ``train.tokens`` fixes them. They follow from the settings alone."""

from __future__ import annotations

from compass_ray.artifacts import adapter_owners
from compass_ray.config import TrainConfig
from compass_ray.preflight.check_result import CheckContext, CheckResult

_OWN_REPEATED = CheckResult(
    "training cost",
    "own_repeated is trained as target is: with train.tokens every method repeats its rows",
    "remove own_repeated from select.methods, or train.tokens",
)


def check_training_cost(context: CheckContext) -> list[CheckResult]:
    """Report the cost of the run's adapters; warn if one row may have more tokens than a step."""
    train, adapters = context.config.train, len(adapter_owners(context.config))
    if train.tokens is None or "train" not in context.stages:
        return []
    repeated = [_OWN_REPEATED] if {"target", "own_repeated"} <= set(context.config.select.methods) else []
    return [_describe_cost(train, train.tokens, adapters), *repeated]


def _describe_cost(train: TrainConfig, tokens: int, adapters: int) -> CheckResult:
    share = tokens // train.token_steps
    found = (
        f"{tokens:,} tokens in {train.token_steps:,} steps of {share:,} for each adapter; {adapters:,} adapters, "
        f"{adapters * tokens:,} tokens"
    )
    if train.max_tokens <= share:
        return CheckResult("training cost", found)
    remedy = f"set train.step_tokens to {train.max_tokens:,} or more, or lower train.max_tokens, for steps of equal size"
    return CheckResult("training cost", f"{found}, but a row may have {train.max_tokens:,}", remedy)
