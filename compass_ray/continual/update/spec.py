"""The specification of one update: parent version, new version, window, and training inputs.

Every setting that affects the update is part of the adapter's fingerprint, so another strategy makes another adapter.
"""

from __future__ import annotations

from dataclasses import dataclass

from compass_ray.adapters import lineage
from compass_ray.artifacts import Artifact, Identity, RunDir
from compass_ray.config import RunConfig, TrainConfig
from compass_ray.continual.strategies import UpdateStrategy, resolve_strategy
from compass_ray.records.training import HistoryRecord
from compass_ray.training.adapter_job import AdapterPlan


@dataclass(frozen=True)
class UpdateSpec:
    """An update of a language from one version to the next."""

    language: str
    parent: str
    version: str
    window: str
    """The window's name."""


def strategy_of(config: RunConfig) -> UpdateStrategy:
    """The configured strategy."""
    return resolve_strategy(config.update)


def update_settings(config: RunConfig) -> TrainConfig:
    """Training settings of an update: its own epochs and learning rate, and no number of tokens.

    Retraining from scratch uses ``train`` unchanged.
    """
    if strategy_of(config).from_scratch:
        return config.train
    rate = config.update.learning_rate or config.train.learning_rate
    return config.train.model_copy(update={"epochs": config.update.epochs, "learning_rate": rate, "tokens": None})


def parent_selections(config: RunConfig, run: RunDir, update: UpdateSpec) -> tuple[Artifact, ...]:
    """Selections that the parent version was trained on, ancestors first."""
    return lineage.lineage_selections(config, run, update.language, update.parent)


def adapter_plan(config: RunConfig, run: RunDir, update: UpdateSpec) -> AdapterPlan:
    """The input of `train_adapter`.

    Raises:
        ArtifactError: the selection or the parent version is missing.
    """
    selection = run.selection(update.version, update.language)
    parent = run.adapter(update.language, update.parent).require()
    settings = config.update.identity() | update_settings(config).identity()
    return AdapterPlan(
        language=update.language,
        artifact=run.adapter(update.language, update.version),
        identity=Identity(
            "train",
            settings | {"base_model": parent.config["base_model"], "seed": config.seed},
            {selection.name: selection.require().fingerprint, "parent": parent.fingerprint},
        ),
        selection=selection,
        served=True,
        previous_selections=() if strategy_of(config).from_scratch else parent_selections(config, run, update),
        history=HistoryRecord(
            parent=update.parent, strategy=config.update.strategy, from_scratch=strategy_of(config).from_scratch
        ),
    )
