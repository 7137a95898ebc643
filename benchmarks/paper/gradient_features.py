"""Selection by gradients (LESS, arXiv 2402.04333) beside selection by embeddings, over true subjects, in one language.

A feature is the gradient of a LoRA adapter for one row, after a short training on random rows, in a random projection: count
sketch, which keeps inner products in the mean. As in LESS, gradients of pool rows are preconditioned by Adam's moments, and those
of guide prompts are not. Unlike every other method, LESS reads the right option of a guide prompt. It is a yardstick, not a
method of the package.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.paper.clusters_on_real_embeddings import (
    GUIDE_OPTIONS,
    RULES,
    Case,
    Embedded,
    Float32,
    cluster_by_product,
    embed_sample,
    make_case,
    random_rows,
    round_robin,
    select,
    summarize_bits,
)
from benchmarks.paper.kit_sample import KitSample, SampleSize, Texts, read_atlas, read_kit
from benchmarks.record import Record, Value, parser, without_cache, write_record
from benchmarks.timing import single_thread
from compass_ray.config import EmbedConfig
from compass_ray.core.array_checks import IntArray, unit_rows
from compass_ray.core.seeds import generator
from compass_ray.models.chat_template import IGNORE_INDEX, EncodedExample, TrainingRow, encode_rows

RANK, RATE, BETAS, EPSILON = 8, 3e-4, (0.9, 0.999), 1e-8
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DIMENSIONS = 4_096
CLUSTERS = 48
MAX_TOKENS = 128
_BLOCK = 128
"""Rows between two writes of the cache."""


class GradientFeatures:
    """A base model with a LoRA adapter, and the projected gradients of single rows."""

    def __init__(self, folder: str, warmup: Sequence[TrainingRow]) -> None:
        """Load the model in bfloat16, and train the adapter on ``warmup`` for one epoch, one row each step."""
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.manual_seed(0)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LAYERS, task_type="CAUSAL_LM")
        self.model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16), lora)
        self.factors = [each for each in self.model.parameters() if each.requires_grad]
        size = sum(each.numel() for each in self.factors)
        random = torch.Generator().manual_seed(1)
        self.bucket = torch.randint(DIMENSIONS, (size,), generator=random)
        self.sign = torch.randint(2, (size,), generator=random).float() * 2 - 1
        self._warm_up(warmup)

    def _warm_up(self, rows: Sequence[TrainingRow]) -> None:
        optimizer = torch.optim.Adam(self.factors, RATE, BETAS, EPSILON)
        for example in self._encode(rows):
            self._backward(example)
            optimizer.step()
        self.steps = len(rows) + 1
        self.mean, self.square = (
            torch.cat([optimizer.state[each][name].flatten() for each in self.factors]) for name in ("exp_avg", "exp_avg_sq")
        )

    def of_training_row(self, row: TrainingRow) -> Float32:
        """The projected direction float32[DIMENSIONS] of Adam's next step on a row."""
        gradient = self._gradient(row)
        mean = (BETAS[0] * self.mean + (1 - BETAS[0]) * gradient) / (1 - BETAS[0] ** self.steps)
        square = (BETAS[1] * self.square + (1 - BETAS[1]) * gradient**2) / (1 - BETAS[1] ** self.steps)
        return self._project(mean / (square.sqrt() + EPSILON))

    def of_guide_prompt(self, row: TrainingRow) -> Float32:
        """The projected gradient float32[DIMENSIONS] of a guide prompt with its right option."""
        return self._project(self._gradient(row))

    def _gradient(self, row: TrainingRow) -> Tensor:
        [example] = self._encode([row])
        self._backward(example)
        return torch.cat([each.grad.flatten() for each in self.factors])

    def _encode(self, rows: Sequence[TrainingRow]) -> list[EncodedExample]:
        return encode_rows(self.tokenizer, rows, MAX_TOKENS)

    def _backward(self, example: EncodedExample) -> None:
        """Gradients of the mean loss of the reply's tokens. The head sees their positions alone."""
        self.model.zero_grad()
        labels = torch.tensor(example.labels[1:])
        at, whole = labels != IGNORE_INDEX, self.model.get_base_model()
        states = whole.model(torch.tensor([example.input_ids])).last_hidden_state[0, :-1]
        loss = torch.nn.functional.cross_entropy(whole.lm_head(states[at]).float(), labels[at])
        torch.autograd.backward(loss)

    def _project(self, vector: Tensor) -> Float32:
        projected = torch.zeros(DIMENSIONS).index_add_(0, self.bucket, self.sign * vector)
        return np.asarray(projected.numpy(), np.float32)


