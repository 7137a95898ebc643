"""Trainer of a simulation: one process with the base model that makes the versions of every variant, period by period.

Each version is made by the code that makes the service's updates. Versions and answers are stored in the run, so another
process continues from the last epoch. It does not use Ray; `run_forgetting` puts one on each worker.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from compass_ray.artifacts import Identity, RunDir
from compass_ray.clustering.versions import INITIAL_CLUSTERING
from compass_ray.config import RunConfig
from compass_ray.continual.update.selection import build_selection, selection_identity
from compass_ray.continual.update.spec import UpdateSpec, adapter_plan
from compass_ray.continual.update.windows import Window
from compass_ray.continual.update.worker import make_version
from compass_ray.evaluation.simulation.drift.scenarios import Scenario
from compass_ray.evaluation.simulation.forgetting.evaluations import evaluate_version
from compass_ray.evaluation.simulation.forgetting.initial_adapter import make_initial_adapter
from compass_ray.evaluation.simulation.forgetting.overlay_run import FIRST_VERSION, OverlayRun, version_name
from compass_ray.evaluation.simulation.forgetting.schedule import draw_windows, initial_overlay, load_scenario, variant_overlay
from compass_ray.evaluation.simulation.forgetting.settings import ForgettingSettings, UpdateVariant
from compass_ray.records.training import HistoryRecord
from compass_ray.records.updates import GateRecord
from compass_ray.training.continual_state import ANCHORS, save_continual_state


class ForgettingTrainer:
    """Trains the versions of all variants and scores each on the test items of the scenario's subjects."""

    def __init__(self, config: RunConfig, run: RunDir, plan: ForgettingSettings) -> None:
        """Load the base model."""
        import torch

        from compass_ray.models.base_model import load_base

        self.config, self.run, self.plan = config, run, plan
        torch.set_num_threads(config.resources.threads_per_worker)
        self.base = load_base(config.train)

    def train_language(self, language: str, seed: int) -> None:
        """Train and evaluate every missing version of a language with a seed."""
        scenario = load_scenario(self.run, self.plan, language, seed)
        windows = draw_windows(self.config, self.run, self.plan, language, seed)
        config = self.config.model_copy(update={"seed": seed})
        first = initial_overlay(self.run, language, seed)
        make_initial_adapter(config, first, language, scenario, self.base)
        self._evaluate(config, first, language, FIRST_VERSION, scenario)
        for variant, updates in self.plan.update_counts(self.config, len(scenario.groups)).items():
            if variant.strategy != "static":
                self._train_variant(variant, seed, first, scenario, windows[:updates])

    def _train_variant(
        self, variant: UpdateVariant, seed: int, first: OverlayRun, scenario: Scenario, windows: list[Window]
    ) -> None:
        config, overlay = variant.apply_to(self.config, seed), variant_overlay(self.plan, first, variant)
        language = windows[0].language
        if config.update.anchors != self.config.update.anchors:
            self._redo_anchors(config, overlay, language)
        for number, window in enumerate(windows, start=2):
            update = UpdateSpec(language, version_name(number - 1), version_name(number), window.name)
            started = time.process_time()
            _publish_selection(config, overlay, window, update)
            if not _is_complete(config, overlay, update):
                make_version(config, overlay, update, self.base)
            self._evaluate(config, overlay, language, update.version, scenario, cpu_seconds=time.process_time() - started)

    def _redo_anchors(self, config: RunConfig, overlay: OverlayRun, language: str) -> None:
        """Copy the first version with the number of anchors of the variant."""
        first, own = overlay.parent.adapter(language, FIRST_VERSION), overlay.own_artifact("adapters", language, FIRST_VERSION)
        before = first.require()
        identity = Identity("train", {**before.config, "anchors": config.update.anchors}, {first.name: before.fingerprint})
        made = own.manifest()
        if made is not None and made.fingerprint == identity.fingerprint:
            return
        writer = own.begin(identity)
        for file in ("adapter_config.json", "adapter_model.safetensors", "history.json"):
            writer.write_bytes(file, first.read_bytes(file))
        save_continual_state(config, overlay, [overlay.selection(config.serve.method, language)], self.base, writer)
        writer.publish()

    def _evaluate(
        self, config: RunConfig, overlay: OverlayRun, language: str, name: str, scenario: Scenario, **metrics: float
    ) -> None:
        metrics = {**metrics, **_version_metrics(overlay, language, name)}
        evaluate_version(config, overlay, language, name, scenario.subjects, self.base, metrics)


def _publish_selection(config: RunConfig, overlay: OverlayRun, window: Window, update: UpdateSpec) -> None:
    """Select rows for a window and publish them, unless that is done."""
    artifact = overlay.own_artifact("selections", update.version, update.language)
    identity = selection_identity(config, overlay, window, update, INITIAL_CLUSTERING)
    made = artifact.manifest()
    if made is None or made.fingerprint != identity.fingerprint:
        chosen = build_selection(config, overlay, window, update, INITIAL_CLUSTERING)
        chosen.publish(artifact.begin(identity), window)


def _is_complete(config: RunConfig, overlay: OverlayRun, update: UpdateSpec) -> bool:
    """Whether a version is complete, evaluated by the gate, and has the current identity."""
    made, gate = overlay.adapter(update.language, update.version).manifest(), overlay.update(update.language, update.version)
    if made is None or gate.manifest() is None:
        return False
    return made.fingerprint == adapter_plan(config, overlay, update).identity.fingerprint


def _version_metrics(overlay: OverlayRun, language: str, name: str) -> Mapping[str, Any]:
    adapter = overlay.adapter(language, name)
    history, anchors = HistoryRecord.read(adapter), adapter.read_table(ANCHORS)
    accepted = name == FIRST_VERSION or GateRecord.read(overlay.update(language, name)).accepted
    return {"rows": history.rows, "anchors": anchors.num_rows, "accepted": accepted}
