"""The stages of a run in order: `collect_status` counts complete artifacts, `run_all` makes the missing ones.

A stage is skipped if its artifacts are complete and have the expected fingerprints. A run that was killed therefore
continues from the last manifest. A language that fails in one stage is left out of later stages and reported at the end.
A stage's module, which imports Ray and torch, is imported when the stage starts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from compass_ray import ray_session
from compass_ray.artifacts import (
    FULL_FINETUNING,
    SHARED,
    Artifact,
    FingerprintMismatchError,
    LanguagesFailedError,
    Manifest,
    RunDir,
    adapter_owners,
    clustering_keys,
    full_finetuning_languages,
    selection_owners,
    version_of,
)
from compass_ray.artifacts.stage_timing import StageTimer
from compass_ray.config import ConfigError, RunConfig
from compass_ray.progress import Progress, silent

if TYPE_CHECKING:
    from compass_ray.stages.train import Trainings


@dataclass(frozen=True)
class Stage:
    """One stage: its name, its function, and the artifacts that it makes for a configuration."""

    name: str
    run: Callable[..., list[Manifest]]
    artifacts: Callable[[RunConfig, RunDir], list[Artifact]]
    open_feed: Callable[..., Trainings] | None = None
    """Set if a language may start as soon as the previous stage has finished it: opens the feed that takes such languages."""


@dataclass(frozen=True)
class StageStatus:
    """Complete and total artifacts of one stage."""

    name: str
    complete: int
    total: int


def _run_of(module: str) -> Callable[..., list[Manifest]]:
    """The function ``run`` of a stage's module."""

    def run(*arguments: Any, **options: Any) -> list[Manifest]:
        made: list[Manifest] = import_module(f"compass_ray.stages.{module}").run(*arguments, **options)
        return made

    return run


def _open_trainings(*arguments: Any, **options: Any) -> Trainings:
    from compass_ray.stages.train import Trainings

    return Trainings(*arguments, **options)


def _budgets(config: RunConfig, run: RunDir) -> list[Artifact]:
    from compass_ray.row_selection.budget import budget_artifacts

    return [artifact for code in config.languages for artifact in budget_artifacts(config, run, code)]


STAGES = (
    Stage("pool", _run_of("pool"), lambda c, r: [r.pool, *(r.guide(code) for code in c.languages)]),
    Stage("embed", _run_of("embed"), lambda c, r: [r.embeddings, *(r.guide_embeddings(code) for code in c.languages)]),
    Stage("cluster", _run_of("cluster"), lambda c, r: [r.clustering(key) for key in clustering_keys(c)]),
    Stage("tune", _run_of("tune"), _budgets),
    Stage(
        "select",
        _run_of("select"),
        lambda c, r: [r.selection(method, code) for method, code in selection_owners(c)],
    ),
    Stage(
        "train",
        _run_of("train"),
        lambda c, r: [r.adapter(code, version_of(c, method)) for method, code in adapter_owners(c)],
        open_feed=_open_trainings,
    ),
    Stage(
        "full",
        _run_of("full_finetuning"),
        lambda c, r: [r.full_model(code, FULL_FINETUNING) for code in full_finetuning_languages(c)],
    ),
    Stage(
        "evaluate",
        _run_of("evaluate"),
        lambda c, r: [r.evaluation(m, code) for code in c.languages for m in ("zero_shot", *c.select.methods)],
    ),
    Stage("report", _run_of("report"), lambda c, r: [r.report]),
)


def collect_status(config: RunConfig, run: RunDir) -> list[StageStatus]:
    """Status of every stage that makes artifacts; reads manifests only."""
    return [_stage_status(stage, config, run) for stage in STAGES if stage.artifacts(config, run)]


def _stage_status(stage: Stage, config: RunConfig, run: RunDir) -> StageStatus:
    artifacts = stage.artifacts(config, run)
    return StageStatus(stage.name, sum(a.manifest() is not None for a in artifacts), len(artifacts))


