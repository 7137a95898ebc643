"""A guide set that clusters take for noise, before it is asked what to select for it."""

from __future__ import annotations

import numpy as np
import pytest

from compass_ray.config import BiasConfig, ClusterConfig, ConfigError, RunConfig, SelectConfig
from compass_ray.row_selection.problem import draw_bias, require_guide_in_clusters

NOISE = np.full(5, -1)


def settings(**select: object) -> RunConfig:
    config = RunConfig.model_construct(cluster=ClusterConfig(method="butina"))
    return config.model_copy(update={"select": SelectConfig.model_validate(select)})


@pytest.mark.parametrize("weights", ["ratio", "deficit"])
def test_guide_set_wholly_in_noise_is_an_error_with_ways_on(weights: str) -> None:
    with pytest.raises(ConfigError, match=r"all 5 guide prompts of sw are noise.*cluster\.method=kmeans.*select\.weights=none"):
        require_guide_in_clusters(settings(weights=weights), "sw", NOISE)


def test_guide_set_partly_in_noise_is_none() -> None:
    """It raises where it must, so coming back is the answer."""
    assert require_guide_in_clusters(settings(), "sw", np.array([-1, -1, 0])) is None


@pytest.mark.parametrize("method", ["random", "nearest", "dsir", "langsim", "langrank"])
def test_methods_that_take_as_many_rows_as_compass_need_a_placed_guide_set_too(method: str) -> None:
    with pytest.raises(ConfigError, match="nothing would be selected"):
        require_guide_in_clusters(settings(methods=["target", method]), "sw", NOISE)


def test_methods_that_read_no_weights_take_any_guide_set() -> None:
    for taken in (settings(methods=["target", "all"]), settings(weights="none")):
        assert require_guide_in_clusters(taken, "sw", NOISE) is None
    assert require_guide_in_clusters(settings(), "sw", NOISE[:0]) is None


def test_the_seed_of_the_bias_replaces_that_of_the_run() -> None:
    subjects = [f"{family}_{i}" for family in ("emoji", "fact", "topic") for i in range(6) for _ in range(10)]
    groups = (("emoji",), ("fact", "gap"), ("pick",))
    fixed, free = BiasConfig(p_low=0.1, seed=5, groups=groups), BiasConfig(p_low=0.1)
    found = [draw_bias(fixed, seed, "de", subjects) for seed in range(4)]
    assert all(each.thinned_subjects == found[0].thinned_subjects for each in found)
    assert all(np.array_equal(each.kept, found[0].kept) for each in found)
    assert {"emoji", "fact"} <= {name.partition("_")[0] for name in found[0].thinned_subjects}
    assert len({draw_bias(free, seed, "de", subjects).thinned_subjects for seed in range(8)}) > 1


def test_each_language_may_have_a_seed_of_its_bias() -> None:
    subjects = [f"s{i}" for i in range(40)]
    both = BiasConfig(p_low=0.3, seed={"de": 3})
    for language, seed in (("de", 3), ("id", 9)):
        expected = draw_bias(BiasConfig(p_low=0.3), seed, language, subjects).thinned_subjects
        assert draw_bias(both, 9, language, subjects).thinned_subjects == expected
