"""One update: select for a traffic window, train from the served version without forgetting, judge, promote.

Key property: an update is named by its window and its parent, so one that was killed is finished, not repeated, and the
served version changes only after the gate has accepted a whole adapter. COMPASS, section 3.3 and appendix D.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from compass_ray import ray_session
from compass_ray.adapter_training import AdapterPlan, train_adapter, training_set
from compass_ray.artifacts import ArtifactError, Identity, RunDir, content_hash
from compass_ray.config import ConfigError, Hours, RunConfig, TrainConfig
from compass_ray.continual import lineage
from compass_ray.continual.gate import Gate, measure
from compass_ray.continuity import ANCHORS, FISHER, encode_pool_rows
from compass_ray.language_selection import Chosen, PoolView, WindowGuide, choose, tested_keys, window_question
from compass_ray.progress import Progress, silent
from compass_ray.serving import registry
from compass_ray.serving.monitoring.observations import WindowReady
from compass_ray.serving.monitoring.offers import read_window as read_offered
from compass_ray.serving.monitoring.traffic_log import kept_window
from compass_ray.watched_clusters import TrainedRows

_LEAST = 19
"""Ray starts every worker with niceness 15. Beside one, a process of 19 got 0.29 of a contended processor, not half."""


@dataclass(frozen=True)
class Window:
    """Prompts of one language that an update is to serve: their clusters, and how many traffic had come."""

    language: str
    clusters: tuple[int, ...]
    name: str
    """Content hash: an update is never made twice for the same window."""

    def __len__(self) -> int:
        return len(self.clusters)


@dataclass(frozen=True)
class Outcome:
    """What became of an update."""

    language: str
    from_version: str
    to_version: str
    accepted: bool
    reason: str

    def sentence(self) -> str:
        """The outcome for a terminal."""
        served = self.to_version if self.accepted else self.from_version
        return f"{self.language}: {self.from_version} -> {self.to_version} {self.reason}; {served} is served"


def offered_window(run: RunDir, ready: WindowReady) -> Window:
    """The window that the monitor offers after an alarm."""
    return _window(ready.language, read_offered(run, ready)["cluster"].to_pylist(), ready.file)


def read_window(run: RunDir, config: RunConfig, language: str, prompts: Path | None) -> Window:
    """Prompts from a JSON Lines file with a ``prompt`` field, or the last window that the monitor kept.

    Raises:
        ConfigError: an unknown language, an unreadable file, or no traffic.
    """
    if language not in config.languages:
        raise ConfigError(f"{language!r} is not a language of this run; it has {', '.join(config.languages)}")
    if prompts is not None:
        return _placed(run, config, language, _lines(prompts))
    found = [event["cluster"] for event in kept_window(run, config, language)]
    if not found:
        raise ConfigError(f"no traffic of {language} has been collected; give prompts with --prompts FILE.jsonl")
    return _window(language, found, "traffic")


def require_hours(config: RunConfig, moment: datetime) -> None:
    """Stop where updates are kept to hours of little traffic and ``moment``, an aware time, is none of them.

    An update that has begun goes on past their end: what it holds is its own (see `update`).

    Raises:
        ConfigError: they are closed; says when they open.
    """
    hours = Hours.parse(config.update.hours) if config.update.hours else None
    opens = hours.opens(moment) if hours else moment
    if opens == moment:
        return
    minutes = -(-(opens - moment).total_seconds() // 60)
    raise ConfigError(
        f"updates are begun between {hours} UTC only (update.hours), and it is {moment.astimezone(UTC):%H:%M} UTC; come again "
        f"at {opens:%Y-%m-%d %H:%M} UTC, in {minutes // 60:.0f} h {minutes % 60:.0f} min, or give --now"
    )


def update(config: RunConfig, run: RunDir, window: Window, *, progress: Progress = silent) -> Outcome:
    """Make the update of one language for one window, and promote it if the gate accepts it.

    Its workers take ``resources.worker_resources`` and so only machines that are not kept for the service, and give way to
    the service's processes on a machine that they share. Stopped at any time, it goes on from its last epoch.

    Raises:
        ArtifactError: the language serves no adapter or is pinned, or training failed.
        ConfigError: no machine of the cluster can hold its worker.
    """
    parent = lineage.live_version(run, window.language)
    registry.require_free(run, window.language)
    if done := _finished(run, window):
        return done
    ray_session.start(config.resources)
    ray_session.require_worker(config.resources, f"the update of {window.language}")
    version = lineage.version_after(run, window.language)
    _select(config, run, window, parent, version)
    progress("update", 1, 3)
    loop = {"language": window.language, "parent": parent, "version": version, "window": window.name}
    ray_session.fit(config, run, update_worker, loop, workers=1)
    progress("update", 2, 3)
    outcome = _settle(run, window, parent, version)
    progress("update", 3, 3)
    return outcome


def update_worker(loop: Mapping[str, Any]) -> None:
    """Ray Train worker: train the new version from its parent, then measure both for the gate."""
    import torch

    from compass_ray.models.base import load_base

    config, run = RunConfig.model_validate(loop["config"]), RunDir(loop["uri"])
    os.nice(_LEAST)
    torch.set_num_threads(config.resources.threads_per_worker)
    base = load_base(config.train)
    language, parent, version = loop["language"], loop["parent"], loop["version"]
    old, new = run.adapter(language, parent), run.adapter(language, version)
    with ExitStack() as stack:
        before, plan = stack.enter_context(old.local()), _plan(config, run, loop)
        trained = new.manifest()
        if trained is None or trained.fingerprint != plan.identity.fingerprint:
            _train(config, run, plan, base, before)
        gate = _measure(config, run, loop, base, before, stack.enter_context(new.local()))
    identity = Identity("update", {"window": loop["window"]}, {new.name: new.require().fingerprint})
    writer = run.update(language, version).begin(identity)
    writer.json("gate.json", asdict(gate) | {"accepted": gate.accepted, "reason": gate.reason, "from": parent})
    writer.publish({"accepted": gate.accepted})


def update_settings(config: RunConfig) -> TrainConfig:
    """Training settings of an update: its own epochs and learning rate, the rest as in first training."""
    rate = config.update.learning_rate or config.train.learning_rate
    return config.train.model_copy(update={"epochs": config.update.epochs, "learning_rate": rate})


def _plan(config: RunConfig, run: RunDir, loop: Mapping[str, Any]) -> AdapterPlan:
    language, parent, version = loop["language"], loop["parent"], loop["version"]
    selection, old = run.selection(version, language), run.adapter(language, parent).require()
    settings = update_settings(config).identity() | config.update.identity()
    return AdapterPlan(
        language=language,
        artifact=run.adapter(language, version),
        identity=Identity(
            "train",
            settings | {"base_model": old.config["base_model"], "seed": config.seed},
            {selection.name: selection.require().fingerprint, "parent": old.fingerprint},
        ),
        selection=selection,
        served=True,
        before=lineage.selections(config, run, language, parent),
        extra={"from": parent, "strategy": config.update.strategy},
    )


def _train(config: RunConfig, run: RunDir, plan: AdapterPlan, base: Any, initial: Path) -> None:
    plan.artifact.begin(plan.identity, keep_partial=True)
    objective = _objective(config, run, plan.language, plan.extra["from"], base, initial)
    train_adapter(config, run, plan, base, settings=update_settings(config), objective=objective, initial=initial)


def _objective(config: RunConfig, run: RunDir, language: str, parent: str, base: Any, initial: Path) -> Any:
    """The loss of the configured strategy (COMPASS, section 3.3.3 and appendix D)."""
    from compass_ray.models.ecda import EcdaObjective, load_fisher
    from compass_ray.models.peft_directory import read_adapter

    strategy, settings = config.update.strategy, config.update
    anchors = run.adapter(language, parent).read_table(ANCHORS)["row_id"].to_pylist()
    return EcdaObjective(
        beta=settings.beta if strategy in ("ecda", "random_rehearsal") else 0.0,
        ewc_lambda=settings.ewc_lambda if strategy in ("ecda", "ewc") else 0.0,
        anchors=encode_pool_rows(config, run, anchors, base),
        fisher=load_fisher(initial / FISHER),
        previous=read_adapter(initial).tensors,
    )


def _measure(config: RunConfig, run: RunDir, loop: Mapping[str, Any], base: Any, old: Path, new: Path) -> Gate:
    from compass_ray.models.chat import encode_rows

    language, parent, version = loop["language"], loop["parent"], loop["version"]
    data = training_set(run, run.selection(version, language), config)
    weighted = [replace(r, weight=float(w)) for r, w in zip(data.validation, data.validation_weights, strict=True)]
    judging = [row for row in weighted if row.weight > 0]
    if not judging:
        raise ArtifactError(
            f"no row selected for the window of {language} was held out, so nothing can judge {version}; "
            f"raise train.holdout (it is {config.train.holdout:g}) or update.budget (it is {config.update.budget:g})"
        )
    anchors = run.adapter(language, parent).read_table(ANCHORS)["row_id"].to_pylist()
    return measure(
        base,
        old,
        new,
        encode_rows(base.tokenizer, judging, config.train.max_tokens),
        encode_pool_rows(config, run, anchors, base),
        max_forgetting=config.update.max_forgetting,
    )


def _select(config: RunConfig, run: RunDir, window: Window, parent: str, version: str) -> None:
    """Publish D_new: rows for the window, given what the parent was trained on."""
    artifact = run.selection(version, window.language)
    settings = config.select.model_dump(exclude={"methods"}) | {
        "budget": config.update.budget,
        "window": window.name,
        "seed": config.seed,
    }
    adapter = run.adapter(window.language, parent)
    identity = Identity("update", settings, {adapter.name: adapter.require().fingerprint})
    if artifact.manifest() and artifact.require().fingerprint == identity.fingerprint:
        return
    import ray

    options = {"num_cpus": config.resources.cpus_per_worker}
    task = ray.remote(_choose).options(**options)
    chosen = ray.get(task.remote(run.uri, config.model_dump(mode="json"), window, parent))
    writer = artifact.begin(identity)
    writer.table("rows.parquet", chosen.rows)
    writer.json("allocation.json", chosen.allocation)
    writer.publish({"selected": chosen.selected})


def _choose(uri: str, tree: Mapping[str, Any], window: Window, parent: str) -> Chosen:
    """Ray task: the selection itself."""
    config, run = RunConfig.model_validate(tree), RunDir(uri)
    trained = TrainedRows.read(lineage.selections(config, run, window.language, parent), run.clusters)
    window_guide = WindowGuide(
        np.asarray(window.clusters, np.int64),
        frozenset(trained.row_ids),
        trained.clusters,
        tested_keys(run, window.language),
    )
    pool = PoolView.read(run.clusters)
    question = window_question(window.language, pool, window_guide)
    rule = config.select.model_copy(update={"budget": config.update.budget})
    return choose(rule, "compass", question, pool, seed=config.seed)


def _settle(run: RunDir, window: Window, parent: str, version: str) -> Outcome:
    """Record the gate's verdict and promote an accepted version."""
    verdict = run.update(window.language, version).read_json("gate.json")
    outcome = Outcome(window.language, parent, version, verdict["accepted"], verdict["reason"])
    registry.append_decision(
        run,
        {
            "kind": "gate",
            "language": window.language,
            "prompts": len(window),
            "from": parent,
            "to": version,
            "accepted": outcome.accepted,
            "reason": outcome.reason,
        },
    )
    if outcome.accepted:
        registry.promote(run, window.language, version, reason=outcome.reason)
    return outcome


