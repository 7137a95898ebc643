"""Stage: full fine-tuning of the base model for each language, for the method compass_fft (COMPASS, section 4.3).

Key property: each model is one Ray Train run whose ``resources.full_workers`` workers shard it. The run directory holds
their state after every epoch. A language that fails permanently is reported; the other languages are completed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from compass_ray import ray_session
from compass_ray.artifacts import FULL_FINETUNING, Artifact, LanguagesFailedError, Manifest, RunDir, full_finetuning_languages
from compass_ray.config import RunConfig
from compass_ray.models.memory_watch import find_kill, forget_kill
from compass_ray.progress import Progress, silent
from compass_ray.training.deepspeed_config import read_deepspeed_config, require_deepspeed

logger = logging.getLogger(__name__)


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``models/<language>/compass_fft`` for every language; nothing if the method is not selected.

    Raises:
        ArtifactError: a selection is missing.
        ConfigError: unusable DeepSpeed settings, or more workers than the cluster can hold.
        LanguagesFailedError: some languages failed; the artifacts of the others are complete.
        ModelError: DeepSpeed is not installed.
    """
    languages = full_finetuning_languages(config)
    if not languages:
        return []
    from compass_ray.full_finetuning import plan

    plans = [plan(config, run, code) for code in languages]
    pending = [each for each in plans if not each.artifact.find_complete(each.identity, force=force)]
    if pending:
        require_deepspeed()
        settings = read_deepspeed_config(config.full.deepspeed)
        ray_session.start(config.resources)
        ray_session.require_capacity(config.resources, "full_workers", config.resources.full_workers)
        for each in pending:
            each.artifact.begin(each.identity, keep_partial=not force)
            forget_kill(each.artifact)
            _warn_of_changed_workers(each.language, each.artifact, config.resources.full_workers)
        failures = _train(config, run, [each.language for each in pending], settings, progress, len(languages))
        if failures:
            raise LanguagesFailedError({code: f"full fine-tuning: {_find_kill(run, code) or r}" for code, r in failures.items()})
    return [each.artifact.require() for each in plans]


def full_worker(loop: Mapping[str, Any]) -> None:
    """Ray Train worker: trains its shard of the model of one language."""
    import torch

    from compass_ray.full_finetuning import plan, train_full

    config, run = RunConfig.model_validate(loop["config"]), RunDir(loop["uri"])
    torch.set_num_threads(config.resources.threads_per_worker)
    if not run.full_model(loop["language"], FULL_FINETUNING).manifest():
        train_full(config, run, plan(config, run, loop["language"]), loop["settings"])


def _train(
    config: RunConfig, run: RunDir, languages: Sequence[str], settings: Mapping[str, Any], progress: Progress, total: int
) -> dict[str, str]:
    """One Ray Train run per language; return the error messages by language."""
    runs, resources = ray_session.TrainRuns(config.resources.full_concurrency), config.resources
    try:
        for code in languages:
            loop = {"language": code, "settings": dict(settings)}
            runs.start(code, partial(ray_session.launch, config, run, full_worker, loop, workers=resources.full_workers))
        return runs.finish(lambda: progress("full", total - _count_missing(run, languages), total))
    except BaseException:
        runs.abandon()
        raise


def _find_kill(run: RunDir, language: str) -> str | None:
    return find_kill(run.full_model(language, FULL_FINETUNING))


def _count_missing(run: RunDir, languages: Sequence[str]) -> int:
    return sum(not run.full_model(code, FULL_FINETUNING).manifest() for code in languages)


def _warn_of_changed_workers(language: str, artifact: Artifact, workers: int) -> None:
    from compass_ray.full_finetuning import previous_workers

    before = previous_workers(artifact)
    if before not in (None, workers):
        logger.warning(
            "full: training of language=%s restarts at the first epoch: the checkpoint has %d shards, full_workers is %d",
            language,
            before,
            workers,
        )
