"""Sampled tokens against the distribution that temperature and top_p define."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from compass_ray.engine import sampler
from compass_ray.engine.sampler import SamplingParams, make_generator, sample


def expected(logits: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """Probabilities of the smallest set of most likely tokens whose mass reaches ``top_p``, token by token."""
    scaled = logits.astype(np.float64) / temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    nucleus, mass = np.zeros_like(p), 0.0
    for token in np.argsort(-p, kind="stable"):
        if mass >= top_p:
            break
        nucleus[token], mass = p[token], mass + p[token]
    return nucleus / nucleus.sum()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.95), (2.0, 0.6), (1.0, 0.999)])
def test_samples_follow_temperature_and_top_p(temperature: float, top_p: float) -> None:
    logits = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -3.0], np.float32)
    params = SamplingParams(make_generator(7), temperature, top_p)
    tokens = [sample(torch.from_numpy(logits)[None], [params])[0].token_id for _ in range(3000)]
    probabilities = expected(logits, temperature, top_p)
    counts = np.bincount(tokens, minlength=len(logits))
    assert not counts[probabilities == 0].any()
    possible = probabilities > 0
    assert stats.chisquare(counts[possible], probabilities[possible] * len(tokens)).pvalue > 1e-3


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.lists(st.sampled_from([0.0, 0.7, 1.5]), min_size=1, max_size=6), st.floats(0.05, 1.0))
def test_samples_do_not_depend_on_neighbours(seed: int, temperatures: list[float], top_p: float) -> None:
    logits = torch.randn(len(temperatures), 50, generator=torch.Generator().manual_seed(seed))
    params = [SamplingParams(make_generator(seed + i), t, top_p) for i, t in enumerate(temperatures)]
    together = sample(logits, params)
    for i, temperature in enumerate(temperatures):
        alone = sample(logits[i : i + 1], [SamplingParams(make_generator(seed + i), temperature, top_p)])[0]
        assert alone.token_id == together[i].token_id
        assert alone.logprob == pytest.approx(together[i].logprob, abs=1e-5)


def test_a_nucleus_larger_than_the_first_candidates_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(1, 400, generator=torch.Generator().manual_seed(0))
    expected_tokens = [sample(logits, [SamplingParams(make_generator(seed), 1.0, 0.9)])[0].token_id for seed in range(50)]
    monkeypatch.setattr(sampler, "_FIRST_CANDIDATES", 8)
    assert [sample(logits, [SamplingParams(make_generator(seed), 1.0, 0.9)])[0].token_id for seed in range(50)] == expected_tokens


def test_log_probabilities_ignore_the_temperature_and_are_sorted() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 5.0]])
    logprobs = logits.log_softmax(-1)
    first, second = sample(
        logits, [SamplingParams(make_generator(0), num_logprobs=2), SamplingParams(make_generator(0), temperature=9.0)]
    )
    assert first.token_id == 1
    assert first.logprob == pytest.approx(float(logprobs[0, 1]))
    assert first.top_logprobs == ((1, pytest.approx(float(logprobs[0, 1]))), (2, pytest.approx(float(logprobs[0, 2]))))
    assert second.top_logprobs == ()
    assert second.logprob == pytest.approx(float(logprobs[1, second.token_id]))


@pytest.mark.parametrize(("temperature", "top_p"), [(1e-300, 1.0), (1.0, 1e-300), (5e-324, 5e-324), (1e-38, 0.5)])
def test_values_too_small_for_float32_take_the_most_likely_token(temperature: float, top_p: float) -> None:
    logits = torch.tensor([[0.0, 4.0, 1.0], [1.0, 0.0, 0.5]])
    params = [SamplingParams(make_generator(1), temperature, top_p), SamplingParams(make_generator(2))]
    assert [sampled.token_id for sampled in sample(logits, params)] == [1, 0]


def test_nan_logits_do_not_affect_other_rows() -> None:
    logits = torch.tensor([[float("nan")] * 3, [0.0, 9.0, 1.0]])
    sampled = sample(logits, [SamplingParams(make_generator(1), 1.0), SamplingParams(make_generator(2), 0.1)])
    assert 0 <= sampled[0].token_id < 3
    assert sampled[1].token_id == 1
