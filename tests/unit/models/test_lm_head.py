"""Losses from slices of hidden states against transformers' own logits, for families that change logits after the head."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch.nn import functional

from compass_ray.adapters.dora import attach
from compass_ray.config import AdapterConfig
from compass_ray.models import lm_head
from compass_ray.models.lm_head import TokenLoss, likeliest_tokens, sample_tokens, token_log_probs, token_loss

_SHAPE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma2": {"final_logit_softcapping": 1.5, "head_dim": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {"final_logit_softcapping": 2.0, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4},
    "cohere": {"logit_scale": 3.0},
    "granite": {"logits_scaling": 3.0},
    "mixtral": {"num_local_experts": 2},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
}


def _model(family: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"vocab_size": 50, "pad_token_id": 0} if family == "gpt2" else _SHAPE
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape, **_FAMILIES[family])).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(0, 0.3)
    return model


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (3, 12), generator=generator)
    # Turns of different length, one of them at the start of a row.
    positions = torch.tensor([4, 5, 6, 10, 12, 13, 14, 25, 26, 33, 34])
    return {"ids": ids, "positions": positions, "targets": ids.flatten()[positions + 1]}


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_head, "slice_positions", lambda vocabulary: 3)


def _expected(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    logits = model(input_ids=batch["ids"], use_cache=False).logits.flatten(0, 1)[batch["positions"]].float()
    return functional.cross_entropy(logits, batch["targets"], reduction="none")


def _found(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return token_loss(model, batch["positions"], batch["targets"], input_ids=batch["ids"], use_cache=False)


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said about logits that could not be computed in slices."""
    return [record.getMessage() for record in caplog.records if record.name == lm_head.__name__]