def run_all(
    config: RunConfig,
    run: RunDir,
    *,
    force: Collection[str] = (),
    until: str | None = None,
    progress: Progress = silent,
) -> dict[str, float]:
    """Run the stages in order.

    Args:
        config: settings of the run.
        run: the run directory.
        force: names of stages to recompute even if they are complete.
        until: last stage to run; None runs all.
        progress: called after each part.

    Returns:
        Seconds of each stage.

    Raises:
        ConfigError: an unknown stage, or a table of transfers that cannot be used.
        ModelError: a model or the package of a method is missing; raised before any work.
        LanguagesFailedError: some languages failed; all artifacts of the other languages are complete.
    """
    chosen = stages_until(until, force)
    _check_models(config, {stage.name for stage in chosen})
    clock = StageTimer(run, ray_session.cluster_resources)
    with _recording_config(config, run):
        failures: dict[str, str] = {}
        for step in _steps(chosen):
            remaining = _without_failed(config, failures)
            try:
                _execute(step, remaining, run, force, progress, clock)
            except LanguagesFailedError as error:
                failures |= error.failures
                if SHARED in failures or not set(config.languages) - set(failures):
                    break
    if failures:
        raise LanguagesFailedError(failures)
    return {stage.name: clock.seconds[stage.name] for stage in chosen}


def _steps(stages: Sequence[Stage]) -> list[tuple[Stage, ...]]:
    """The stages in steps; a stage with a feed shares the step of the stage before it."""
    steps: list[tuple[Stage, ...]] = []
    for stage in stages:
        if stage.open_feed and steps:
            steps[-1] = (*steps[-1], stage)
        else:
            steps.append((stage,))
    return steps


def _execute(
    step: tuple[Stage, ...], config: RunConfig, run: RunDir, force: Collection[str], progress: Progress, clock: StageTimer
) -> None:
    first, *fed = step
    arguments: dict[str, Any] = {"force": first.name in force, "progress": progress}
    if not fed:
        with clock.measure(first.name, works=_is_incomplete(first, config, run, force)):
            first.run(config, run, **arguments)
        return
    [second] = fed
    assert second.open_feed is not None
    failures: dict[str, str] = {}
    with (
        clock.measure(second.name, works=_is_incomplete(second, config, run, force)),
        second.open_feed(config, run, force=second.name in force, progress=progress) as feed,
    ):
        try:
            with clock.measure(first.name, works=_is_incomplete(first, config, run, force)):
                first.run(config, run, **arguments, ready=feed.start)
        except LanguagesFailedError as error:
            failures = error.failures
    if failures or feed.failures:
        raise LanguagesFailedError(failures | feed.failures)


def incomplete_stages(config: RunConfig, run: RunDir, until: str | None, force: Collection[str]) -> frozenset[str]:
    """Names of the stages up to ``until`` that miss an artifact or are in ``force``."""
    return frozenset(stage.name for stage in stages_until(until, force) if _is_incomplete(stage, config, run, force))


def _is_incomplete(stage: Stage, config: RunConfig, run: RunDir, force: Collection[str]) -> bool:
    return stage.name in force or any(artifact.manifest() is None for artifact in stage.artifacts(config, run))


def _without_failed(config: RunConfig, failed: Collection[str]) -> RunConfig:
    """The configuration without the languages that failed."""
    if not failed:
        return config
    return config.model_copy(update={"languages": tuple(code for code in config.languages if code not in failed)})


def stages_until(until: str | None, force: Collection[str] = ()) -> tuple[Stage, ...]:
    """The stages up to and including ``until``; all if it is None.

    Raises:
        ConfigError: an unknown stage in ``until`` or ``force``.
    """
    names = [stage.name for stage in STAGES]
    for name in (*force, *([until] if until else [])):
        if name not in names:
            raise ConfigError(f"unknown stage {name!r}; the stages are {', '.join(names)}")
    return STAGES[: names.index(until) + 1 if until else None]


def _check_models(config: RunConfig, stages: Collection[str]) -> None:
    from compass_ray.models.model_resolver import resolve_model

    if "select" in stages:
        from compass_ray.models.transfer_ranker import check_method_requirements

        check_method_requirements(config.select, config.languages)
    if "embed" in stages:
        resolve_model(config.embed.encoder, "encoder")
    if "train" in stages or ("tune" in stages and config.select.budget == "tuned"):
        resolve_model(config.train.base_model, "base_model")
    if "full" in stages and full_finetuning_languages(config):
        from compass_ray.training.deepspeed_config import read_deepspeed_config, require_deepspeed

        require_deepspeed()
        read_deepspeed_config(config.full.deepspeed)


@contextmanager
def _recording_config(config: RunConfig, run: RunDir) -> Iterator[None]:
    """Write the configuration into the run; restore the earlier one if the existing artifacts do not match."""
    before = run.read_config_bytes()
    run.write_config(config)
    try:
        yield
    except (FingerprintMismatchError, ConfigError):
        if before is not None:
            run.write_config_bytes(before)
        raise
