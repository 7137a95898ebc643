"""Rows that teach what a previous adapter answers, instead of their labels (self-distillation).

The loss is the KL divergence from the previous adapter's next token, as in learning without forgetting (Li and Hoiem, arXiv
1606.09282). The paper replays labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from compass_ray.adapters.dora import attach_for_inference
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import EncodedExample, TokenDistributions
from compass_ray.models.lm_head import likeliest_tokens, token_log_probs
from compass_ray.training.collate import collate

TOKENS = 64
"""Likeliest tokens whose probability is kept for each token of a reply; all others share the rest."""


def add_teacher(base: BaseModel, folder: Path, examples: Sequence[EncodedExample], count: int = TOKENS) -> list[EncodedExample]:
    """The rows with what the adapter in ``folder`` gives for each token of their replies, ``count`` tokens each.

    The base model is restored at the end.
    """
    with attach_for_inference(base.model, read_adapter(folder)), torch.inference_mode():
        return [replace(example, teacher=_distributions(base, example, count)) for example in examples]


def _distributions(base: BaseModel, example: EncodedExample, count: int) -> TokenDistributions:
    batch = collate([replace(example, teacher=None)], base.tokenizer.pad_token_id, base.device)
    ids = likeliest_tokens(base.model, batch.positions, count, input_ids=batch.input_ids, use_cache=False)
    log_probs, _ = token_log_probs(base.model, batch.positions, ids, input_ids=batch.input_ids, use_cache=False)
    return TokenDistributions(ids.cpu().numpy().astype(np.int64), log_probs.float().cpu().numpy())
