"""Settings of lm-evaluation-harness, which `compass-ray eval` runs on the adapters of a run."""

from __future__ import annotations

from typing import Literal

from compass_ray.config.base import ConfigSection, Positive

LongContextTask = Literal["single", "multi_key", "multi_value", "multi_query", "none", "common_words_easy", "common_words_hard"]


class HarnessConfig(ConfigSection):
    """Tasks of lm-evaluation-harness, run in process. COMPASS, section 4.1."""

    tasks: tuple[str, ...] = ()
    """Tasks that ``compass-ray eval`` runs without ``--tasks``. ``compass-ray eval --list`` shows those with rows on disk."""
    data: str | None = None
    """Folder with a copy of each benchmark's hub repository in a folder of the task's name. Each ``{task}`` in it is replaced;
    ``${NAME}`` is read from the environment."""
    limit: Positive | None = None
    """Most items of each task, the first ones; all if unset."""
    num_fewshot: int | None = None
    """Solved examples before each item; the task's own number if unset."""
    chat_template: bool = True
    """Use the chat template, as adapters are trained with it. Published results of base models have no template."""
    batch_size: Positive | None = None
    """Prompts of one batch of generated replies; chosen by ``evaluate.batch_tokens`` on a GPU and 1 on a CPU if unset. Replies
    that are scored have batches of ``evaluate.batch_tokens``."""


class LongContextConfig(ConfigSection):
    """Prompts of OneRuler, the task ``oneruler`` of ``compass-ray eval``. COMPASS, section 4.1."""

    tokens: tuple[Positive, ...] = (8192,)
    """Lengths of the prompts in tokens of the base model, for example 8192, 32768, 65536 and 131072."""
    tasks: tuple[LongContextTask, ...] = (
        "single",
        "multi_key",
        "multi_value",
        "multi_query",
        "none",
        "common_words_easy",
        "common_words_hard",
    )
    """Numbers hidden in a book: one, one of four, four of one noun, two of two nouns, or one that is not there. And the ten most
    common words of a list."""
    items: Positive = 10
    """Prompts of each task and length."""
