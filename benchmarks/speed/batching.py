"""32 prompts of different lengths on one base model without adapters: the engine against transformers' two batching modes.

``static`` is ``generate`` on the padded batch. ``continuous`` is ``generate_batch`` without prefix sharing, as adapters would
require, and with a cache of the size that the prompts need. All three are greedy; ``same_tokens`` counts the replies for which
all give the same tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.speed.tiny_models import random_base
from benchmarks.timing import single_thread, time_interleaved
from compass_ray.engine.engine import Engine, EngineConfig
from compass_ray.engine.requests import GenerationRequest
from compass_ray.models.base_model import BaseModel
from compass_ray.models.padding import pad_left

SEED = 0
_PAGE = 32


@dataclass(frozen=True)
class Size:
    """Size of the random base model and of the work; lengths in tokens."""

    hidden: int
    layers: int
    rows: int
    shortest: int
    longest: int
    new_tokens: int
    repeats: int


FULL = Size(hidden=256, layers=4, rows=32, shortest=16, longest=192, new_tokens=32, repeats=3)
SMALL = Size(hidden=32, layers=1, rows=3, shortest=4, longest=12, new_tokens=3, repeats=1)


def prompts(base: BaseModel, size: Size) -> list[list[int]]:
    """Prompts of random tokens, with the numbers and lengths of ``size``."""
    rng = np.random.default_rng(SEED)
    lengths = rng.integers(size.shortest, size.longest + 1, size.rows)
    return [rng.integers(10, len(base.tokenizer) - 1, length).tolist() for length in lengths]


def engine_way(base: BaseModel, ids: Sequence[list[int]], size: Size) -> Callable[[], list[str]]:
    """The engine with all prompts added at once; its cache is allocated before."""
    engine = Engine(base, EngineConfig(max_num_seqs=size.rows, max_model_len=size.longest + size.new_tokens))
    requests = [GenerationRequest(prompt_token_ids=prompt, max_tokens=size.new_tokens) for prompt in ids]
    return lambda: [answer.text for answer in engine.generate(requests)]


def static_way(base: BaseModel, ids: Sequence[list[int]], size: Size) -> Callable[[], list[str]]:
    """``generate`` on one padded batch."""
    tokens, mask = pad_left(ids, base.tokenizer.pad_token_id, base.device)

    def run() -> list[str]:
        found = base.model.generate(tokens, attention_mask=mask, **_asked(base, size))
        return [str(text) for text in base.tokenizer.batch_decode(found[:, tokens.shape[1] :], skip_special_tokens=True)]

    return run


def continuous_way(base: BaseModel, ids: Sequence[list[int]], size: Size) -> Callable[[], list[str]]:
    """``generate_batch``; its thread and cache are reused between calls."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    blocks = sum(-(-(len(prompt) + size.new_tokens) // _PAGE) for prompt in ids)
    settings = ContinuousBatchingConfig(
        page_size=_PAGE, num_blocks=blocks, max_batch_tokens=512, max_requests_per_batch=size.rows, allow_block_sharing=False
    )
    asked = GenerationConfig(**_asked(base, size))
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)  # it warns about the persistent manager on each call

    def run() -> list[str]:
        found: dict[str, Any] = base.model.generate_batch(
            [list(prompt) for prompt in ids], asked, settings, persistent_manager=True, warmup=False
        )
        return [str(base.tokenizer.decode(each.generated_tokens, skip_special_tokens=True)) for each in found.values()]

    return run


def measure(size: Size) -> dict[str, Value]:
    """CPU seconds of each implementation, and the ratio to the engine."""
    bases = {name: random_base(size.hidden, size.layers, seed=SEED) for name in ("engine", "static", "continuous")}
    ids = prompts(bases["engine"], size)
    makers = {"engine": engine_way, "static": static_way, "continuous": continuous_way}
    ways = {name: make(bases[name], ids, size) for name, make in makers.items()}
    replies = {name: way() for name, way in ways.items()}
    taken = time_interleaved(ways, size.repeats)
    bases["continuous"].model.destroy_cached_continuous_batching_manager()
    return {
        **{f"{name}_seconds": value for name, value in taken.items()},
        **{f"{name}_over_engine": taken[name] / taken["engine"] for name in ("static", "continuous")},
        "same_tokens": sum(len(set(texts)) == 1 for texts in zip(*replies.values(), strict=True)),
    }


def _asked(base: BaseModel, size: Size) -> dict[str, Any]:
    ends = {"eos_token_id": base.tokenizer.eos_token_id, "pad_token_id": base.tokenizer.pad_token_id}
    return {"max_new_tokens": size.new_tokens, "do_sample": False, **ends}


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = parser(__doc__ or "").parse_args(argv)
    size = SMALL if arguments.small else FULL
    with single_thread():
        numbers = measure(size)
    settings: dict[str, Value] = {"architecture": "qwen2", "hidden": size.hidden, "layers": size.layers, "rows": size.rows}
    settings |= {"prompt_tokens": [size.shortest, size.longest], "new_tokens": size.new_tokens, "repeats": size.repeats}
    return write_record("speed/batching", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
