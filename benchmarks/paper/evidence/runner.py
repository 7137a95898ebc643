"""Train and score cells of the protocol: one adapter for a language, a method and a seed, with the product's own stages.

A shared run holds pool, embeddings and clusters of a seed. Each cell has a run directory of its own that reuses them, and is
removed when its measurement is kept. A cell that is kept is not made again, so a stopped run continues.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from benchmarks.paper.evidence.in_process import fit_clusters, load_shared_base, train, without_ray
from benchmarks.paper.evidence.material import Material, bias_settings, make_material, read_facts
from benchmarks.paper.evidence.measurements import Cell, MeasurementStore
from benchmarks.paper.evidence.protocol import (
    SMALL_TOKENS,
    ZERO_SHOT,
    MaterialSize,
    Protocol,
    ProtocolError,
    ProtocolFile,
    is_evaluation,
)
from compass_ray import __version__
from compass_ray.artifacts import ALL_LANGUAGES, SHARED, Artifact, RunDir, content_hash, version_of
from compass_ray.config import RunConfig
from compass_ray.core.distribution import js_divergence
from compass_ray.evaluation.experiments.artifact_reuse import reuse_artifact
from compass_ray.records.evaluations import EvaluationRecord
from compass_ray.records.training import HistoryRecord
from compass_ray.stages import embed, evaluate, pool, select
from compass_ray.stages.train.train_jobs import Job

MODELS, DATA = "COMPASS_REAL_MODELS", "COMPASS_SHARED_DATA"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Workplace:
    """Folders of models, of the data kit and of temporary runs, and the threads of this process."""

    models: Path
    kit: Path
    work: Path
    threads: int = 2

    @classmethod
    def from_environment(cls, work: Path, threads: int) -> Workplace:
        """Folders that the environment names.

        Raises:
            ProtocolError: a variable is not set.
        """
        for name in (MODELS, DATA):
            if not os.environ.get(name):
                raise ProtocolError(
                    f"the environment variable {name} is not set; set it to the folder of the models, or of the kit"
                )
        return cls(Path(os.environ[MODELS]), Path(os.environ[DATA]), work.resolve(), threads)


@dataclass(frozen=True)
class Runner:
    """Runs cells of one try."""

    file: ProtocolFile
    attempt: str
    place: Workplace
    store: MeasurementStore
    say: Say = print
    small: bool = False
    """Few tokens and items, to test the runner; the numbers mean nothing."""

    @property
    def protocol(self) -> Protocol:
        """The protocol."""
        return self.file.protocol

    @cached_property
    def material(self) -> Material:
        """The material of all target languages; it does not depend on which are run."""
        targets = self.protocol.languages.development[:2] if self.small else self.protocol.targets
        self.place.work.mkdir(parents=True, exist_ok=True)
        with FileLock(self.place.work / "material.lock"):
            return make_material(self.protocol, self.size, targets, self.place.kit, self.place.work)

    @cached_property
    def size(self) -> MaterialSize:
        """Numbers of rows and items of the material."""
        size = self.protocol.material_of(self.attempt)
        if not self.small:
            return size
        thinning = size.thinning.model_copy(update={"min_items": 0})
        few = {"own_rows": 60, "rows_of_other_languages": 4, "thinned_items_per_family": 2, "other_items_per_family": 1}
        return size.model_copy(update={**few, "thinning": thinning})

    def run(self, cells: Iterable[Cell]) -> int:
        """Measure the cells that are not kept yet; returns how many.

        Raises:
            ProtocolError: a cell is of another language than those of the try, or the protocol of an evaluation is not frozen.
        """
        done = 0
        for cell in cells:
            self._check_language(cell.language)
            if not self.store.is_done(cell, self._expected(cell)):
                done += self._measure_once(cell)
        return done

    def _measure_once(self, cell: Cell) -> int:
        """Measure a cell, unless another process does or did; 1 if it was measured here."""
        folder, started = self._folder(cell), time.monotonic()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if self.store.is_done(cell, self._expected(cell)):
                return 0
            if (adopted := self.store.adopt(cell, self._expected(cell))) is not None:
                self.say(f"{cell.attempt} {cell.language} {cell.method} seed {cell.seed}: as {adopted}, with equal settings")
                return 1
            with without_ray():
                self._measure(cell)
        self.say(f"{cell.attempt} {cell.language} {cell.method} seed {cell.seed}: {time.monotonic() - started:.0f} s")
        return 1

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages in which the try is scored; two development languages for a small test."""
        return self.material.languages if self.small else self.protocol.languages_of(self.attempt)

    def _check_language(self, language: str) -> None:
        if language not in self.languages:
            raise ProtocolError(f"{language} is no language of the try {self.attempt!r}; it has {', '.join(self.languages)}")
        if is_evaluation(self.attempt) and not self.small:
            self.file.check_frozen()

    def _expected(self, cell: Cell) -> dict[str, Any]:
        """What a kept measurement must have been made with."""
        expected: dict[str, Any] = {"settings": self.protocol.hash_of(self.attempt, cell.method), "small": self.small}
        return expected | ({"protocol": self.file.sha256} if is_evaluation(self.attempt) else {})

    def config(self, method: str, seed: int, languages: Sequence[str]) -> RunConfig:
        """Configuration of the product for some languages and one method of the protocol."""
        chosen, material = self.protocol.settings_of(self.attempt, method), self.material
        models = {name: str(self.place.models / value) for name, value in self.protocol.models_of(self.attempt).items()}
        product = self._product(method)
        seeds = {language: material.thinning_seed(language) for language in material.languages}
        bias = bias_settings(self.protocol, self.protocol.material_of(self.attempt), 0).model_copy(update={"seed": seeds})
        tree: dict[str, Any] = {
            "languages": list(languages),
            "seed": seed,
            "pool": {
                "sources": [{"path": str(material.pool), "layout": "own"}],
                "guides": material.guides(self.place.kit),
                "tests": {"path": str(material.folder / "tests" / "{language}.parquet"), "layout": "global_mmlu"},
                "bias": bias.model_dump(mode="json"),
            },
            "embed": {"encoder": models["encoder"]},
            "select": {"methods": list(dict.fromkeys(["target", product]))},
            "train": {"base_model": models["base"]},
            "evaluate": {
                "texts": str(self.place.kit / "ntrex" / "{language}.txt.xz"),
                "text_lines": self.protocol.material_of(self.attempt).text_lines,
            },
            "serve": {"method": "target"},
            "resources": {"threads_per_worker": self.place.threads, "embed_batch_tokens": 8192},
        }
        for section, values in chosen.items():
            tree[section] = tree.get(section, {}) | values
        if self.small:
            tree["train"] |= {"tokens": SMALL_TOKENS}
            tree["cluster"] |= {"n_clusters": [6]}
            tree["evaluate"] |= {"text_lines": 2}
        return RunConfig.model_validate(tree)

    def _product(self, method: str) -> str:
        """The method of the product; the base model is scored in a run of ``target``."""
        return self.protocol.method_of(self.attempt, method).method or "target"

    def _is_shared(self, cell: Cell) -> bool:
        """Whether one adapter serves all languages."""
        return self._product(cell.method) == ALL_LANGUAGES

    def _measure(self, cell: Cell) -> None:
        run, config = self._select(cell)
        name, version, facts = ZERO_SHOT, None, dict[str, Any]()
        if cell.method != ZERO_SHOT:
            name = self._product(cell.method)
            version = version_of(config, name)
            facts = self._train(cell, config, run, version)
        evaluate.evaluate(config, run, [evaluate.Evaluation(name, cell.language, version)])
        evaluation = run.evaluation(name, cell.language)
        record = EvaluationRecord.read(evaluation)
        footer = {
            **self._expected(cell),
            "protocol": self.file.sha256,
            "cell": {"try": cell.attempt, "language": cell.language, "method": cell.method, "seed": cell.seed},
            "run": self.protocol.record_of(self.attempt, cell.method),
            "text": {"nats": record.text.nats, "bytes": record.text.bytes, "tokens": record.text.tokens} if record.text else None,
            "versions": {name: metadata.version(name) for name in ("torch", "transformers")} | {"compass_ray": __version__},
            "device": str(load_shared_base(config.train).device),
            "scoring_seconds": (evaluation.require().metrics or {}).get("seconds"),
            **facts,
        }
        scored = evaluation.read_table("items.parquet")
        self.store.write(cell, self.material.items(cell.language), scored, footer)
        if not self._is_shared(cell):
            shutil.rmtree(self._folder(cell), ignore_errors=True)

    def select(self, cell: Cell) -> dict[str, float]:
        """Select the rows of a cell; returns how its subjects come to match the guide prompts, without training."""
        with without_ray():
            run, _ = self._select(cell)
        return self._targeting(run, cell)

    def _select(self, cell: Cell) -> tuple[RunDir, RunConfig]:
        """The run directory of a cell with its selection."""
        languages = self.material.languages if self._is_shared(cell) else (cell.language,)
        shared, config = self._shared_run(cell), self.config(cell.method, cell.seed, languages)
        run = RunDir(str(self._folder(cell)))
        for language in languages:
            for name in (run.guide(language).name, run.guide_embeddings(language).name):
                _reuse(run.artifact(*name.split("/")), shared.artifact(*name.split("/")))
        for name in (run.pool.name, run.embeddings.name, run.clusters.name):
            _reuse(run.artifact(*name.split("/")), shared.artifact(*name.split("/")))
        select.run(config, run)
        return run, config

    def _folder(self, cell: Cell) -> Path:
        """A folder for each cell and its settings. All languages of the method `all` share one adapter, and so one folder."""
        owner = ALL_LANGUAGES if self._is_shared(cell) else cell.language
        key = content_hash(self.protocol.hash_of(self.attempt, cell.method), self.material.folder.name)[:8]
        return self.place.work / cell.attempt / owner / f"{cell.method}-s{cell.seed}-{key}"

    def _shared_run(self, cell: Cell) -> RunDir:
        """Pool, guide sets, embeddings and clusters of all target languages with the seed of the cell."""
        config = self.config(cell.method, cell.seed, self.material.languages)
        run, donor = (
            RunDir(str(self.place.work / f"shared-{self._shared_key(seed)}")) for seed in (cell.seed, self.protocol.seeds[0])
        )
        first = self._shared_run(replace(cell, seed=self.protocol.seeds[0])) if run.uri != donor.uri else None
        with FileLock(f"{self.place.work}/{run.uri.rpartition('/')[2]}.lock"):
            guides = [a for c in config.languages for a in (run.guide(c), run.guide_embeddings(c))]
            for artifact in (run.pool, run.embeddings, *guides) if first else ():
                _reuse(artifact, donor.artifact(*artifact.name.split("/")))
            pool.run(config, run)
            embed.run(config, run, progress=self._progress)
            fit_clusters(config, run)
        return run

    def _progress(self, stage: str, done: int, total: int) -> None:
        self.say(f"{stage} {done}/{total}")

    def _shared_key(self, seed: int) -> str:
        chosen = self.protocol.settings_of(self.attempt, ZERO_SHOT)
        parts = [
            chosen.get("embed"),
            chosen.get("cluster"),
            dict(self.protocol.models_of(self.attempt)),
            str(self.material.folder),
            *([] if self.material.guide_subjects == "all" else [self.material.guide_subjects]),
        ]
        return f"{content_hash(json.dumps([*parts, self.small], sort_keys=True))[:8]}-s{seed}"

    def _train(self, cell: Cell, config: RunConfig, run: RunDir, version: str) -> dict[str, Any]:
        """Train the adapter of a cell; returns what it cost and what was selected."""
        owner = SHARED if self._is_shared(cell) else cell.language
        train(config, run, Job(owner, self._product(cell.method), version))
        history = HistoryRecord.read(run.adapter(owner, version))
        facts = {
            "tokens": history.tokens,
            "reply_tokens": history.reply_tokens,
            "steps": history.steps,
            "rows": history.rows,
            "training_seconds": history.seconds,
        }
        targeting = {} if self._is_shared(cell) else self._targeting(run, cell)
        return facts | targeting

    def _targeting(self, run: RunDir, cell: Cell) -> dict[str, float]:
        """Divergence of the subjects of own and added rows from those of the guide prompts, in bits, and the rows added.

        Also how many added rows state, in another language, a fact that a guide prompt or an item of a thinned subject asks for.

        Raises:
            ProtocolError: the language has another number of own rows than the protocol says.
        """
        selection = run.selection(self._product(cell.method), cell.language)
        selected = selection.read_table("rows.parquet", ["row_id", "role"]).to_pylist()
        pool = run.pool.read_table("rows.parquet", ["row_id", "subject"])
        subject = dict(zip(pool["row_id"].to_pylist(), pool["subject"].to_pylist(), strict=True))
        guide = Counter(run.guide(cell.language).read_table("guide.parquet", ["subject"])["subject"].to_pylist())
        own = Counter(subject[row["row_id"]] for row in selected if row["role"] == "target")
        if own.total() != self.size.own_rows:
            raise ProtocolError(
                f"{cell.language} has {own.total()} own rows after thinning, and material.own_rows is {self.size.own_rows}; "
                f"remove the folder {self.material.folder} and run again"
            )
        every = Counter(subject[row["row_id"]] for row in selected)
        facts = read_facts(self.material, self.place.kit, cell.language)
        return {
            "own_rows": own.total(),
            "added_rows": every.total() - own.total(),
            "js_before": _divergence(guide, own),
            "js_after": _divergence(guide, every),
            **facts.count(row["row_id"] for row in selected if row["role"] != "target"),
        }


def _reuse(artifact: Artifact, donor: Artifact) -> None:
    manifest = donor.require()
    found = artifact.manifest()
    if found is None or found.fingerprint != manifest.fingerprint:
        reuse_artifact(artifact, donor, manifest)


def _divergence(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    names = sorted({*a, *b})
    return js_divergence(np.array([a.get(n, 0) for n in names]), np.array([b.get(n, 0) for n in names]))
