"""Log-likelihood of plain text, in windows: a control that says how well a model knows a language, whatever the topic.

Key property: every token is scored exactly once, and the windows are those of lm-evaluation-harness
(``get_rolling_token_windows`` with one token of context). No chat template applies. The vocabulary is computed in slices, so
memory does not grow with rows times vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from compass_ray.models.base_model import BaseModel
from compass_ray.models.errors import ModelError
from compass_ray.models.lm_head import token_log_probs
from compass_ray.models.scorer import DEFAULT_BATCH_TOKENS

MAX_WINDOW = 512
"""Most tokens of one window."""


@dataclass(frozen=True)
class TextScore:
    """Negative log-likelihood of a text in nats, and its length."""

    nats: float
    tokens: int
    characters: int
    bytes: int


@dataclass(frozen=True)
class TextWindow:
    """Tokens that the model reads, and how many of the tokens that follow each of them are scored: the last ``scored``."""

    inputs: tuple[int, ...]
    targets: tuple[int, ...]
    """The token after each input."""
    scored: int


def score_text(base: BaseModel, lines: Sequence[str], *, max_tokens: int, batch_tokens: int = DEFAULT_BATCH_TOKENS) -> TextScore:
    """Score lines, joined by line ends, as one text.

    Args:
        base: the model.
        lines: the lines of the text.
        max_tokens: longest sequence of the model; a window has at most `MAX_WINDOW` tokens.
        batch_tokens: tokens that are scored at once, at least one window.

    Raises:
        ModelError: the text has no tokens, or the tokenizer has neither a start nor an end token.
    """
    text = "\n".join(lines)
    tokens = list(base.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    if not tokens:
        raise ModelError("the text has no tokens; give a text that is not empty")
    window = min(max_tokens, MAX_WINDOW)
    windows = list(split_windows(tokens, _first_token(base.tokenizer), window))
    rows = max(1, batch_tokens // window)
    nats = sum(_score_windows(base, windows[start : start + rows]) for start in range(0, len(windows), rows))
    return TextScore(nats, len(tokens), len(text), len(text.encode()))


def split_windows(tokens: Sequence[int], first: int, window: int) -> Iterator[TextWindow]:
    """Windows that score each token once. All have ``window`` tokens; a shorter text has one window with all of it.

    The token before the text is ``first``. The last window starts earlier than needed, so that it is full.

    >>> [(each.inputs, each.scored) for each in split_windows([5, 6, 7, 8, 9], 0, 2)]
    [((0, 5), 2), ((6, 7), 2), ((7, 8), 1)]
    """
    sequence = (first, *tokens)
    for done in range(0, len(tokens), window):
        end = min(done + window, len(tokens))
        start = max(0, end - window)
        yield TextWindow(sequence[start:end], sequence[start + 1 : end + 1], end - done)


def _first_token(tokenizer: Any) -> int:
    """The token before a text: the start token, or the end token of a model without one."""
    found = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    first = next((token for token in found if token is not None), None)
    if first is None:
        raise ModelError("the tokenizer has neither a start token nor an end token, so the first token of a text has no context")
    return int(first)


@torch.inference_mode()
def _score_windows(base: BaseModel, windows: Sequence[TextWindow]) -> float:
    """Nats of the scored tokens of windows of equal length."""
    ids = torch.tensor([window.inputs for window in windows], device=base.device)
    targets = torch.tensor([window.targets for window in windows], device=base.device)
    scored = torch.tensor([window.scored for window in windows], device=base.device)
    length = ids.shape[1]
    wanted = torch.arange(length, device=base.device) >= length - scored[:, None]
    positions = wanted.flatten().nonzero().flatten()
    log_probs, _ = token_log_probs(
        base.model,
        positions,
        targets.flatten()[positions][:, None],
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        use_cache=False,
    )
    return -float(log_probs.double().sum())
