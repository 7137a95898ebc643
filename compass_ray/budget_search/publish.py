"""Publish the budget of a language: the one with the lowest loss after all trials, or the forecast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compass_ray.artifacts import Manifest, RunDir, Writer
from compass_ray.budget_search.artifact_spec import TEXT_FILE, identity, rows_file, trial_file
from compass_ray.budget_search.trial_data import forecast_record, open_problem
from compass_ray.budget_search.trials import load_trial
from compass_ray.config import RunConfig
from compass_ray.records.budgets import BudgetRecord, PreparedTrialsRecord


def publish_forecast(config: RunConfig, run: RunDir, language: str) -> Manifest:
    """Publish the budget forecast from cluster counts."""
    pool, problem = open_problem(config, run, language)
    found = forecast_record(config, pool, problem)
    return _publish(config, run, language, {"budget": found.suggestion, "forecast": found, "trials": ()})


def publish_best(config: RunConfig, run: RunDir, language: str) -> Manifest | None:
    """Publish the budget with the lowest loss after all trials are recorded; of equal ones the smallest."""
    if run.budget(language).exists(BudgetRecord.FILE):  # killed between the record and the manifest
        return _publish(config, run, language)
    trials = [load_trial(run, language, budget) for budget in config.tune.budgets]
    done = [trial for trial in trials if trial is not None]
    if len(done) < len(trials):
        return None
    prepared = PreparedTrialsRecord.read(run.budget(language))
    best = min(done, key=lambda trial: (trial.best_loss, trial.budget))
    trials_with_loss = tuple(t.model_copy(update={"loss": t.best_loss, "rows": prepared.rows[f"{t.budget:g}"]}) for t in done)
    found = {"budget": best.budget, "forecast": prepared.forecast, "held": prepared.held, "trials": trials_with_loss}
    return _publish(config, run, language, found)


def _publish(config: RunConfig, run: RunDir, language: str, found: Mapping[str, Any] | None = None) -> Manifest:
    """Write the record unless it exists, delete the files of the trials, and publish."""
    artifact = run.budget(language)
    writer = Writer(artifact, identity(config, run, language))
    if found is not None:
        BudgetRecord.model_validate({"language": language, "rule": config.select.budget, **found}).write(writer)
    trial_files = (file(budget) for budget in config.tune.budgets for file in (rows_file, trial_file))
    for file in (PreparedTrialsRecord.FILE, TEXT_FILE, *trial_files):
        artifact.drop(file)
    record = BudgetRecord.read(artifact)
    return writer.publish({"budget": record.budget, "predicted": record.forecast.suggestion})
