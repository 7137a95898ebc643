"""One process that keeps the base and makes one version after another: every way's line, period by period.

Key property: each version is made by what makes the service's updates, and is kept, with its answers, in the run, so that
whoever comes next goes on from the last epoch. No Ray in it; `running` puts one on each worker.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig
from compass_ray.continual.simulation.learning.answers import answer
from compass_ray.continual.simulation.learning.course import first_line, line_of, scenario_of, windows
from compass_ray.continual.simulation.learning.first import begin
from compass_ray.continual.simulation.learning.lines import FIRST, Line, version
from compass_ray.continual.simulation.learning.plan import LearningPlan, Way
from compass_ray.continual.simulation.scenarios import Scenario
from compass_ray.continual.update.plan import Update, adapter_plan
from compass_ray.continual.update.selecting import identity_of, selected_for
from compass_ray.continual.update.windows import Window
from compass_ray.continual.update.worker import make
from compass_ray.continuity import ANCHORS, leave_continuity
from compass_ray.watched_clusters import FITTED


class Learner:
    """Makes lines of versions and asks each version the test items of the scenario's subjects."""

    def __init__(self, config: RunConfig, run: RunDir, plan: LearningPlan) -> None:
        """Load the base model."""
        import torch

        from compass_ray.models.base import load_base

        self.config, self.run, self.plan = config, run, plan
        torch.set_num_threads(config.resources.threads_per_worker)
        self.base = load_base(config.train)

    def learn(self, language: str, seed: int) -> None:
        """Make and examine every version of a language under a seed that is not whole yet."""
        asked, found = scenario_of(self.run, self.plan, language, seed), windows(self.config, self.run, self.plan, language, seed)
        config = self.config.model_copy(update={"seed": seed})
        first = first_line(self.run, language, seed)
        begin(config, first, language, asked, self.base)
        self._examine(config, first, language, FIRST, asked)
        for way, updates in self.plan.updates(self.config, len(asked.groups)).items():
            if way.strategy != "static":
                self._line(way, seed, first, asked, found[:updates])

    def _line(self, way: Way, seed: int, first: Line, asked: Scenario, found: list[Window]) -> None:
        config, line = way.settings(self.config, seed), line_of(self.plan, first, way)
        language = found[0].language
        if config.update.anchors != self.config.update.anchors:
            self._anchor(config, line, language)
        for number, window in enumerate(found, start=2):
            update = Update(language, version(number - 1), version(number), window.name)
            started = time.process_time()
            _select(config, line, window, update)
            if not _stands(config, line, update):
                make(config, line, update, self.base)
            self._examine(config, line, language, update.version, asked, cpu_seconds=time.process_time() - started)

    def _anchor(self, config: RunConfig, line: Line, language: str) -> None:
        """The first version again with as many anchors as the way asks for."""
        first, own = line.origin.adapter(language, FIRST), line.own("adapters", language, FIRST)
        before = first.require()
        identity = Identity("train", {**before.config, "anchors": config.update.anchors}, {first.name: before.fingerprint})
        made = own.manifest()
        if made is not None and made.fingerprint == identity.fingerprint:
            return
        writer = own.begin(identity)
        for file in ("adapter_config.json", "adapter_model.safetensors", "history.json"):
            writer.bytes(file, first.read_bytes(file))
        leave_continuity(config, line, [line.selection(config.serve.method, language)], self.base, writer)
        writer.publish()

    def _examine(self, config: RunConfig, line: Line, language: str, name: str, asked: Scenario, **metrics: float) -> None:
        answer(config, line, language, name, asked.subjects, self.base, {**metrics, **_about(line, language, name)})


def _select(config: RunConfig, line: Line, window: Window, update: Update) -> None:
    """Publish what is selected for a window, unless it is whole."""
    artifact, identity = (
        line.own("selections", update.version, update.language),
        identity_of(config, line, window, update, FITTED),
    )
    made = artifact.manifest()
    if made is None or made.fingerprint != identity.fingerprint:
        chosen = selected_for(config, line, window, update, FITTED)
        chosen.publish(artifact.begin(identity), window)


def _stands(config: RunConfig, line: Line, update: Update) -> bool:
    """Whether a version is whole and judged, and made as it would be now."""
    made, judged = line.adapter(update.language, update.version).manifest(), line.update(update.language, update.version)
    if made is None or judged.manifest() is None:
        return False
    return made.fingerprint == adapter_plan(config, line, update).identity.fingerprint


def _about(line: Line, language: str, name: str) -> Mapping[str, Any]:
    adapter = line.adapter(language, name)
    history, anchors = adapter.read_json("history.json"), adapter.read_table(ANCHORS)
    verdict = line.update(language, name).read_json("gate.json") if name != FIRST else {"accepted": True}
    return {"rows": history["rows"], "anchors": anchors.num_rows, "accepted": verdict["accepted"]}
