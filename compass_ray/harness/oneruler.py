"""OneRuler as a task of lm-evaluation-harness: prompts of a given length for one tokenizer, and the score of a reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from compass_ray.config.harness import LongContextConfig
from compass_ray.sources.benchmarks.answer_metrics import score_answer
from compass_ray.sources.benchmarks.common_words import WORD_TASKS, common_word_items
from compass_ray.sources.benchmarks.oneruler import needle_items

ONERULER = "oneruler"
"""The name of the task."""
_DEPTH_BANDS = 4


def oneruler_rows(folder: Path, language: str, settings: LongContextConfig, seed: int, count: Callable[[str], int]) -> pa.Table:
    """Items of all tasks and lengths (schemas.OPEN_ITEMS); ``count`` counts the tokens of a text.

    Raises:
        ConfigError: the language has no prompt, nouns, dictionary or book.
    """
    tables = []
    for tokens in settings.tokens:
        for task in settings.tasks:
            make = common_word_items if task in WORD_TASKS else needle_items
            tables.append(make(folder, language, task=task, tokens=tokens, items=settings.items, seed=seed, count=count))
    return pa.concat_tables(tables)


def check_oneruler(folder: Path, language: str, settings: LongContextConfig, count: Callable[[str], int]) -> None:
    """Check that the shortest and the longest prompts of every task can be made.

    Raises:
        ConfigError: as `oneruler_rows`, or a length is too short or too long for a task.
    """
    tokens = tuple(sorted({min(settings.tokens), max(settings.tokens)}))
    oneruler_rows(folder, language, settings.model_copy(update={"tokens": tokens, "items": 1}), 0, count)


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The score of one reply, also under its task and length, and for a single needle under its depth.

    >>> doc = {"answers": ["42"], "metric": "numbers", "subject": "single_8192", "depths": [0.3]}
    >>> process_results(doc, ["<Answer> 42 </Answer>"])
    {'score': 1.0, 'single_8192': 1.0, 'single_8192_depth_25_50': 1.0}
    """
    score = score_answer(results[0], doc["answers"], doc["metric"])
    found = {"score": score, doc["subject"]: score}
    return {**found, f"{doc['subject']}_{depth_band(doc['depths'][0])}": score} if len(doc["depths"]) == 1 else found


def depth_band(depth: float) -> str:
    """The quarter of the text in which a needle is.

    >>> depth_band(0.0), depth_band(1.0)
    ('depth_0_25', 'depth_75_100')
    """
    band, width = min(int(depth * _DEPTH_BANDS), _DEPTH_BANDS - 1), 100 // _DEPTH_BANDS
    return f"depth_{band * width}_{(band + 1) * width}"
