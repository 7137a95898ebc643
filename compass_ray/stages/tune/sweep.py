"""Sweep over budgets as one Ray Tune run, with successive halving for each language.

Key property: a trial is compared only with trials of the same language. Finished trials are recorded. A resumed sweep
reports them to Tune again, so it makes the same decisions and trains none of them twice. The losses of a trial depend only
on seed and inputs. With several concurrent trials, early stopping depends on their order of completion.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as Running
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.budget_search import is_training_over, load_trial, publish_best, run_trial, save_trial
from compass_ray.config import RunConfig
from compass_ray.core.seeds import generator
from compass_ray.models.base_model import BaseModel
from compass_ray.models.memory_watch import find_kill
from compass_ray.progress import Progress, silent
from compass_ray.records.budgets import TrialEpochRecord, TrialRecord

LOSS = "validation_loss"
_TRIAL = "trial"


def sweep(config: RunConfig, run: RunDir, languages: Sequence[str], *, progress: Progress) -> dict[str, str]:
    """Publish the budget of each prepared language; return the error messages by language."""
    resources, storage = config.resources, run.artifact("tune_runs")
    trials = [trial for code in languages for trial in _trials(config, run, code)]
    recorder = _TrialRecorder(config, run, progress, len(trials))
    trainable = tune.with_parameters(_train, uri=run.uri, settings=config.model_dump_json())
    request = {"cpu": resources.cpus_per_worker, "gpu": resources.gpus_per_worker, **resources.worker_resources}
    tuner = tune.Tuner(
        tune.with_resources(trainable, request),
        param_space={_TRIAL: tune.grid_search(trials)},
        tune_config=tune.TuneConfig(
            scheduler=_PerLanguageHalving(config), max_concurrent_trials=resources.tune_trials, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name=f"tune-{uuid.uuid4().hex[:12]}",
            storage_path=storage.path,
            storage_filesystem=run.filesystem,
            failure_config=tune.FailureConfig(max_failures=resources.max_failures),
            callbacks=[recorder],
            verbose=0,
        ),
    )
    try:
        return {code: find_kill(run.budget(code)) or reason for code, reason in _failures(tuner.fit()).items()}
    finally:
        storage.remove()


def _failures(results: tune.ResultGrid) -> dict[str, str]:
    """Error messages by language."""
    found = [results[i] for i in range(len(results))]
    failed = [(result.config[_TRIAL], result.error) for result in found if result.config and result.error]
    return {given["language"]: f"budget {given['budget']:g}: {ray_session.user_message(error)}" for given, error in failed}


def _trials(config: RunConfig, run: RunDir, language: str) -> list[dict[str, Any]]:
    """Budgets of a language in random order, so that their size does not decide which trials are compared."""
    order = generator(config.seed, "tune", language).permutation(len(config.tune.budgets))
    found = [(config.tune.budgets[i], load_trial(run, language, config.tune.budgets[i])) for i in order]
    return [{"language": language, "budget": b, "epochs": list(trial.epochs) if trial else []} for b, trial in found]


def _train(given: Mapping[str, Any], *, uri: str, settings: str) -> None:
    """Tune's trainable: run one trial, or report a recorded one again."""
    trial = given[_TRIAL]
    if trial["epochs"]:
        for epoch in trial["epochs"]:
            _report(epoch)
        return
    import torch

    config, run = RunConfig.model_validate_json(settings), RunDir(uri)
    torch.set_num_threads(config.resources.threads_per_worker)
    run_trial(config, run, trial["language"], trial["budget"], _base(settings), _report)


def _report(epoch: TrialEpochRecord) -> None:
    tune.report(epoch.to_json())


@cache
def _base(settings: str) -> BaseModel:
    """The base model, loaded once per actor."""
    from compass_ray.models.base_model import load_base

    return load_base(RunConfig.model_validate_json(settings).train)


class _PerLanguageHalving(FIFOScheduler):
    """Asynchronous successive halving, separately for each language."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._config = config
        self._schedulers: dict[str, ASHAScheduler] = {}

    def _scheduler_of(self, trial: Running) -> ASHAScheduler:
        language = trial.config[_TRIAL]["language"]
        if language not in self._schedulers:
            settings, epochs = self._config.tune, self._config.train.epochs
            self._schedulers[language] = ASHAScheduler(
                time_attr="epoch",
                metric=LOSS,
                mode="min",
                max_t=epochs,
                grace_period=min(settings.grace, epochs),
                reduction_factor=settings.reduction,
            )
        return self._schedulers[language]

    def on_trial_add(self, tune_controller: Any, trial: Running) -> None:
        self._scheduler_of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Running, result: dict[str, Any]) -> str:
        return self._scheduler_of(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Running, result: dict[str, Any]) -> None:
        self._scheduler_of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Running) -> None:
        self._scheduler_of(trial).on_trial_remove(tune_controller, trial)


class _TrialRecorder(tune.Callback):
    """Records finished trials, and publishes the budget of a language after its last trial."""

    def __init__(self, config: RunConfig, run: RunDir, progress: Progress, total: int) -> None:
        self._config, self._run, self._progress = config, run, progress
        self._epochs: dict[str, dict[int, TrialEpochRecord]] = defaultdict(dict)
        self._ended, self._total = 0, total

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_progress": silent}  # Tune pickles callbacks, and progress bars hold locks

    def on_trial_result(self, iteration: int, trials: list[Running], trial: Running, result: dict[str, Any], **_: Any) -> None:
        reported = TrialEpochRecord.model_validate(result)
        self._epochs[trial.trial_id][reported.epoch] = reported  # a retried trial overwrites its epochs

    def on_trial_complete(self, iteration: int, trials: list[Running], trial: Running, **_: Any) -> None:
        given = trial.config[_TRIAL]
        if not given["epochs"]:
            epochs = tuple(self._epochs.pop(trial.trial_id).values())
            stopped = not is_training_over([epoch.validation_loss for epoch in epochs], self._config.train)
            save_trial(self._run, given["language"], TrialRecord(budget=given["budget"], epochs=epochs, stopped=stopped))
        publish_best(self._config, self._run, given["language"])
        self._advance()

    def on_trial_error(self, iteration: int, trials: list[Running], trial: Running, **_: Any) -> None:
        self._advance()

    def _advance(self) -> None:
        self._ended += 1
        self._progress("tune", self._ended, self._total)
