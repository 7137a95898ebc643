"""The forward pass of a batch whose rows come and go: which tokens go in, where their keys lie, which rows get a token.

Key properties: replies under way lie in the first places of the cache and prompts being read behind them, so neither is
copied to be attended to; at most one prompt is half read. Chooses by `sampling`, attends by `step_attention`. Knows nothing
of text, tickets apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compass_ray.models import step_attention
from compass_ray.models.bank import AdapterBank
from compass_ray.models.base import BaseModel
from compass_ray.models.errors import ModelError
from compass_ray.models.row_cache import RowCache
from compass_ray.models.rows import Row
from compass_ray.models.sampling import Chosen, choose
from compass_ray.models.step_attention import Stretch, make_step

_PROBE = tuple(range(1, 9))
PROBE_TOKENS = len(_PROBE)
"""Tokens that a row must have room for."""
_ALIKE = 0.01
"""Nats of divergence between two ways of attention: far above rounding in bfloat16, far below another attention."""


class Stepper:
    """The rows in the cache, and one forward pass after another over them."""

    def __init__(self, base: BaseModel, bank: AdapterBank, cache: RowCache, prefill_tokens: int) -> None:
        """Let the base attend over ``cache`` from now on.

        Raises:
            ModelError: the base then no longer computes what it did.
        """
        self.base, self.bank, self.cache, self.prefill_tokens = base, bank, cache, prefill_tokens
        self.replying: list[Row] = []
        self.reading: list[Row] = []
        self.ends = _end_tokens(base)
        own = _own_logits(base)
        self._before = step_attention.use(base.model)
        try:
            self._check(own)
        except BaseException:
            self.close()
            raise

    @property
    def rows(self) -> int:
        """Rows that have a place."""
        return len(self.replying) + len(self.reading)

    @property
    def free(self) -> int:
        """Places that are free."""
        return self.cache.rows - self.rows

    def join(self, row: Row) -> None:
        """Give a row the next free place."""
        self.reading.append(row)

    def drop(self, ticket: int) -> Row | None:
        """Take a row out; the places behind it move up."""
        for rows in (self.replying, self.reading):
            found = next((i for i, row in enumerate(rows) if row.ticket == ticket), None)
            if found is not None:
                return self._leave(found) if rows is self.replying else self._stop_reading(found)
        return None

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, Chosen]]:
        """One forward pass, and the token of each row that got one."""
        stretches = self._stretches()
        if not self.replying and not stretches:
            return []
        rows, logits = self._forward(stretches)
        return list(zip(rows, choose(logits, [row.drawing for row in rows]), strict=True))

    def close(self) -> None:
        """Let the base attend as it did before."""
        self.replying.clear()
        self.reading.clear()
        self.bank.route(())
        self.base.model.set_attn_implementation(self._before)

    def _stretches(self) -> list[Stretch]:
        """The next tokens of the prompts, first come first read."""
        left, found = self.prefill_tokens, []
        for place, row in enumerate(self.reading, start=len(self.replying)):
            if not left:
                break
            length = min(row.unread, left)
            found.append(Stretch(place, row.read, length))
            left -= length
        return found

    def _forward(self, stretches: Sequence[Stretch]) -> tuple[list[Row], Tensor]:
        """The rows that get a token, and float32[n, v] logits for it."""
        read = list(zip(self.reading, stretches, strict=False))
        lengths = [row.read for row in self.replying]
        ids, places, wears = [row.last for row in self.replying], [*lengths], [row.wear for row in self.replying]
        wanted = list(range(len(lengths)))
        for row, stretch in read:
            end = stretch.start + stretch.length
            ids += row.prompt[stretch.start : end]
            places += range(stretch.start, end)
            wears += [row.wear] * stretch.length
            if end == len(row.prompt):
                wanted.append(len(ids) - 1)
        self.bank.route(wears)
        step = make_step(self.cache, lengths, stretches, self.base.device)
        self._follow(read)  # before the pass, so that rows that it fails are cleared to their end
        logits = self._run(ids, places, step, torch.tensor(wanted, dtype=torch.int64, device=self.base.device))
        return list(self.replying), logits

    def _follow(self, read: Sequence[tuple[Row, Stretch]]) -> None:
        """Prompts are read in order, so those that are whole come first and lie right behind the replies."""
        for row in self.replying:
            row.read += 1
        for row, stretch in read:
            row.read += stretch.length
        whole = sum(not row.unread for row, _ in read)
        self.replying += self.reading[:whole]
        del self.reading[:whole]

    def _run(self, ids: Sequence[int], positions: Sequence[int], step: step_attention.Step, wanted: Tensor) -> Tensor:
        device = self.base.device
        out = self.base.model(
            input_ids=torch.tensor([list(ids)], device=device),
            position_ids=torch.tensor([list(positions)], device=device),
            logits_to_keep=wanted,
            **step_attention.inputs_of(step, device),
        )
        logits: Tensor = out.logits[0].float()
        return logits

    def _leave(self, index: int) -> Row:
        """The last reply takes the place that became free, and the prompt that is half read moves up by one."""
        last = len(self.replying) - 1
        gone, self.replying[index] = self.replying[index], self.replying[last]
        self.replying.pop()
        self.cache.clear(index, gone.read)
        if index != last:
            self.cache.move(last, index, self.replying[index].read)
        if self.reading and self.reading[0].read:
            self.cache.move(last + 1, last, self.reading[0].read)
        return gone

    def _stop_reading(self, index: int) -> Row:
        row = self.reading.pop(index)
        self.cache.clear(len(self.replying) + index, row.read)
        return row

    @torch.inference_mode()
    def _check(self, own: Tensor) -> None:
        """Read a probe in two stretches and a step, and compare with what the model computes by itself."""
        stretches = [Stretch(0, 0, 4), Stretch(0, 4, 3)]
        found = []
        for stretch in stretches:
            places = range(stretch.start, stretch.start + stretch.length)
            step = make_step(self.cache, [], [stretch], self.base.device)
            found.append(self._run([_PROBE[i] for i in places], list(places), step, torch.arange(stretch.length)))
        step = make_step(self.cache, [7], [], self.base.device)
        found.append(self._run([_PROBE[7]], [7], step, torch.arange(1)))
        ours, theirs = torch.cat(found).log_softmax(-1), own.log_softmax(-1)
        if float((theirs.exp() * (theirs - ours)).sum(-1).max()) > _ALIKE:
            kind = type(self.base.model).__name__
            raise ModelError(f"{kind} does not attend as batches are served here; use Llama, Qwen2, Phi-3 or a like base model")
        self.cache.clear(0, PROBE_TOKENS)


@torch.inference_mode()
def _own_logits(base: BaseModel) -> Tensor:
    logits: Tensor = base.model(input_ids=torch.tensor([_PROBE], device=base.device), use_cache=False).logits[0].float()
    return logits


def _end_tokens(base: BaseModel) -> frozenset[int]:
    configured = getattr(getattr(base.model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*listed, base.tokenizer.eos_token_id] if token is not None)
