"""lm-evaluation-harness in this process, on a base model that is loaded once; an adapter may be attached to it at any time.

The harness's own model class for transformers computes everything but log-likelihoods: those are computed in batches by tokens
and slices of positions, so that memory does not grow with rows times vocabulary. Chat prompts are those of training and serving.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from compass_ray.config import ConfigError
from compass_ray.harness.continuation_scores import Score, score_continuations
from compass_ray.harness.library_settings import local_data_sets, unchanged_environment
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import encode_messages, render_messages
from compass_ray.models.scorer import DEFAULT_BATCH_TOKENS

with unchanged_environment():
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

_RESAMPLES = 1000
"""Bootstrap resamples of the harness, for metrics whose error has no closed form."""


@dataclass(frozen=True)
class HarnessSettings:
    """How tasks are evaluated. ``limit`` is the number of items of each task; ``num_fewshot`` None is the task's own."""

    limit: int | None = None
    num_fewshot: int | None = None
    chat_template: bool = True
    batch_size: int | str = 1
    """Prompts of one batch of generated replies; ``auto`` is what ``batch_tokens`` allows at the model's full length."""
    batch_tokens: int = DEFAULT_BATCH_TOKENS
    """Tokens that are scored at once."""
    max_length: int | None = None
    """Most tokens of prompt and reply; the model's if unset."""
    seed: int = 0


