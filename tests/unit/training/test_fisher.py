"""True Fisher information against the sum over the vocabulary, and its scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compass_ray.adapters.dora import adapter_parameters, attach
from compass_ray.config import AdapterConfig
from compass_ray.models.chat_template import IGNORE_INDEX, EncodedExample
from compass_ray.training.ecda import ewc_penalty
from compass_ray.training.fisher import diagonal_fisher, divide_by_trace

VOCABULARY, ROWS = 20, 600
EXAMPLE = EncodedExample((3, 7, 11, 5), (IGNORE_INDEX, IGNORE_INDEX, 11, 5))


@pytest.fixture(scope="module")
def model() -> Any:
    """A model with an adapter whose factors are not zero."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    found = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=1, **shape)).eval()
    with torch.no_grad():
        found.get_output_embeddings().weight.normal_(0, 1.0)
    attach(found, AdapterConfig(r=2, alpha=4, target_modules=("q_proj", "down_proj")), seed=0)
    with torch.no_grad():
        for parameter in adapter_parameters(found).values():
            parameter += 0.3 * torch.randn_like(parameter)
    return found


def _exact(model: Any) -> dict[str, torch.Tensor]:
    """Sum over reply tokens t and words y of p_t(y) times the squared gradient of log p_t(y).

    Tokens are drawn independently and the gradient of a log-probability has mean 0, so no products of two tokens remain.
    """
    parameters = adapter_parameters(model)
    log_probs = model(torch.tensor([EXAMPLE.input_ids])).logits[0].log_softmax(-1)
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for position in (1, 2):
        for word in range(VOCABULARY):
            gradients = torch.autograd.grad(log_probs[position, word], list(parameters.values()), retain_graph=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                sums[name] += log_probs[position, word].exp().detach() * gradient**2
    return sums


def test_the_true_information_is_the_mean_over_the_model_s_own_tokens(model: Any) -> None:
    found, expected = diagonal_fisher(model, [EXAMPLE] * ROWS, "sampled"), _exact(model)
    assert found.keys() == expected.keys()
    one, other = (np.concatenate([each[name].detach().numpy().ravel() for name in expected]) for each in (found, expected))
    assert one.sum() == pytest.approx(other.sum(), rel=0.15)
    assert np.corrcoef(one, other)[0, 1] > 0.98
    again = diagonal_fisher(model, [EXAMPLE] * 3, "sampled")
    assert all(torch.equal(value, diagonal_fisher(model, [EXAMPLE] * 3, "sampled")[name]) for name, value in again.items())


def test_divided_by_its_trace_lambda_does_not_depend_on_the_scale() -> None:
    fisher = {"a": torch.rand(3, 2), "b": torch.rand(4)}
    scaled = divide_by_trace(fisher)
    assert sum(float(tensor.sum()) for tensor in scaled.values()) == pytest.approx(1.0)
    larger = divide_by_trace({name: 1e6 * tensor for name, tensor in fisher.items()})
    previous = {name: torch.zeros_like(tensor) for name, tensor in fisher.items()}
    moved = {name: torch.nn.Parameter(torch.full_like(tensor, 0.5)) for name, tensor in fisher.items()}
    for each in (scaled, larger):
        # A weighted mean of equal squared changes is that change.
        assert ewc_penalty(moved, each, previous, 2.0).item() == pytest.approx(0.5**2)
    assert divide_by_trace({"a": torch.zeros(2)})["a"].tolist() == [0.0, 0.0]
