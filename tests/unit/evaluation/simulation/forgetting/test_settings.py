"""Update variants: their names, variants shared by sweeps, and invalid plans."""

from __future__ import annotations

import pytest

from compass_ray.config import ConfigError, parse_config
from compass_ray.evaluation.simulation.forgetting import BETAS, BUFFERS, LAMBDAS, ForgettingSettings
from compass_ray.evaluation.simulation.forgetting.settings import UpdateVariant

CONFIG = parse_config({"languages": ["sw"]})


def test_a_variant_without_changes_is_the_strategy_itself() -> None:
    same = UpdateVariant.with_settings(CONFIG, "ecda", ewc_lambda=2.0, beta=0.1)
    assert same == UpdateVariant("ecda")
    assert UpdateVariant.with_settings(CONFIG, "ecda", ewc_lambda=10.0, beta=0.1).name == "ecda-ewc_lambda-10"


def test_a_variant_changes_only_its_settings() -> None:
    changed = UpdateVariant.with_settings(CONFIG, "ewc", ewc_lambda=10.0).apply_to(CONFIG, seed=3)
    assert (changed.seed, changed.update.strategy, changed.update.ewc_lambda) == (3, "ewc", 10.0)
    assert changed.update.beta == CONFIG.update.beta
    assert changed.train == CONFIG.train


def test_further_variants_are_ecda_with_the_settings_of_the_command_line() -> None:
    variant = UpdateVariant.parse("replay = drawn, fisher_scale=trace,ewc_lambda=1e3")
    assert variant.name == "ecda-replay-drawn-fisher_scale-trace-ewc_lambda-1000"
    found = variant.apply_to(CONFIG, 0).update
    assert (found.strategy, found.replay, found.fisher_scale, found.ewc_lambda) == ("ecda", "drawn", "trace", 1000.0)
    plan = ForgettingSettings(variants=(variant,))
    assert plan.strategy_variants() == [*(UpdateVariant(name) for name in plan.strategies), variant]
    assert plan.update_counts(CONFIG, 4)[variant] == 3


@pytest.mark.parametrize("text", ["replay=typical", "nothing=1", "beta", "strategy=naive", "learning_rate=null"])
def test_a_wrong_setting_of_a_variant_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=f"update.{text.partition('=')[0]}"):
        UpdateVariant.parse(text)


def test_equal_variants_of_the_papers_sweeps_are_counted_once() -> None:
    plan = ForgettingSettings(buffers=BUFFERS, lambdas=LAMBDAS, betas=BETAS)
    variants = plan.update_counts(CONFIG, 4)
    swept = len(LAMBDAS) * len(BETAS) - 1
    assert len(variants) == len(plan.strategies) + swept + len(BUFFERS) - 1, "5% and (2, 0.1) are ECDA as configured"
    assert len({variant.name for variant in variants}) == len(variants)
    assert variants[UpdateVariant("ecda")] == 3, "the larger number of updates"
    assert sorted(variants.values()) == [1] * (swept + len(BUFFERS) - 1) + [3] * len(plan.strategies)


def test_without_a_buffer_the_elastic_weights_remain() -> None:
    [variant] = ForgettingSettings(buffers=(0.0,)).buffer_variants(CONFIG).values()
    found = variant.apply_to(CONFIG, 0).update
    assert (found.beta, found.ewc_lambda, found.anchors) == (0.0, 2.0, 0.05)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (ForgettingSettings(seeds=0), "0 seeds"),
        (ForgettingSettings(fresh_share=0.0), "share of new subjects is 0"),
        (ForgettingSettings(fresh_share=1.5), "share of new subjects is 1.5"),
        (ForgettingSettings(strategies=("static", "naive", "magic")), "unknown strategy 'magic'"),
        (ForgettingSettings(strategies=("static", "ecda")), "compared with static, naive, ecda; add naive"),
    ],
)
def test_an_invalid_plan_is_rejected(plan: ForgettingSettings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan.validate()