def _gradients(model: Any, losses: torch.Tensor) -> list[torch.Tensor | None]:
    weights = torch.linspace(-1, 2, len(losses))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return list(torch.autograd.grad((losses * weights).sum(), parameters, allow_unused=True))


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("head_is_frozen", [True, False])
@pytest.mark.parametrize("family", _FAMILIES)
def test_losses_and_gradients_equal_those_of_transformers_logits(
    family: str, head_is_frozen: bool, batch: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    model = _model(family)
    model.get_output_embeddings().requires_grad_(not head_is_frozen)
    expected, found = _expected(model, batch), _found(model, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(_gradients(model, found), _gradients(model, expected), rtol=1e-4, atol=1e-5)
    assert not _warnings(caplog)
    assert "forward" not in vars(model.base_model)


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("head_is_frozen", [True, False])
def test_in_bfloat16_the_logits_are_overwritten_and_gradients_stay(head_is_frozen: bool, batch: dict[str, torch.Tensor]) -> None:
    model = _model("gemma3_text").bfloat16()
    model.get_output_embeddings().requires_grad_(not head_is_frozen)
    expected, found = _expected(model, batch), _found(model, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(_gradients(model, found), _gradients(model, expected), strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other, rtol=0, atol=0.02 * float(other.abs().max()))


@pytest.mark.usefixtures("small_slices")
def test_log_probabilities_of_several_tokens_and_a_cache(batch: dict[str, torch.Tensor]) -> None:
    model, ids = _model("gemma3_text"), batch["ids"]
    with torch.no_grad():
        expected = model(ids).logits.log_softmax(-1)
    candidates = torch.tensor([[3, 4]] * 3)
    ends = torch.arange(1, 4) * 8 - 1
    first, cache = token_log_probs(model, ends, candidates, input_ids=ids[:, :8], use_cache=True)
    torch.testing.assert_close(first, expected[:, 7, 3:5], rtol=1e-5, atol=1e-5)
    later, _ = token_log_probs(model, torch.tensor([0, 5]), torch.tensor([[7], [9]]), input_ids=ids[:, 8:], past_key_values=cache)
    torch.testing.assert_close(later[:, 0], torch.stack([expected[0, 8, 7], expected[1, 9, 9]]), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("small_slices")
def test_the_head_sees_a_slice_of_the_labelled_positions_at_a_time(batch: dict[str, torch.Tensor]) -> None:
    model, rows = _model("llama"), []
    _found(model, batch)  # the first batch is also compared
    model.get_output_embeddings().register_forward_hook(lambda *call: rows.append(call[2].shape[1]))
    torch.autograd.backward(_found(model, batch).sum())
    assert max(rows) == 3
    assert sum(rows) <= 2 * (len(batch["positions"]) + 1)  # once more in the backward pass of a trained head


@pytest.mark.parametrize("count", [0, 1])
def test_few_positions(count: int, batch: dict[str, torch.Tensor]) -> None:
    short = {"ids": batch["ids"], "positions": batch["positions"][:count], "targets": batch["targets"][:count]}
    assert _found(_model("llama"), short).shape == (count,)


def test_a_model_with_other_logits_computes_them_at_once(
    batch: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model("llama")
    plain = type(model).forward

    def forward(self: Any, input_ids: torch.Tensor, **settings: Any) -> Any:
        """Logits that depend on the tokens beside the hidden states."""
        output = plain(self, input_ids=input_ids, **settings)
        output.logits = output.logits * (1 + input_ids.max())
        return output

    monkeypatch.setattr(type(model), "forward", forward)
    expected = _expected(model, batch)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(_found(model, batch), expected)
        torch.testing.assert_close(_found(model, batch), expected)
    assert [message[:25] for message in _warnings(caplog)] == ["lm_head: LlamaForCausalLM"]


def test_after_an_error_the_next_batch_is_compared(batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    model, compared = _model("llama"), []
    with monkeypatch.context() as patch:
        patch.setattr(type(model.base_model), "forward", lambda *_, **__: [][0])
        with pytest.raises(IndexError):
            _found(model, batch)
    assert "forward" not in vars(model.base_model)
    model.base_model.register_forward_hook(lambda *_: compared.append(1))
    _found(model, batch)
    first = len(compared)
    _found(model, batch)
    assert first > len(compared) - first


@pytest.mark.usefixtures("small_slices")
def test_a_head_with_an_adapter(batch: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture) -> None:
    model = _model("llama").requires_grad_(False)
    adapter = attach(model, AdapterConfig(r=2, target_modules=("lm_head",)), seed=0)
    expected, found = _expected(model, batch), _found(model, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(_gradients(model, found), _gradients(model, expected), rtol=1e-4, atol=1e-5)
    assert not _warnings(caplog)
    adapter.detach()


def test_dropout_is_not_taken_for_other_logits(batch: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture) -> None:
    model = _model("gpt2").train()
    _found(model, batch)
    assert not _warnings(caplog)


def test_token_loss() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (30 * torch.randn(6, 11, generator=generator)).requires_grad_()
    targets = torch.tensor([0, 10, 3, 3, 7, 1])
    upstream = torch.randn(6, generator=generator)
    plain = functional.cross_entropy(logits, targets, reduction="none")
    found = TokenLoss.apply(logits, targets)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, plain)
    expected = torch.autograd.grad(plain, logits, upstream)
    torch.testing.assert_close(torch.autograd.grad(found, logits, upstream), expected)


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("family", ["gemma2", "cohere"])
def test_tokens_are_drawn_and_ranked_by_the_model_s_probabilities(family: str, batch: dict[str, torch.Tensor]) -> None:
    model = _model(family)
    with torch.no_grad():
        expected = model(batch["ids"]).logits.flatten(0, 1)[batch["positions"]].float().softmax(1)
    ranked = likeliest_tokens(model, batch["positions"], 4, input_ids=batch["ids"], use_cache=False)
    assert torch.equal(ranked, expected.topk(4, 1).indices)
    every = likeliest_tokens(model, batch["positions"], 99, input_ids=batch["ids"], use_cache=False)
    assert every.shape == expected.shape
    generator, draws = torch.Generator().manual_seed(0), 4_000
    repeated = batch["positions"][:1].repeat(draws)
    drawn = sample_tokens(model, repeated, generator, input_ids=batch["ids"], use_cache=False)
    shares = torch.bincount(drawn, minlength=50) / draws
    errors = (expected[0] * (1 - expected[0]) / draws).sqrt()
    assert bool(((shares - expected[0]).abs() <= 5 * errors + 1 / draws).all())
