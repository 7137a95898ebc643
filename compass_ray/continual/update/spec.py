"""One update by name: from which version, to which, for which window; and what its training is made of.

Key property: every setting that shapes the update is in the fingerprint of its adapter, so another strategy is another
adapter.
"""

from __future__ import annotations

from dataclasses import dataclass

from compass_ray.adapters import lineage
from compass_ray.artifacts import Artifact, Identity, RunDir
from compass_ray.config import RunConfig, TrainConfig
from compass_ray.continual.strategies import STRATEGIES, UpdateStrategy
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
    """What the configured strategy does."""
    return STRATEGIES[config.update.strategy]


def update_settings(config: RunConfig) -> TrainConfig:
    """Training settings of an update: its own epochs and learning rate, the rest as in first training; anew, all as there."""
    if strategy_of(config).from_scratch:
        return config.train
    rate = config.update.learning_rate or config.train.learning_rate
    return config.train.model_copy(update={"epochs": config.update.epochs, "learning_rate": rate})


def parent_selections(config: RunConfig, run: RunDir, update: UpdateSpec) -> tuple[Artifact, ...]:
    """Selections that the version updated from was trained on, its ancestors' first."""
    return lineage.lineage_selections(config, run, update.language, update.parent)


def adapter_plan(config: RunConfig, run: RunDir, update: UpdateSpec) -> AdapterPlan:
    """What `train_adapter` is to do.

    Raises:
        ArtifactError: the selection or the version updated from is missing.
    """
    selection = run.selection(update.version, update.language)
    old = run.adapter(update.language, update.parent).require()
    settings = config.update.identity() | update_settings(config).identity()
    return AdapterPlan(
        language=update.language,
        artifact=run.adapter(update.language, update.version),
        identity=Identity(
            "train",
            settings | {"base_model": old.config["base_model"], "seed": config.seed},
            {selection.name: selection.require().fingerprint, "parent": old.fingerprint},
        ),
        selection=selection,
        served=True,
        previous_selections=() if strategy_of(config).from_scratch else parent_selections(config, run, update),
        extra={"from": update.parent, "strategy": config.update.strategy, "anew": strategy_of(config).from_scratch},
    )