def _finished(run: RunDir, window: Window) -> Outcome | None:
    """The outcome of an earlier update for this very window; promotes it if that was missed."""
    for version in reversed(run.adapter_versions(window.language)):
        artifact = run.update(window.language, version)
        manifest = artifact.manifest()
        if manifest and manifest.config.get("window") == window.name:
            verdict = artifact.read_json("gate.json")
            outcome = Outcome(window.language, verdict["from"], version, verdict["accepted"], verdict["reason"])
            if not outcome.accepted or lineage.live_version(run, window.language) != outcome.from_version:
                return outcome
            if _was_promoted(run, outcome):
                return replace(outcome, accepted=False, reason="was accepted before and rolled back since; promote it by hand")
            return _settle(run, window, outcome.from_version, version)
    return None


def _was_promoted(run: RunDir, outcome: Outcome) -> bool:
    told = {"kind": "promotion", "language": outcome.language, "to": outcome.to_version}
    return any(told.items() <= decision.items() for decision in registry.decisions(run))


def _window(language: str, clusters: list[int], source: str) -> Window:
    """A window to update for.

    Raises:
        ConfigError: nothing would be selected for it.
    """
    if all(cluster < 0 for cluster in clusters):
        raise ConfigError(
            f"all {len(clusters)} prompts of the window of {language} are noise to the clusters, so no cluster has a weight "
            f"and nothing would be selected; cluster again with such rows in the pool, or with cluster.method=kmeans"
        )
    return Window(language, tuple(int(c) for c in clusters), content_hash(language, source, json.dumps(clusters)))


def _lines(file: Path) -> list[str]:
    try:
        records = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]
        prompts = [record["prompt"] for record in records]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: cannot be read as JSON Lines with a 'prompt' in each ({error})") from None
    if not prompts:
        raise ConfigError(f"{file} holds no prompts; an update needs some")
    for number, prompt in enumerate(prompts, start=1):
        if not isinstance(prompt, str) or not prompt.strip():
            raise ConfigError(f"{file}: line {number} holds no prompt but {prompt!r}; correct it or take it out")
    return prompts


def _placed(run: RunDir, config: RunConfig, language: str, prompts: list[str]) -> Window:
    from compass_ray.serving.monitoring.placing import load_placer

    placed = load_placer(run, config).place(prompts)
    return _window(language, [int(c) for c in placed.cluster], "file")
