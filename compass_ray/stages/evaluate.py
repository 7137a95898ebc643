"""Stage: score the test items of every language under every method (COMPASS, sections 4.1 and 5).

Key property: the log-probabilities and lengths of every option are stored, so any measure can be recomputed and paired by
item. Each actor loads the base model once and attaches adapters to it in turn. A fully fine-tuned model replaces the base while
it is scored.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from compass_ray import ray_session, schemas
from compass_ray.adapters.method_model import find_model_artifact, open_method_model
from compass_ray.artifacts import (
    Identity,
    LanguagesFailedError,
    Manifest,
    RunDir,
    content_hash,
    version_of,
)
from compass_ray.config import RunConfig
from compass_ray.core.choice_measures import bits_per_byte, perplexity
from compass_ray.core.families import family_of
from compass_ray.models.memory_watch import find_kill, forget_kill
from compass_ray.models.model_resolver import model_identity
from compass_ray.models.multiple_choice_prompts import LETTERS, Scoring
from compass_ray.progress import Progress, silent
from compass_ray.records.allocation import AllocationRecord
from compass_ray.records.evaluations import EvaluationRecord, TextRecord
from compass_ray.sources.text_files import read_lines

if TYPE_CHECKING:
    from compass_ray.models.base_model import BaseModel
    from compass_ray.models.scorer import OptionScores

ZERO_SHOT = "zero_shot"


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: its name in the run, the language, and the adapter version (None is the base model)."""

    name: str
    language: str
    version: str | None


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``evaluations/<method>/<language>`` for zero-shot and every method."""
    served = {m: version_of(config, m) for m in config.select.methods}
    wanted = [Evaluation(n, c, v) for c in config.languages for n, v in ({ZERO_SHOT: None} | served).items()]
    return evaluate(config, run, wanted, force=force, progress=progress)


def evaluate(
    config: RunConfig,
    run: RunDir,
    wanted: list[Evaluation],
    *,
    force: bool = False,
    progress: Progress = silent,
) -> list[Manifest]:
    """Make the missing evaluations, several at the same time, on actors that keep the base model loaded.

    Raises:
        LanguagesFailedError: some languages failed; the artifacts of the others are complete.
    """
    pending = [e for e in wanted if not run.evaluation(e.name, e.language).find_complete(_identity(config, run, e), force=force)]
    if pending:
        problems = _score(config, run, pending, progress, len(wanted))
        failed = [e for e in pending if not run.evaluation(e.name, e.language).manifest()]
        if failed:
            raise LanguagesFailedError(_explain_failures(run, failed, problems))
    return [run.evaluation(e.name, e.language).require() for e in wanted]


def _explain_failures(run: RunDir, failed: list[Evaluation], problems: list[str]) -> dict[str, str]:
    """The reason for each language: the killed worker of its evaluation, or else every problem."""
    reasons: dict[str, str] = {}
    for evaluation in failed:
        killed = find_kill(run.evaluation(evaluation.name, evaluation.language))
        reasons.setdefault(evaluation.language, f"evaluation: {killed or '; '.join(problems)}")
    return reasons


def _identity(config: RunConfig, run: RunDir, evaluation: Evaluation) -> Identity:
    guide = run.guide(evaluation.language)
    inputs = {guide.name: guide.require().fingerprint}
    if (trained := find_model_artifact(run, evaluation.name, evaluation.language, evaluation.version)) is not None:
        inputs[trained.name] = trained.require().fingerprint
    settings = {
        "scoring": config.evaluate.scoring,
        "max_tokens": config.train.max_tokens,
        "base_model": model_identity(config.train.base_model, config.train.revision),
        "dtype": config.train.dtype,
    }
    if (lines := read_texts(config, evaluation.language)) is not None:
        settings["texts"] = content_hash(*lines)
    return Identity("evaluate", settings, inputs)


def read_texts(config: RunConfig, language: str) -> list[str] | None:
    """The lines of plain text to score in a language; None if no text is set.

    Raises:
        ConfigError: the file of the language cannot be read.
    """
    if config.evaluate.texts is None:
        return None
    return read_lines(config.evaluate.texts.replace("{language}", language), config.evaluate.text_lines)


def _score(config: RunConfig, run: RunDir, pending: list[Evaluation], progress: Progress, total: int) -> list[str]:
    """Score on as many actors as the cluster can hold; return the error messages."""
    ray_session.start(config.resources)
    import ray

    pool = ray_session.open_actor_pool(Scorer, config.resources, len(pending), run.uri, config.model_dump(mode="json"))
    for evaluation in pending:  # sorted by language, so items of one language are read together
        forget_kill(run.evaluation(evaluation.name, evaluation.language))
        texts = read_texts(config, evaluation.language)
        identity = _identity(config, run, evaluation)
        pool.submit(lambda actor, call: actor.score.remote(*call), (evaluation, identity, texts))
    problems: dict[str, None] = {}
    done = total - len(pending)
    while pool.has_next():
        try:
            pool.get_next_unordered()
        except ray.exceptions.RayError as error:
            problems[ray_session.user_message(error)] = None
        done += 1
        progress("evaluate", done, total)
    return list(problems)


class Scorer:
    """Ray actor: holds the base model and makes one evaluation at a time."""

    def __init__(self, uri: str, settings: Mapping[str, Any]) -> None:
        """Load the base model of a run."""
        import torch

        from compass_ray.models.base_model import load_base

        self.run, self.config = RunDir(uri), RunConfig.model_validate(settings)
        torch.set_num_threads(self.config.resources.threads_per_worker)
        self.base = load_base(self.config.train)

    def score(self, evaluation: Evaluation, identity: Identity, texts: list[str] | None = None) -> None:
        """Score one test set, and the lines of ``texts`` if they are given, and publish the results."""
        from compass_ray.models.devices import device_name
        from compass_ray.models.memory_watch import watch_memory
        from compass_ray.models.token_memory import choose_scoring_batch

        started = time.monotonic()
        items = self.run.guide(evaluation.language).read_table("test.parquet")
        artifact = self.run.evaluation(evaluation.name, evaluation.language)
        tokens = choose_scoring_batch(self.config.evaluate, self.config.resources, self.base)
        with watch_memory(artifact, "evaluate.batch_tokens", tokens):
            scores, text = self._scores(evaluation, items, texts, tokens)
        low = self._low_subjects(evaluation)
        scored = build_scored_table(items, scores, self.config.evaluate.scoring, low)
        writer = artifact.begin(identity)
        writer.write_table("items.parquet", scored)
        results = _results(evaluation, scored, text, low or ())
        results.write(writer)
        metrics = {
            "accuracy": results.accuracy,
            "chance": results.chance,
            "items": results.items,
            "seconds": round(time.monotonic() - started, 2),
        }
        writer.publish(metrics, host_cpus=os.cpu_count(), device=device_name(self.base.device))

    def _scores(
        self, evaluation: Evaluation, items: pa.Table, texts: list[str] | None, batch_tokens: int
    ) -> tuple[OptionScores, TextRecord | None]:
        """The scores of the options, and of the texts if they are given, with the model loaded once."""
        from compass_ray.models.scorer import score_options

        with self._model(evaluation) as model:
            scores = score_options(
                model,
                items["question"].to_pylist(),
                items["options"].to_pylist(),
                scoring=self.config.evaluate.scoring,
                batch_size=self.config.evaluate.batch_size,
                batch_tokens=batch_tokens,
                max_tokens=self.config.train.max_tokens,
            )
            return scores, measure_texts(model, texts, self.config.train.max_tokens, batch_tokens) if texts else None

    def _model(self, evaluation: Evaluation) -> AbstractContextManager[BaseModel]:
        """The base model, the base model with the adapter attached, or the fully fine-tuned model."""
        trained = find_model_artifact(self.run, evaluation.name, evaluation.language, evaluation.version)
        return open_method_model(self.base, self.config.train, evaluation.name, trained)

    def _low_subjects(self, evaluation: Evaluation) -> tuple[str, ...] | None:
        """Subjects that the bias simulation thinned in the language's training data; None for the base model.

        The base model has no training data, so its evaluation is reused after a change of the bias.
        """
        if evaluation.version is None:
            return None
        return AllocationRecord.read(self.run.selection(self.config.serve.method, evaluation.language)).low_subjects


def build_scored_table(items: pa.Table, scores: OptionScores, scoring: Scoring, low_subjects: Collection[str] | None) -> pa.Table:
    """Items with their scores (schemas.SCORED).

    Args:
        items: the test set (schemas.ITEMS); a table of a former version may lack ``sample_id`` and ``family``.
        scores: the scores of its options, in the same order.
        scoring: how they were scored. The reply to a letter question is the letter, of one character and one byte.
        low_subjects: subjects that the bias simulation thinned; None leaves ``thinned`` null.
    """
    options, subjects = items["options"].to_pylist(), items["subject"].to_pylist()
    texts = [list(LETTERS[: len(each)]) for each in options] if scoring == "letter" else options
    counts, rows = [len(each) for each in options], range(items.num_rows)
    columns = {
        "item_id": items["item_id"],
        "subject": items["subject"],
        "answer": items["answer"],
        "predicted": scores.means.argmax(axis=1),
        "log_probs": scores.means.tolist(),
        "sample_id": items["sample_id"] if "sample_id" in items.column_names else [None] * items.num_rows,
        "family": items["family"] if "family" in items.column_names else [family_of(subject) for subject in subjects],
        "thinned": [None if low_subjects is None else subject in low_subjects for subject in subjects],
        "log_prob_sums": [scores.sums[i, : counts[i]].tolist() for i in rows],
        "end_log_probs": [[None if math.isnan(end) else end for end in scores.ends[i, : counts[i]].tolist()] for i in rows],
        "tokens": [scores.tokens[i, : counts[i]].tolist() for i in rows],
        "characters": [[len(text) for text in each] for each in texts],
        "bytes": [[len(text.encode()) for text in each] for each in texts],
        "truncated": scores.truncated,
    }
    return pa.table(columns, schema=schemas.SCORED)


def measure_texts(model: BaseModel, lines: list[str], max_tokens: int, batch_tokens: int) -> TextRecord:
    """Bits per byte and perplexity of lines of text."""
    from compass_ray.models.text_scorer import score_text

    found = score_text(model, lines, max_tokens=max_tokens, batch_tokens=batch_tokens)
    return TextRecord(
        bits_per_byte=bits_per_byte(found.nats, found.bytes),
        perplexity=perplexity(found.nats, found.tokens),
        nats=found.nats,
        lines=len(lines),
        tokens=found.tokens,
        characters=found.characters,
        bytes=found.bytes,
    )


def _results(
    evaluation: Evaluation, scored: pa.Table, text: TextRecord | None, low_subjects: tuple[str, ...]
) -> EvaluationRecord:
    right = scored["predicted"].to_numpy() == scored["answer"].to_numpy()
    return EvaluationRecord(
        language=evaluation.language,
        method=evaluation.name,
        version=evaluation.version,
        items=scored.num_rows,
        accuracy=float(right.mean()),
        chance=float(np.mean([1 / len(each) for each in scored["bytes"].to_pylist()])),
        text=text,
        low_subjects=low_subjects,
    )