@dataclass(frozen=True)
class Yardstick:
    """The sample with gradients in place of embeddings; `select_by_influence` is LESS's own rule."""

    data: Embedded

    def select_by_influence(self, case: Case) -> IntArray:
        """The rows with the highest cosine to a guide prompt's gradient: each guide prompt is a task of its own."""
        influence = (self.data.pool[case.others] @ self.data.guides[case.guide].T).max(1)
        rows: IntArray = case.others[np.argsort(-influence, kind="stable")[: case.budget]]
        return rows

    def select_by_mean_influence(self, case: Case) -> IntArray:
        """The rows with the highest cosine to the mean of the guide prompts' gradients: all are one task."""
        influence = self.data.pool[case.others] @ self.data.guides[case.guide].mean(0)
        rows: IntArray = case.others[np.argsort(-influence, kind="stable")[: case.budget]]
        return rows


def gradient_data(sample: KitSample, folder: str, warmup_rows: int, cache: Path | None) -> Embedded:
    """The sample with its gradients; those in ``cache`` are not computed again."""
    pool, guides = _rows(sample.pool), _rows(sample.guides)
    chosen = generator(0, "warmup").permutation(len(pool))[:warmup_rows]
    file = cache / f"gradients_{Path(folder).name}_{warmup_rows}_{_hash(pool, guides)}.npy" if cache else None
    done = list(np.load(file)) if file and file.exists() else []
    if len(done) < len(pool) + len(guides):
        features = GradientFeatures(folder, [pool[i] for i in chosen])
        for block in _blocks(features, [*pool, *guides], len(pool), len(done)):
            done += block
            if file:
                np.save(file, np.stack(done))
    vectors = unit_rows(np.stack(done))
    return Embedded(sample, vectors[: len(pool)], vectors[len(pool) :])


def _blocks(features: GradientFeatures, rows: Sequence[TrainingRow], pool: int, start: int) -> Iterator[list[Float32]]:
    for first in range(start, len(rows), _BLOCK):
        numbers = range(first, min(first + _BLOCK, len(rows)))
        yield [features.of_training_row(rows[i]) if i < pool else features.of_guide_prompt(rows[i]) for i in numbers]


def _hash(pool: Sequence[TrainingRow], guides: Sequence[TrainingRow]) -> str:
    """Hash of the rows that the gradients are of, in their order."""
    content = json.dumps([[astuple(row) for row in rows] for rows in (pool, guides)])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _rows(texts: Texts) -> list[TrainingRow]:
    prompts = [long or short for long, short in zip(texts.with_options, texts.prompts, strict=True)]
    return [TrainingRow(prompt, response) for prompt, response in zip(prompts, texts.responses, strict=True)]


def measure(embedded: Embedded, gradients: Embedded, cases: Sequence[Case], clusters: int) -> Mapping[str, Value]:
    """Bits over true subjects of selections by embeddings and by gradients."""
    before, floor = [case.bits(np.zeros(0, np.int64)) for case in cases], [case.floor() for case in cases]
    mixed, yardstick = embedded.mix_options(GUIDE_OPTIONS), Yardstick(gradients)
    rows = {
        "before": [np.zeros(0, np.int64) for _ in cases],
        "random": [random_rows(case) for case in cases],
        "round_robin, embeddings": [round_robin(case, embedded) for case in cases],
        "round_robin, embeddings with options": [round_robin(case, mixed) for case in cases],
        "compass, embeddings": _compass(cases, embedded, clusters),
        "compass, embeddings with options": _compass(cases, mixed, clusters),
        "less": [yardstick.select_by_influence(case) for case in cases],
        "less, guide set as one task": [yardstick.select_by_mean_influence(case) for case in cases],
        "round_robin, gradients": [round_robin(case, gradients) for case in cases],
        "compass, gradients": _compass(cases, gradients, clusters),
    }
    bits = {name: [case.bits(added) for case, added in zip(cases, chosen, strict=True)] for name, chosen in rows.items()}
    return {name: summarize_bits(cases, values, before, floor) for name, values in (bits | {"floor": floor}).items()}


