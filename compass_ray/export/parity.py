"""Whether an exported model computes what the adapter on its base computes, on prompts in nine scripts.

Key property: every logit of every position of every prompt counts, the tokenizer's ids too, and the largest difference
decides. It says nothing of prompts beyond a few hundred tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compass_ray.adapters.dora import attach_for_inference
from compass_ray.adapters.peft_io import StoredAdapter
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import encode_prompt
from compass_ray.models.errors import ModelError

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
"""Largest difference in float32, where the order of additions is all that differs."""
_UNIT_ROUNDOFF = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


@dataclass(frozen=True)
class Parity:
    """The comparison of an export with its adapter."""

    difference: float
    """The largest of two logits."""
    tolerance: float
    """What it may be at most (see `tolerance`)."""
    positions: int
    """Positions compared, each with a logit for every token of the vocabulary."""
    agreement: float
    """Share of the positions at which both find the same token likeliest."""
    dtype: str
    effect: float
    """The largest difference that the adapter itself makes to a logit of the base model, to set the others against."""


@dataclass(frozen=True)
class ExpectedOutputs:
    """What an export is to compute: ids of each probe, and for each float32 (positions, vocabulary) with the adapter."""

    ids: list[list[int]]
    logits: list[Any]
    effect: float
    dtype: str
    layers: int


def compute_expected(base: BaseModel, adapter: StoredAdapter, dtype: str) -> ExpectedOutputs:
    """From the adapter on its base, as it is served."""
    ids = encode_probes(base.tokenizer)
    plain = compute_logits(base.model, ids, base.device)
    with attach_for_inference(base.model, adapter):
        adapted = compute_logits(base.model, ids, base.device)
    layers = int(getattr(base.model.config, "num_hidden_layers", 1))
    return ExpectedOutputs(ids, adapted, _max_difference(plain, adapted), dtype, layers)


def encode_probes(tokenizer: Any) -> list[list[int]]:
    """Ids of every probe as a user's prompt."""
    return [encode_prompt(tokenizer, probe, _MAX_TOKENS) for probe in PROBES]


def compute_logits(model: Any, ids: Sequence[Sequence[int]], device: Any) -> list[Any]:
    """float32 (positions, vocabulary) of each row of ids, on the CPU."""
    import torch

    with torch.inference_mode():
        rows = [torch.tensor([list(row)], device=device) for row in ids]
        return [model(input_ids=row, use_cache=False).logits[0].float().cpu() for row in rows]


def logit_tolerance(dtype: str, layers: int, largest: float) -> float:
    """How far two computations of the same logits may be apart.

    In float32 1e-4. In bfloat16, of unit roundoff u = 2^-8, merging rounds every weight once, and each of the 2 L + 1 sums of
    a model of L layers (attention, feed-forward, head) is then off by about u of its size, one independent of the other. So
    the largest logit is off by some sqrt(2 L + 1) u of its size. The largest of millions of such differences was found at up
    to 1.4 times that; four times is allowed.

    >>> logit_tolerance("float32", 32, 20.0)
    0.0001
    >>> round(logit_tolerance("bfloat16", 32, 20.0), 2)
    2.52
    """
    unit = _UNIT_ROUNDOFF.get(dtype)
    return _EXACT if unit is None else max(4 * math.sqrt(2 * layers + 1) * unit * largest, _EXACT)


def compare_logits(wanted: ExpectedOutputs, model: Any, device: Any) -> Parity:
    """The comparison of a loaded export with what it is to compute.

    Raises:
        ModelError: they differ by more than the tolerance, or one of them is no number.
    """
    found = compute_logits(model, wanted.ids, device)
    difference = _max_difference(wanted.logits, found)
    allowed = logit_tolerance(wanted.dtype, wanted.layers, max(float(one.abs().max()) for one in wanted.logits))
    if not difference <= allowed:
        raise ModelError(
            f"the exported model's logits differ from the adapter's by up to {difference:.3g}, where {allowed:.3g} is the most "
            f"in {wanted.dtype}; nothing was kept. Check that peft, transformers and torch are of the versions pinned by this "
            f"release, and export again"
        )
    pairs = list(zip(wanted.logits, found, strict=True))
    positions = sum(len(one) for one in found)
    same = sum(int((one.argmax(-1) == other.argmax(-1)).sum()) for one, other in pairs)
    return Parity(difference, allowed, positions, same / positions, wanted.dtype, wanted.effect)


def check_token_ids(wanted: ExpectedOutputs, tokenizer: Any) -> None:
    """Compare an exported tokenizer and chat template with the base's.

    Raises:
        ModelError: a prompt has other ids.
    """
    for probe, one, other in zip(PROBES, wanted.ids, encode_probes(tokenizer), strict=True):
        if one != other:
            raise ModelError(
                f"the exported tokenizer gives {probe[:40]!r} other ids than the base model's ({len(other)} and {len(one)}); "
                f"nothing was kept. Check that transformers and tokenizers are of the versions pinned by this release"
            )


def _max_difference(one: Sequence[Any], other: Sequence[Any]) -> float:
    """The largest difference of two logits; infinite where one is no number."""
    return max(float((a - b).abs().nan_to_num(nan=math.inf).max()) for a, b in zip(one, other, strict=True))
