"""Log-probabilities, likeliest and drawn tokens, and their losses, without all logits of a batch at once.

The decoder runs on the complete batch. Then the model's own forward pass computes logits from slices of the hidden states at
wanted positions, in place of its decoder. So a family's softcapping or scaling of logits applies. The first batch of each
model is compared with logits of the unchanged forward pass. A model that differs computes the logits of all wanted positions
at once, with a warning. Takes no means and knows no rows.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from compass_ray.models.token_memory import slice_positions

_PROBE_POSITIONS = 4
_TOLERANCE = 0.02
"""Difference between two computations of one logit, as a share of the largest: above bfloat16 rounding, below any scale."""

_SMALLEST_REST = 1e-6
"""Probability that is left for tokens without a given probability, so that its logarithm is finite."""

_log = logging.getLogger(__name__)
_has_separate_head: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()

Result = TypeVar("Result")
Reduction = Callable[[Tensor, Tensor], Tensor]
"""From logits float32[k, v] and targets int64[k, ...] of k positions to float32[k, ...]."""


class TokenLoss(torch.autograd.Function):
    """-log softmax(logits)[target] of each row. First order only; avoids the zero-filled buffers of automatic differentiation."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, overwrite: bool = False) -> Tensor:
        """``logits`` float32[k, v], ``targets`` int64[k]; float32[k]. ``overwrite``: logits may be overwritten."""
        peak = logits.amax(1, keepdim=True)
        wanted = logits.gather(1, targets[:, None])
        exponentials = (logits.sub_(peak) if overwrite else logits - peak).exp_()
        total = exponentials.sum(1, keepdim=True)
        ctx.save_for_backward(exponentials, total, targets)
        return (total.log() + peak - wanted)[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Gradient of the logits: (softmax - one hot) * gradient."""
        exponentials, total, targets = ctx.saved_tensors
        g = exponentials.mul_(gradient[:, None] / total)  # a first-order function is differentiated once
        g.scatter_add_(1, targets[:, None], -gradient[:, None])
        return g, None, None


def token_loss(model: nn.Module, positions: Tensor, targets: Tensor, **inputs: Any) -> Tensor:
    """float32[k] negative log-likelihood, in nats, of one token after each of k positions, with gradient.

    Args:
        model: a causal language model of transformers, or a wrapper of one.
        positions: int64[k], flat indices into the batch [b, t] of ``inputs``.
        targets: int64[k], the token after each position.
        inputs: the arguments of the model.
    """
    losses, _ = _map_logits(model, positions, targets, _negative_log_likelihood, inputs)
    return losses


@torch.no_grad()
def token_log_probs(model: nn.Module, positions: Tensor, targets: Tensor, **inputs: Any) -> tuple[Tensor, Any]:
    """float32[k, m] log-probability, in nats, of each of m tokens after each of k positions, and the cache of the model.

    ``positions`` is int64[k], as in `token_loss`; ``targets`` is int64[k, m].
    """
    log_probs, output = _map_logits(model, positions, targets, _log_probabilities, inputs)
    return log_probs, output.past_key_values


def distillation_loss(model: nn.Module, positions: Tensor, token_ids: Tensor, log_probs: Tensor, **inputs: Any) -> Tensor:
    """float32[k] KL divergence, in nats, of the model's next token from a given distribution, with gradient.

    Args:
        model: as in `token_loss`.
        positions: int64[k], as in `token_loss`.
        token_ids: int64[k, m], tokens with a given probability; all others share the rest.
        log_probs: float32[k, m], their log-probabilities.
        inputs: the arguments of the model.
    """

    def diverge(logits: Tensor, indices: Tensor) -> Tensor:
        given = log_probs[indices]
        found = logits.gather(1, token_ids[indices]) - logits.logsumexp(1, keepdim=True)
        given, found = (torch.cat([each, _log_rest(each)], 1) for each in (given, found))
        return (given.exp() * (given - found)).sum(1)

    losses, _ = _map_logits(model, positions, torch.arange(len(positions), device=positions.device), diverge, inputs)
    return losses


def _log_rest(log_probs: Tensor) -> Tensor:
    """Logarithm [k, 1] of 1 - the sum of probabilities."""
    return torch.log1p(-log_probs.exp().sum(1, keepdim=True).clamp_max(1 - _SMALLEST_REST))


@torch.no_grad()
def likeliest_tokens(model: nn.Module, positions: Tensor, count: int, **inputs: Any) -> Tensor:
    """int64[k, m]: the ``count`` likeliest tokens after each of k positions, or the whole vocabulary if that is smaller."""

    def choose(logits: Tensor, _: Tensor) -> Tensor:
        return logits.topk(min(count, logits.shape[1]), dim=1).indices

    ids, _ = _map_logits(model, positions, positions, choose, inputs)
    return ids


@torch.no_grad()
def sample_tokens(model: nn.Module, positions: Tensor, generator: torch.Generator, **inputs: Any) -> Tensor:
    """int64[k]: one token after each of k positions, drawn from the model."""

    def draw(logits: Tensor, _: Tensor) -> Tensor:
        return torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]

    ids, _ = _map_logits(model, positions, positions, draw, inputs)
    return ids


def _negative_log_likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    # A conversion to float32 made a copy that nothing else reads.
    is_copy = "ToCopy" in type(logits.grad_fn).__name__
    losses: Tensor = TokenLoss.apply(logits, targets, is_copy)  # type: ignore[no-untyped-call]
    return losses


def _log_probabilities(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets) - logits.logsumexp(1, keepdim=True)


def _map_logits(
    model: nn.Module, positions: Tensor, targets: Tensor, reduce: Reduction, inputs: dict[str, Any]
) -> tuple[Tensor, Any]:
    """``reduce`` of the logits at ``positions``, joined, and the model's output without logits."""
    owner = _find_head_owner(model)
    if owner is None or not _is_separate(model, owner, positions, inputs):
        output = _run(model, positions, inputs)
        return reduce(output.logits.flatten(0, 1).float(), targets), output
    results: list[Tensor] = []

    def reduce_in_slices(decoded: Any) -> Any:
        hidden = decoded.last_hidden_state
        wanted = hidden.flatten(0, 1).index_select(0, positions)
        results.extend(_reduce_slices(owner, decoded, wanted, targets, reduce))
        return dataclasses.replace(decoded, last_hidden_state=hidden[:1, :0])  # the outer pass needs no logits

    with _intercept_decoder(owner, reduce_in_slices):
        output = model(**inputs)
    return torch.cat(results), output


def _reduce_slices(owner: Any, decoded: Any, hidden: Tensor, targets: Tensor, reduce: Reduction) -> Iterator[Tensor]:
    decoded = dataclasses.replace(decoded, **dict.fromkeys(decoded.keys()))  # keep no cache or attention in the graph
    is_frozen = not any(parameter.requires_grad for parameter in _parameters_after_decoder(owner))
    count = _count_slices(owner, hidden)
    for states, wanted in zip(hidden.tensor_split(count), targets.tensor_split(count), strict=True):

        def compute(states: Tensor, wanted: Tensor = wanted) -> Tensor:
            return reduce(_project(owner, decoded, states), wanted)

        if not (torch.is_grad_enabled() and (states.requires_grad or not is_frozen)):
            yield compute(states)
        elif is_frozen:
            yield _RowwiseGradient.apply(states, compute)  # type: ignore[no-untyped-call]
        else:
            yield checkpoint(compute, states, use_reentrant=False)


def _count_slices(owner: Any, hidden: Tensor) -> int:
    """Slices of ``hidden`` [k, d], at least one.

    Workers that partition the head gather it for each slice, so all of them take the largest number that one needs.
    """
    count = max(1, math.ceil(len(hidden) / slice_positions(owner.config.get_text_config().vocab_size)))
    if not any(hasattr(parameter, "ds_id") for parameter in owner.get_output_embeddings().parameters()):
        return count
    largest = torch.tensor(count, device=hidden.device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest)


class _RowwiseGradient(torch.autograd.Function):
    """A function of hidden states, each of whose rows depends on one row only, with its gradient computed in the forward pass.

    The gradient by row, as large as the hidden states, replaces the logits in the graph. So they are computed once and not kept.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """``hidden`` [k, d]; ``compute`` gives float32[k]."""
        with torch.enable_grad():
            leaf = hidden.detach().requires_grad_()
            values = compute(leaf)
            (gradient,) = torch.autograd.grad(values.sum(), leaf)
        ctx.save_for_backward(gradient)
        return values.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Gradient of the hidden states."""
        (by_row,) = ctx.saved_tensors
        return (by_row.float() * gradient[:, None]).to(by_row.dtype), None


def _project(owner: Any, decoded: Any, states: Tensor) -> Tensor:
    """Logits float32[k, v] of hidden states [k, d], by the forward pass of ``owner`` behind its decoder."""
    replaced = dataclasses.replace(decoded, last_hidden_state=states[None])
    with _replace_forward(owner.base_model, lambda *_, **__: replaced):
        logits: Tensor = owner.forward(input_ids=states.new_zeros(1, len(states), dtype=torch.int64), use_cache=False).logits
    return logits[0].float()


@contextmanager
def _intercept_decoder(owner: Any, change: Callable[[Any], Any]) -> Iterator[None]:
    """Apply ``change`` to the decoder's output within the block."""
    forward = owner.base_model.forward
    with _replace_forward(owner.base_model, lambda *args, **kwargs: change(forward(*args, **kwargs))):
        yield


@contextmanager
def _replace_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    previous = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if previous is None:
            del module.forward  # the class method is used again
        else:
            module.forward = previous


def _find_head_owner(model: nn.Module) -> Any:
    """The module that computes logits from the hidden states of a decoder; None if there is none, as in unknown code."""
    from transformers import PreTrainedModel

    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            has_head = module.base_model is not module and module.get_output_embeddings() is not None
            return module if has_head else None
    return None


def _parameters_after_decoder(owner: Any) -> Sequence[nn.Parameter]:
    """Parameters of the head, tied or not, and others outside the decoder."""
    inside = {id(parameter) for parameter in owner.base_model.parameters()}
    outside = [parameter for parameter in owner.parameters() if id(parameter) not in inside]
    return [*outside, *owner.get_output_embeddings().parameters()]


def _is_separate(model: nn.Module, owner: nn.Module, positions: Tensor, inputs: dict[str, Any]) -> bool:
    """Whether slices of hidden states give the logits of the unchanged model, compared once on the first positions."""
    if owner not in _has_separate_head and (not len(positions) or inputs.get("past_key_values") is not None):
        return True  # nothing to compare, or a cache that another pass would change
    if owner not in _has_separate_head:
        _has_separate_head[owner] = True  # for the comparison below
        try:
            _has_separate_head[owner] = _compare_head(model, positions[:_PROBE_POSITIONS], inputs)
        except BaseException:
            del _has_separate_head[owner]  # the next batch is compared
            raise
        if not _has_separate_head[owner]:
            _log.warning(
                "lm_head: %s computes logits in an unknown way, so memory grows with the response tokens of a batch; lower "
                "the batch size if it runs out",
                type(owner).__name__,
            )
    return _has_separate_head[owner]


@torch.no_grad()
def _compare_head(model: nn.Module, positions: Tensor, inputs: dict[str, Any]) -> bool:
    expected = _with_same_dropout(positions.device, lambda: _run(model, positions, inputs).logits.flatten(0, 1).float())
    try:
        found, _ = _with_same_dropout(
            positions.device, lambda: _map_logits(model, positions, positions, lambda logits, _: logits, inputs)
        )
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError, RuntimeError):
        return False
    return found.shape == expected.shape and bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def _with_same_dropout(device: torch.device, run: Callable[[], Result]) -> Result:
    """The result of ``run``, after which the random states are those of before: each call draws the same numbers."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return run()


def _run(model: Any, positions: Tensor, inputs: dict[str, Any]) -> Any:
    """The model's output with logits [1, k, v] at flat ``positions`` only, by its unchanged forward pass."""

    def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].flatten(0, 1).index_select(0, positions).unsqueeze(0), *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        return model(**inputs)
    finally:
        handle.remove()