def _compass(cases: Sequence[Case], data: Embedded, clusters: int) -> list[IntArray]:
    fitted = cluster_by_product(method="kmeans", n_clusters=(clusters,), pca_dims=15, whiten=True)(data)
    labels = fitted.label(data.guides)
    return [select(case, data, labels, RULES["deficit_nearest"]) for case in cases]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--cache", type=Path, help="folder for vectors and gradients, so that a repetition computes none")
    options.add_argument("--language", default="id")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--own-rows", type=int, default=200)
    options.add_argument("--other-rows", type=int, default=900)
    options.add_argument("--rows", nargs=2, type=int, default=[280, 24], metavar=("TARGET", "OTHER"))
    options.add_argument("--warmup-rows", type=int, default=64)
    return options.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Record:
    """Measure, and write the record."""
    with single_thread():
        return _run(_arguments(argv), argv)


def _run(arguments: argparse.Namespace, argv: Sequence[str] | None) -> Record:
    if arguments.small:
        from compass_ray.models.model_resolver import resolve_model

        arguments.own_rows, arguments.other_rows, arguments.seeds, arguments.warmup_rows = 20, 60, [0], 4
        sample, clusters, base = _first(read_atlas(), 100, 20), 12, resolve_model("atlas", "base_model")
        config = EmbedConfig(encoder="atlas")
    else:
        models = Path(os.environ["COMPASS_REAL_MODELS"])
        kit = Path(os.environ["COMPASS_SHARED_DATA"])
        of_target, of_other = arguments.rows
        sample, clusters = read_kit(kit, [arguments.language], SampleSize(of_target, of_other, 0)), CLUSTERS
        base, encoder = str(models / "gemma-3-270m"), str(models / "e5-small")
        config = EmbedConfig(encoder=encoder, prompt_prefix="query: ", max_tokens=MAX_TOKENS, dtype="bfloat16")
    embedded = embed_sample(sample, config, arguments.cache)
    gradients = gradient_data(sample, base, arguments.warmup_rows, arguments.cache)
    language = sample.guides.languages[0]
    cases = [make_case(embedded, language, seed, arguments.own_rows, arguments.other_rows) for seed in arguments.seeds]
    settings: dict[str, Value] = {
        "language": language,
        "pool_rows": len(sample.pool),
        "guide_prompts": len(sample.guides),
        "own_rows": arguments.own_rows,
        "other_rows": arguments.other_rows,
        "rank": RANK,
        "projected_dimensions": DIMENSIONS,
        "warmup_rows": arguments.warmup_rows,
        "clusters": clusters,
    }
    numbers = {"targeting": measure(embedded, gradients, cases, clusters)}
    name, words = "paper/gradient_features", without_cache(argv)
    return write_record(name, arguments, seeds=arguments.seeds, settings=settings, numbers=numbers, argv=words)


def _first(sample: KitSample, pool: int, guides: int) -> KitSample:
    """Every few rows of the pool, and the first guide prompts."""
    step = max(len(sample.pool) // pool, 1)
    columns = [getattr(sample.pool, name)[::step] for name in Texts.__dataclass_fields__]
    first = [getattr(sample.guides, name)[:guides] for name in Texts.__dataclass_fields__]
    return replace(sample, pool=Texts(*columns), guides=Texts(*first))


if __name__ == "__main__":
    main()
