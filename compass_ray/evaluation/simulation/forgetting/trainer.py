"""One process that keeps the base and makes one version after another: every way's line, period by period.

Key property: each version is made by what makes the service's updates, and is kept, with its answers, in the run, so that
whoever comes next goes on from the last epoch. No Ray in it; `running` puts one on each worker.
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
    """Makes lines of versions and asks each version the test items of the scenario's subjects."""

    def __init__(self, config: RunConfig, run: RunDir, plan: ForgettingSettings) -> None:
        """Load the base model."""
        import torch

        from compass_ray.models.base_model import load_base

        self.config, self.run, self.plan = config, run, plan
        torch.set_num_threads(config.resources.threads_per_worker)
        self.base = load_base(config.train)

    def train_language(self, language: str, seed: int) -> None:
        """Make and examine every version of a language under a seed that is not whole yet."""
        asked, found = (
            load_scenario(self.run, self.plan, language, seed),
            draw_windows(self.config, self.run, self.plan, language, seed),
        )
        config = self.config.model_copy(update={"seed": seed})
        first = initial_overlay(self.run, language, seed)
        make_initial_adapter(config, first, language, asked, self.base)
        self._evaluate(config, first, language, FIRST_VERSION, asked)
        for way, updates in self.plan.update_counts(self.config, len(asked.groups)).items():
            if way.strategy != "static":
                self._train_variant(way, seed, first, asked, found[:updates])

    def _train_variant(self, way: UpdateVariant, seed: int, first: OverlayRun, asked: Scenario, found: list[Window]) -> None:
        config, line = way.apply_to(self.config, seed), variant_overlay(self.plan, first, way)
        language = found[0].language
        if config.update.anchors != self.config.update.anchors:
            self._redo_anchors(config, line, language)
        for number, window in enumerate(found, start=2):
            update = UpdateSpec(language, version_name(number - 1), version_name(number), window.name)
            started = time.process_time()
            _publish_selection(config, line, window, update)
            if not _is_complete(config, line, update):
                make_version(config, line, update, self.base)
            self._evaluate(config, line, language, update.version, asked, cpu_seconds=time.process_time() - started)

    def _redo_anchors(self, config: RunConfig, line: OverlayRun, language: str) -> None:
        """The first version again with as many anchors as the way asks for."""
        first, own = line.parent.adapter(language, FIRST_VERSION), line.own_artifact("adapters", language, FIRST_VERSION)
        before = first.require()
        identity = Identity("train", {**before.config, "anchors": config.update.anchors}, {first.name: before.fingerprint})
        made = own.manifest()
        if made is not None and made.fingerprint == identity.fingerprint:
            return
        writer = own.begin(identity)
        for file in ("adapter_config.json", "adapter_model.safetensors", "history.json"):
            writer.write_bytes(file, first.read_bytes(file))
        save_continual_state(config, line, [line.selection(config.serve.method, language)], self.base, writer)
        writer.publish()

    def _evaluate(self, config: RunConfig, line: OverlayRun, language: str, name: str, asked: Scenario, **metrics: float) -> None:
        evaluate_version(
            config, line, language, name, asked.subjects, self.base, {**metrics, **_version_facts(line, language, name)}
        )


def _publish_selection(config: RunConfig, line: OverlayRun, window: Window, update: UpdateSpec) -> None:
    """Publish what is selected for a window, unless it is whole."""
    artifact, identity = (
        line.own_artifact("selections", update.version, update.language),
        selection_identity(config, line, window, update, INITIAL_CLUSTERING),
    )
    made = artifact.manifest()
    if made is None or made.fingerprint != identity.fingerprint:
        chosen = build_selection(config, line, window, update, INITIAL_CLUSTERING)
        chosen.publish(artifact.begin(identity), window)


def _is_complete(config: RunConfig, line: OverlayRun, update: UpdateSpec) -> bool:
    """Whether a version is whole and judged, and made as it would be now."""
    made, judged = line.adapter(update.language, update.version).manifest(), line.update(update.language, update.version)
    if made is None or judged.manifest() is None:
        return False
    return made.fingerprint == adapter_plan(config, line, update).identity.fingerprint


def _version_facts(line: OverlayRun, language: str, name: str) -> Mapping[str, Any]:
    adapter = line.adapter(language, name)
    history, anchors = HistoryRecord.read(adapter), adapter.read_table(ANCHORS)
    accepted = name == FIRST_VERSION or GateRecord.read(line.update(language, name)).accepted
    return {"rows": history.rows, "anchors": anchors.num_rows, "accepted": accepted}
