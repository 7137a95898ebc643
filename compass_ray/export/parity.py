"""Comparison of an exported model with the served adapter, on prompts in nine scripts.

Key property: it compares the token ids and every logit of every position. The largest difference decides. Prompts have at
most 256 tokens, so longer prompts are not covered.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from compass_ray.adapters.dora import attach_for_inference
from compass_ray.adapters.peft_io import StoredAdapter
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import encode_prompt
from compass_ray.models.errors import ModelError
from compass_ray.models.token_memory import slice_positions

_SENTENCES = (
    "All human beings are born free and equal in dignity and rights.",
    "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa.",
    "Gbogbo ènìyàn ni a bí ní òmìnira; iyì àti ẹ̀tọ́ kọ̀ọ̀kan sì dọ́gba.",
    "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "人人生而自由，在尊严和权利上一律平等。",
    "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "1, 2, 3 ...\n    print(f'{x:>5.2f}')  # 4 = 5",
)
PROBES = (*_SENTENCES, "\n".join(_SENTENCES))
"""The first article of the Universal Declaration of Human Rights, some code, and all of it in one prompt."""
_MAX_TOKENS = 256
_EXACT = 1e-4
"""Largest difference in float32: only the order of additions differs."""
_UNIT_ROUNDOFF = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


@dataclass(frozen=True)
class Parity:
    """The result of comparing an export with its adapter."""

    difference: float
    """The largest difference between two logits."""
    tolerance: float
    """The largest difference allowed (see `logit_tolerance`)."""
    positions: int
    """Positions compared, each with a logit for every token of the vocabulary."""
    agreement: float
    """Share of positions with the same most likely token."""
    dtype: str
    effect: float
    """The largest change that the adapter makes to a logit of the base model, as a scale for ``difference``."""


@dataclass(frozen=True)
class ExpectedOutputs:
    """Reference outputs: token ids of each probe, and its logits float32 (positions, vocabulary) with the adapter.

    The logits of the probes lie in temporary files: 256 positions of a vocabulary of 262,144 take 256 MiB.
    """

    ids: list[list[int]]
    logits: list[Any]
    effect: float
    dtype: str
    layers: int


def compute_expected(base: BaseModel, adapter: StoredAdapter, dtype: str) -> ExpectedOutputs:
    """Reference outputs of the adapter on its base model, computed by the layers that serve it."""
    ids = encode_probes(base.tokenizer)
    step = slice_positions(base.model.config.get_text_config().vocab_size)
    stored = [_store(compute_logits(base.model, row, base.device, step), len(row)) for row in ids]
    effect = 0.0
    with attach_for_inference(base.model, adapter):
        for row, kept in zip(ids, stored, strict=True):
            for before, adapted in zip(kept.split(step), compute_logits(base.model, row, base.device, step), strict=True):
                effect = max(effect, _max_difference(before, adapted))
                before.copy_(adapted)
    layers = int(getattr(base.model.config.get_text_config(), "num_hidden_layers", 1))
    return ExpectedOutputs(ids, stored, effect, dtype, layers)


def encode_probes(tokenizer: Any) -> list[list[int]]:
    """Token ids of every probe in the chat template of a user prompt."""
    return [encode_prompt(tokenizer, probe, _MAX_TOKENS) for probe in PROBES]


def compute_logits(model: Any, ids: Sequence[int], device: Any, step: int) -> Iterator[Any]:
    """Logits float32 (positions, vocabulary) of ``ids`` on the CPU, in slices of ``step`` positions."""
    import torch

    row = torch.tensor([list(ids)], device=device)
    for start in range(0, len(ids), step):
        with torch.inference_mode(), _head_at(model, slice(start, start + step)):
            logits = model(input_ids=row, use_cache=False).logits[0].float().cpu()
        yield logits


@contextmanager
def _head_at(model: Any, positions: slice) -> Iterator[None]:
    """The head computes logits at ``positions`` only within the block, whether the model has an argument for that or not."""
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, positions], *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()


def logit_tolerance(dtype: str, layers: int, largest: float) -> float:
    """The largest difference allowed between two computations of the same logits.

    In float32: 1e-4. In bfloat16 the unit roundoff is u = 2^-8, and merging rounds every weight once. Each of the 2 L + 1 sums
    of a model with L layers (attention, feed-forward, head) then has an independent relative error of about u. The relative
    error of the largest logit is about sqrt(2 L + 1) u. The largest of millions of measured differences was up to 1.4 times
    that value. The tolerance is four times that value.

    >>> logit_tolerance("float32", 32, 20.0)
    0.0001
    >>> round(logit_tolerance("bfloat16", 32, 20.0), 2)
    2.52
    """
    unit = _UNIT_ROUNDOFF.get(dtype)
    return _EXACT if unit is None else max(4 * math.sqrt(2 * layers + 1) * unit * largest, _EXACT)


def compare_logits(expected: ExpectedOutputs, model: Any, device: Any) -> Parity:
    """Compare a loaded export with the reference outputs.

    Raises:
        ModelError: the logits differ by more than the tolerance, or one of them is NaN.
    """
    difference, largest, positions, same = 0.0, 0.0, 0, 0
    for wanted, actual in _pair_slices(expected, model, device):
        difference = max(difference, _max_difference(wanted, actual))
        largest = max(largest, float(wanted.abs().max()))
        positions += len(actual)
        same += int((wanted.argmax(-1) == actual.argmax(-1)).sum())
    tolerance = logit_tolerance(expected.dtype, expected.layers, largest)
    if not difference <= tolerance:
        raise ModelError(
            f"logits of the exported model differ from the adapter's by up to {difference:.3g}; the tolerance in "
            f"{expected.dtype} is {tolerance:.3g}. The export was deleted. Install the versions of peft, transformers and torch "
            f"that this release pins, then export again"
        )
    return Parity(difference, tolerance, positions, same / positions, expected.dtype, expected.effect)


def check_token_ids(expected: ExpectedOutputs, tokenizer: Any) -> None:
    """Compare an exported tokenizer and chat template with those of the base model.

    Raises:
        ModelError: the token ids of a probe differ.
    """
    for probe, wanted, actual in zip(PROBES, expected.ids, encode_probes(tokenizer), strict=True):
        if wanted != actual:
            raise ModelError(
                f"the exported tokenizer gives different ids for {probe[:40]!r} ({len(actual)} ids) than the base model's "
                f"({len(wanted)} ids). The export was deleted. Install the versions of transformers and tokenizers that this "
                f"release pins, then export again"
            )


def _pair_slices(expected: ExpectedOutputs, model: Any, device: Any) -> Iterator[tuple[Any, Any]]:
    """Expected and computed logits of the same positions."""
    for ids, wanted in zip(expected.ids, expected.logits, strict=True):
        step = slice_positions(wanted.shape[1])
        yield from zip(wanted.split(step), compute_logits(model, ids, device, step), strict=True)


def _store(slices: Iterator[Any], positions: int) -> Any:
    """The slices as one tensor in a temporary file, which the system can drop from memory."""
    import numpy as np
    import torch

    first = next(slices)
    with tempfile.TemporaryFile() as file:
        array = np.memmap(file, np.float32, "w+", shape=(positions, first.shape[1]))
    stored: Any = torch.from_numpy(array)
    for part, logits in zip(stored.split(len(first)), chain([first], slices), strict=True):
        part.copy_(logits)
    return stored


def _max_difference(one: Any, other: Any) -> float:
    """The largest difference between two logits. Infinite if one is NaN."""
    largest = float((one - other).abs_().max())
    return math.inf if math.isnan(largest) else largest
