"""Checks of the embedding: the text before each prompt, and how long the pool takes on this machine.

Key property: the time is measured on rows of the pool, for at most a few seconds, and scaled by tokens. Only an encoder on this
machine is loaded, and none that brings code.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from compass_ray.artifacts import ArtifactError
from compass_ray.config import ConfigError
from compass_ray.models.encoder_prompts import E5_PROMPT, is_e5, read_own_prompts
from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import hub_id
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.sources.column_mapping import load_rows

if TYPE_CHECKING:
    from compass_ray.models.encoder import Encoder

_PROMPTS, _TIME = "encoder prompts", "embedding"
_SAMPLED_ROWS = 256
_SLICES = 16
_MEASURED_S = 5.0
"""Limit of the measurement, in seconds. The first slice is always measured."""
_SHORT_S = 1.0
"""If all slices take less, the sample is embedded once more in one call, because calls cost more than tokens then."""


def check_prompts(context: CheckContext) -> list[CheckResult]:
    """Name the text that is put before each prompt, and the encoder's own prompts."""
    config = context.config.embed
    if not context.needs_encoder():
        return []
    try:
        own = read_own_prompts(config)
    except ModelError:  # check_models reports it
        return []
    listed = ", ".join(f"{name} {text!r}" for name, text in own.prompts.items())
    listed = f"the encoder's own prompts are {listed}" if listed else ""
    if config.prompt_prefix:
        used = f"{config.prompt_prefix!r} is put before each prompt (embed.prompt_prefix)"
        return [CheckResult(_PROMPTS, "; ".join(filter(None, (used, listed))))]
    if own.default is not None and own.default in own.prompts:
        return [
            CheckResult(_PROMPTS, f"{own.prompts[own.default]!r} is put before each prompt (the encoder's default); {listed}")
        ]
    if not listed and not is_e5(config.encoder):
        return []
    expected = next(iter(own.prompts.values()), E5_PROMPT)
    reason = (
        f"{listed}, and none is its default" if listed else f"encoders of the E5 family expect {E5_PROMPT!r} before each text"
    )
    remedy = f"add the text that it was trained with, such as --set {f'embed.prompt_prefix={expected}'!r}"
    return [CheckResult(_PROMPTS, f"nothing is put before a prompt: {reason}", remedy)]


@dataclass(frozen=True)
class EmbeddingTime:
    """Measured cost of an encoder: seconds for each token, and mean tokens of a row."""

    seconds_per_token: float
    tokens_per_row: float

    def seconds(self, rows: int, workers: int) -> float:
        """Time of the workers for a number of rows."""
        return rows * self.tokens_per_row * self.seconds_per_token / workers


def check_embedding_time(context: CheckContext) -> list[CheckResult]:
    """Embed some rows of the pool, and report how long all of them take on this machine."""
    config = context.config.embed
    if not (context.needs_encoder() and context.thorough and context.forecast):
        return []
    if hub_id(config.encoder) or config.trust_remote_code:
        return [CheckResult(_TIME, "the time is not measured: only an encoder on this machine without code of its own is loaded")]
    try:
        rows, sample = _sample(context)
    except (OSError, ArtifactError, ConfigError):  # the checks of storage and sources report it
        return []
    if not sample:
        return []
    from compass_ray.models.encoder import Encoder

    try:
        encoder = Encoder(config)
        workers = context.config.resources.choose_embed_workers([float(os.cpu_count() or 1)], _gpus())
        found = measure_time(encoder, sample, threads=workers.threads)
    except ModelError as error:
        return [CheckResult(_TIME, str(error), "correct the embed section", blocking=True, by="settings")]
    how = f"{workers.count} worker{'s' * (workers.count > 1)} with {workers.threads} thread{'s' * (workers.threads > 1)}"
    seconds = found.seconds(rows, workers.count)
    return [
        CheckResult(
            _TIME,
            f"embedding {rows:,} rows takes about {_format_time(seconds)} on this machine, as busy as it is now: {how}, "
            f"{encoder.dtype}, {rows / seconds:,.0f} rows/s with {found.tokens_per_row:.0f} tokens on average",
        )
    ]


def measure_time(
    encoder: Encoder, sample: Sequence[str], *, threads: int, clock: Callable[[], float] = time.monotonic
) -> EmbeddingTime:
    """Embed slices of similar length until all are done or the time is over, after one short row to warm up."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ordered = sorted(sample, key=len)
        slices = [part.tolist() for part in np.array_split(np.array(ordered, object), min(_SLICES, len(ordered)))]
        encoder.encode(ordered[:1], batch_size=1)
        counts = encoder.count_tokens(ordered)
        tokens, started = 0, clock()
        for number in np.random.default_rng(0).permutation(len(slices)):
            encoder.encode(slices[number], batch_size=len(slices[number]))
            tokens += int(encoder.count_tokens(slices[number]).sum())
            if clock() - started > _MEASURED_S:
                break
        seconds = clock() - started
        if seconds < _SHORT_S:
            started, tokens = clock(), int(counts.sum())
            encoder.encode(ordered, batch_size=len(ordered))
            seconds = clock() - started
        return EmbeddingTime(max(seconds, 1e-9) / tokens, float(counts.mean()))
    finally:
        torch.set_num_threads(before)


def _gpus() -> float:
    import torch

    return float(torch.cuda.device_count())


def _format_time(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> _format_time(0.2), _format_time(42.4), _format_time(150), _format_time(9000)
    ('1 second', '43 seconds', '3 minutes', '2.5 hours')
    """
    if seconds < 100:
        whole = max(math.ceil(seconds), 1)
        return f"{whole} second{'s' * (whole > 1)}"
    return f"{math.ceil(seconds / 60)} minutes" if seconds < 5_400 else f"{seconds / 3_600:.1f} hours"


def _sample(context: CheckContext) -> tuple[int, list[str]]:
    """Number of rows of the pool, and some of its prompts. None if neither pool nor sources can be read here."""
    pool = context.run.pool
    if pool.manifest():
        counts = [output.rows or 0 for output in pool.require().outputs if output.path == "rows.parquet"]
        groups = range(pool.row_groups("rows.parquet"))
        tables = [pool.read_row_group("rows.parquet", group, ["prompt"]) for group in _spread(groups, _SLICES)]
        return sum(counts), _draw(tables)
    kept = context.config.pool.languages
    counted = [
        sum(count or 0 for language, count in each.counts.items() if kept is None or language in kept)
        for each in context.source_counts
        if each.counts
    ]
    if not counted or any(each.counts is None for each in context.source_counts):
        return 0, []
    return sum(counted), _draw([load_rows(source, ("prompt",)) for source in context.config.pool.sources])


def _draw(tables: Iterable[pa.Table]) -> list[str]:
    """Evenly spread prompts of the tables together."""
    prompts = pa.concat_tables([table.select(["prompt"]) for table in tables])["prompt"].drop_null()
    return [prompts[i].as_py() for i in _spread(range(len(prompts)), _SAMPLED_ROWS)]


def _spread(numbers: range, most: int) -> list[int]:
    """At most so many of the numbers, evenly spread."""
    return [numbers[i] for i in np.linspace(0, len(numbers) - 1, min(most, len(numbers))).astype(int)] if numbers else []
