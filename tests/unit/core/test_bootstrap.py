"""Bootstrap intervals against SciPy's, against index resampling, and by their coverage."""

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from compass_ray.core.bootstrap import bootstrap, paired_bootstrap


def test_the_interval_is_scipys() -> None:
    rng = np.random.default_rng(0)
    items = rng.random(120) < 0.6
    ours = bootstrap(items, resamples=20_000, rng=rng)
    theirs = scipy_bootstrap((items,), np.mean, n_resamples=20_000, method="percentile", rng=rng).confidence_interval
    assert ours.mean == pytest.approx(items.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_strata_have_equal_weight_and_are_resampled_separately() -> None:
    rng = np.random.default_rng(0)
    strata = np.repeat(["sw", "yo"], [400, 40])
    a, b = rng.integers(0, 2, (2, 440))
    ours = paired_bootstrap(a, b, strata=strata, resamples=20_000, rng=rng)
    groups = [(a - b)[strata == s] for s in ("sw", "yo")]
    means = [np.mean([rng.choice(g, len(g)).mean() for g in groups]) for _ in range(5000)]
    assert ours.mean == pytest.approx(np.mean([g.mean() for g in groups]))
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.012)


def test_pairing_finds_a_difference_that_two_samples_hide() -> None:
    rng = np.random.default_rng(0)
    b = (rng.random(500) < 0.5).astype(int)
    a = np.where(rng.random(500) < 0.05, 1, b)
    assert paired_bootstrap(a, b, rng=rng).low > 0
    assert paired_bootstrap(a, a, rng=rng).high == 0


def test_the_interval_has_its_nominal_coverage() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        interval = bootstrap(rng.random(80) < 0.4, resamples=500, confidence=0.9, rng=rng)
        hits += interval.low <= 0.4 <= interval.high
    assert 0.84 < hits / 300 < 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: bootstrap([], rng=rng), "0 items"),
        (lambda rng: bootstrap([1, np.nan], rng=rng), "NaN"),
        (lambda rng: bootstrap([1, 0], strata=["a"], rng=rng), "1 strata for 2 items"),
        (lambda rng: paired_bootstrap([1], [1, 0], rng=rng), "pair the items"),
        (lambda rng: bootstrap([1], confidence=95, rng=rng), "confidence 95"),
    ],
)
def test_errors_name_the_given_value(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))


def test_a_weighted_interval_has_its_nominal_coverage() -> None:
    """Repeated draws of weighted items: 95 per cent intervals miss the true mean about one time in twenty."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        weights, before = rng.choice([0.5, 1.5], 60), rng.normal(3.0, 1.0, 60)
        found = paired_bootstrap(before - 0.2 + rng.normal(0.0, 0.5, 60), before, weights=weights, resamples=1000, rng=rng)
        covered += found.low <= -0.2 <= found.high
    assert 0.90 <= covered / 400 <= 0.98
