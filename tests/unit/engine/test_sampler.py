"""Draws against the distribution that temperature and nucleus define, written out."""

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
    """Probabilities of the least set of likeliest tokens whose mass reaches ``top_p``, token by token."""
    scaled = logits.astype(np.float64) / temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    kept, mass = np.zeros_like(p), 0.0
    for token in np.argsort(-p, kind="stable"):
        if mass >= top_p:
            break
        kept[token], mass = p[token], mass + p[token]
    return kept / kept.sum()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.95), (2.0, 0.6), (1.0, 0.999)])
def test_draws_follow_temperature_and_nucleus(temperature: float, top_p: float) -> None:
    logits = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -3.0], np.float32)
    row = SamplingParams(make_generator(7), temperature, top_p)
    tokens = [sample(torch.from_numpy(logits)[None], [row])[0].token_id for _ in range(3000)]
    law = expected(logits, temperature, top_p)
    counts = np.bincount(tokens, minlength=len(logits))
    assert not counts[law == 0].any()
    there = law > 0
    assert stats.chisquare(counts[there], law[there] * len(tokens)).pvalue > 1e-3


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.lists(st.sampled_from([0.0, 0.7, 1.5]), min_size=1, max_size=6), st.floats(0.05, 1.0))
def test_a_row_draws_the_same_beside_any_neighbours(seed: int, temperatures: list[float], top_p: float) -> None:
    logits = torch.randn(len(temperatures), 50, generator=torch.Generator().manual_seed(seed))
    rows = [SamplingParams(make_generator(seed + i), t, top_p) for i, t in enumerate(temperatures)]
    together = sample(logits, rows)
    for i, temperature in enumerate(temperatures):
        alone = sample(logits[i : i + 1], [SamplingParams(make_generator(seed + i), temperature, top_p)])[0]
        assert alone.token_id == together[i].token_id
        assert alone.logprob == pytest.approx(together[i].logprob, abs=1e-5)


def test_a_nucleus_wider_than_is_looked_at_first_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(1, 400, generator=torch.Generator().manual_seed(0))
    whole = [sample(logits, [SamplingParams(make_generator(seed), 1.0, 0.9)])[0].token_id for seed in range(50)]
    monkeypatch.setattr(sampler, "_FIRST", 8)
    assert [sample(logits, [SamplingParams(make_generator(seed), 1.0, 0.9)])[0].token_id for seed in range(50)] == whole


def test_log_probabilities_are_untempered_and_listed_from_the_likeliest() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 5.0]])
    law = logits.log_softmax(-1)
    first, second = sample(
        logits, [SamplingParams(make_generator(0), num_logprobs=2), SamplingParams(make_generator(0), temperature=9.0)]
    )
    assert first.token_id == 1
    assert first.logprob == pytest.approx(float(law[0, 1]))
    assert first.top_logprobs == ((1, pytest.approx(float(law[0, 1]))), (2, pytest.approx(float(law[0, 2]))))
    assert second.top_logprobs == ()
    assert second.logprob == pytest.approx(float(law[1, second.token_id]))


@pytest.mark.parametrize(("temperature", "top_p"), [(1e-300, 1.0), (1.0, 1e-300), (5e-324, 5e-324), (1e-38, 0.5)])
def test_numbers_too_small_for_float32_take_the_likeliest(temperature: float, top_p: float) -> None:
    logits = torch.tensor([[0.0, 4.0, 1.0], [1.0, 0.0, 0.5]])
    rows = [SamplingParams(make_generator(1), temperature, top_p), SamplingParams(make_generator(2))]
    assert [chosen.token_id for chosen in sample(logits, rows)] == [1, 0]


def test_logits_that_are_no_numbers_harm_no_other_row() -> None:
    logits = torch.tensor([[float("nan")] * 3, [0.0, 9.0, 1.0]])
    chosen = sample(logits, [SamplingParams(make_generator(1), 1.0), SamplingParams(make_generator(2), 0.1)])
    assert 0 <= chosen[0].token_id < 3
    assert chosen[1].token_id == 1