class HarnessModel(HFLM):  # type: ignore[misc]
    """The harness's model class over a loaded base model, whose layers an adapter may replace meanwhile."""

    def __init__(self, base: BaseModel, settings: HarnessSettings) -> None:
        """A chat prompt has its own start tokens, so none are added to it."""
        with _silent():
            super().__init__(
                pretrained=base.model,
                tokenizer=base.tokenizer,
                backend="causal",
                batch_size=settings.batch_size,
                max_length=settings.max_length,
                add_bos_token=False if settings.chat_template else None,
            )
        self._base, self._batch_tokens = base, settings.batch_tokens
        self.with_template = settings.chat_template
        self.num_truncated = 0
        """Requests whose prompt was cut on the left, because it is longer than the model's context."""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt as training and serving write it."""
        if not add_generation_prompt:
            return str(super().apply_chat_template(chat_history, add_generation_prompt=False))
        return render_messages(self.tokenizer, chat_history)

    def tok_batch_encode(self, strings: list[str], *arguments: Any, left_truncate_len: int | None = None, **options: Any) -> Any:
        """The harness's tokens of prompts, and the count of truncated ones."""
        ids, mask = super().tok_batch_encode(strings, *arguments, **options)
        if left_truncate_len is None:
            return ids, mask
        self.num_truncated += int((mask.sum(1) > left_truncate_len).sum())
        return ids[:, -left_truncate_len:], mask[:, -left_truncate_len:]

    def _loglikelihood_tokens(self, requests: Sequence[Any], *arguments: Any, **options: Any) -> list[Score]:
        pairs = [(context, continuation) for _, context, continuation in requests]
        self.num_truncated += sum(len(context) + len(continuation) > self.max_length + 1 for context, continuation in pairs)
        return score_continuations(self._base, pairs, max_length=self.max_length, batch_tokens=self._batch_tokens)

    def _detect_batch_size(self, *arguments: Any, **options: Any) -> int:
        """Without the harness's trial passes, which compute all logits."""
        return max(1, self._batch_tokens // int(self.max_length))

    @property
    def tokenizer_name(self) -> str:
        """The name under which the harness caches requests, which is never used here."""
        return str(self.tokenizer.name_or_path)


def evaluate_tasks(
    base: BaseModel, names: Sequence[str], folders: Sequence[Path], settings: HarnessSettings, cache: Path | None = None
) -> dict[str, Any]:
    """The harness's results of tasks, with ``samples``, and as ``truncated`` the number of truncated requests.

    Args:
        base: the model, with or without an adapter.
        names: names of tasks and groups: of ``folders``, otherwise the harness's own.
        folders: folders of task files.
        settings: how they are evaluated.
        cache: folder for the converted rows; that of Hugging Face's data sets if None.

    Raises:
        ConfigError: a task is unknown, or its data set is not on this machine.
    """
    model = HarnessModel(base, settings)
    with _silent(), local_data_sets(cache):
        manager = open_task_manager(names, folders)
        try:
            found = lm_eval.simple_evaluate(
                model=model,
                tasks=list(names),
                num_fewshot=settings.num_fewshot,
                limit=settings.limit,
                bootstrap_iters=_RESAMPLES,
                apply_chat_template=settings.chat_template,
                fewshot_as_multiturn=settings.chat_template,
                task_manager=manager,
                random_seed=settings.seed,
                numpy_random_seed=settings.seed,
                torch_random_seed=settings.seed,
                fewshot_random_seed=settings.seed,
            )
        except (ConnectionError, FileNotFoundError) as error:
            raise ConfigError(f"the rows of {', '.join(names)} cannot be read ({_first_line(error)})") from error
    return {**found, "truncated": model.num_truncated}


def check_prompt_length(base: BaseModel, tokens: int, new_tokens: int) -> None:
    """Check that prompts of ``tokens`` and their replies fit into the model, with the chat template.

    Raises:
        ConfigError: they do not; the harness would cut the start of each prompt.
    """
    template = encode_messages(base.tokenizer, [{"role": "user", "content": ""}], 1 << 30)
    needed, available = tokens + len(template) + new_tokens, HarnessModel(base, HarnessSettings()).max_length
    if needed > available:
        raise ConfigError(
            f"prompts of {tokens} tokens need a context of {needed}, but the model has {available}; "
            "lower evaluate.long_context.tokens"
        )


def expand_tags(names: Iterable[str], folders: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """The tasks of each tag, sorted, as the harness evaluates it. A task or a group is itself.

    Args:
        names: names of tasks, groups and tags: of ``folders``, otherwise the harness's own.
        folders: folders of task files.

    Raises:
        ConfigError: a name is unknown, or a task of a group.
    """
    manager = open_task_manager(tuple(names), folders)
    tags = set(manager.all_tags)
    return {name: tuple(sorted(manager.task_index[name].tags)) if name in tags else (name,) for name in names}


def open_task_manager(names: Sequence[str], folders: Sequence[Path]) -> TaskManager:
    """Tasks of the folders alone, which are read in milliseconds; the harness's own thousands only if a name needs them.

    Raises:
        ConfigError: a name is unknown, or a task of a group.
    """
    paths = tuple(str(folder) for folder in folders)
    own = TaskManager(include_path=list(paths), include_defaults=False)
    if not _find_unknown(own, names, with_inline=True):
        return own
    every = _open_every_task(paths)
    if unknown := _find_unknown(every, names, with_inline=False):
        raise ConfigError(f"unknown tasks: {', '.join(unknown)}; give names of compass-ray eval --list or of lm-eval")
    return every


@cache
def _open_every_task(folders: tuple[str, ...]) -> TaskManager:
    return TaskManager(include_path=list(folders))


def _find_unknown(manager: TaskManager, names: Iterable[str], *, with_inline: bool) -> list[str]:
    """Names without a task, also among the members of groups; ``with_inline`` also tasks that a group itself defines."""
    pending, seen, unknown = list(names), set[str](), set[str]()
    while pending:
        name = pending.pop()
        entry = manager.task_index.get(name)
        if entry is None:
            unknown.add(name)
        elif name not in seen:
            pending += _member_names((entry.cfg or {}).get("task"), with_inline=with_inline)
        seen.add(name)
    return sorted(unknown)


def _member_names(members: object, *, with_inline: bool) -> Iterator[str]:
    for each in members if isinstance(members, list) else ():
        if isinstance(each, str):
            yield each
        elif isinstance(each.get("task"), list):
            yield from _member_names(each["task"], with_inline=with_inline)
        elif with_inline:
            yield str(each.get("task") or each.get("group"))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the harness's progress bars and advice."""
    logger = logging.getLogger("lm_eval")
    level, logger.level = logger.level, logging.ERROR
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def to_plain(results: Mapping[str, Any]) -> dict[str, Any]:
    """The harness's results as JSON values, without samples and functions."""
    return {name: value for name, value in results.items() if name not in ("samples", "configs")}
