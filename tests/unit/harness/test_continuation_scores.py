"""Scores of continuations equal those of the harness's own model class, and need a slice of the logits at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from compass_ray.models import lm_head
from compass_ray.models.base_model import BaseModel
from compass_ray.models.errors import ModelError

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed; make setup installs it")

Request = tuple[Any, list[int], list[int]]


def _requests(base: BaseModel) -> list[Request]:
    """Contexts and continuations of several lengths, one-token continuations that share a context, and greedy replies."""
    numbers = torch.Generator().manual_seed(3)
    contexts = [torch.randint(5, len(base.tokenizer), (n,), generator=numbers).tolist() for n in (1, 4, 4, 9, 20)]
    found: list[Request] = [(None, context, [7, 9, 11][: 1 + n % 3]) for n, context in enumerate(contexts)]
    found += [(None, contexts[3], [token]) for token in (5, 6, 7)]
    found.append((None, contexts[3][:-2], [*contexts[3][-2:], 6]))  # the same tokens, of which more are scored
    for context in contexts:
        ids = list(context)
        for _ in range(4):
            with torch.inference_mode():
                ids.append(int(base.model(torch.tensor([ids])).logits[0, -1].argmax()))
        found += [(None, context, ids[len(context) :]), (None, context, [*ids[len(context) : -1], 5]), (None, ids[:-1], ids[-1:])]
    return found


@pytest.mark.parametrize("batch_tokens", [1, 60, 16_384])
@pytest.mark.parametrize("max_length", [None, 8])
def test_scores_equal_those_of_the_harness(
    make_base: Callable[..., BaseModel],
    architecture: str,
    monkeypatch: pytest.MonkeyPatch,
    batch_tokens: int,
    max_length: int | None,
) -> None:
    from lm_eval.models.huggingface import HFLM

    from compass_ray.harness.lm_eval_backend import HarnessModel, HarnessSettings

    monkeypatch.setattr(lm_head, "slice_positions", lambda vocabulary: 5)
    base = make_base(architecture)
    requests = _requests(base)
    # With its cache, the harness reads wrong positions if requests of equal tokens begin their continuation at different ones.
    alone = {"logits_cache": False, "batch_size": 3, "max_length": max_length}
    theirs = HFLM(pretrained=base.model, tokenizer=base.tokenizer, backend="causal", **alone)
    expected = theirs._loglikelihood_tokens(requests, disable_tqdm=True)
    ours = HarnessModel(base, HarnessSettings(batch_tokens=batch_tokens, max_length=max_length))
    found = ours._loglikelihood_tokens(requests)
    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-5)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert {greedy for _, greedy in found} == {True, False}


def test_logits_exist_in_slices(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from compass_ray.harness.lm_eval_backend import HarnessModel, HarnessSettings

    monkeypatch.setattr(lm_head, "slice_positions", lambda vocabulary: 6)
    model, requests, positions = HarnessModel(base, HarnessSettings()), _requests(base), list[int]()
    requests.append((None, [5, 6], list(range(5, 105))))
    handle = base.model.lm_head.register_forward_hook(
        lambda head, states, logits: positions.append(logits.numel() // logits.shape[-1])
    )
    model._loglikelihood_tokens(requests)
    handle.remove()
    assert sum(positions) > 100
    assert max(positions) <= 6


def test_the_size_of_a_batch_is_found_without_a_pass(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from compass_ray.harness.lm_eval_backend import HarnessModel, HarnessSettings

    model = HarnessModel(base, HarnessSettings(batch_size="auto", batch_tokens=1_000))
    monkeypatch.setattr(type(model), "_model_call", lambda *arguments: pytest.fail("all logits were computed"))
    assert model._detect_batch_size() == 1_000 // 256  # the context of the model
    assert HarnessModel(base, HarnessSettings(batch_size="auto", batch_tokens=5))._detect_batch_size() == 1


@pytest.mark.parametrize("continuation", [[], list(range(9))])
def test_a_continuation_without_tokens_or_above_the_context_is_refused(base: BaseModel, continuation: list[int]) -> None:
    from compass_ray.harness.continuation_scores import score_continuations

    with pytest.raises(ModelError, match=rf"has {len(continuation)} tokens; expected 1 to 8"):
        score_continuations(base, [([5], continuation)], max_length=8, batch_tokens=100)
