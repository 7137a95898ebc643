"""DoRA training and option scoring of Gemma 3 270M on real rows, in tokens per second on two threads.

`AdapterTrainer` in float32, bfloat16, and bfloat16 with packed rows, against PEFT's DoRA and LoRA in bfloat16, each in a plain
loop and with transformers' Trainer. All train on the same rows in batches of the same size, with a loss on replies only. The
bound is the rate of bare matrix products of the same shapes, forward and backward. The profile shows where the rest goes.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.speed.training import model_loss, peft_epoch, with_peft
from compass_ray.adapters.dora import find_target_layers
from compass_ray.config import AdapterConfig, TrainConfig
from compass_ray.models.base_model import BaseModel, load_base
from compass_ray.models.chat_template import EncodedExample, encode_example, encode_rows
from compass_ray.models.scorer import score_items
from compass_ray.training.adapter_trainer import AdapterTrainer, TrainingRow
from compass_ray.training.losses import compute_row_losses

SEED, THREADS, BATCH = 0, 2, 16
MODELS, DATA = "COMPASS_REAL_MODELS", "COMPASS_SHARED_DATA"
_LENGTHS = range(40, 81)
"""Tokens of a row, so that the mean is about 58."""
_LANGUAGES = ("id", "ja", "hi")
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "products": ("mm", "addmm", "bmm", "linear", "matmul", "mkldnn"),
    "attention": ("scaled_dot_product", "flash"),
    "conversions": ("copy_", "_to_copy", "clone", "cat", "contiguous"),
    "loss": ("logsumexp", "softmax", "gather", "scatter", "exp"),
    "optimizer": ("_foreach", "adam", "norm"),
}
"""Kinds of operations in the profile, by a part of their names; the first match counts."""


@dataclass(frozen=True)
class Work:
    """The rows of a benchmark."""

    rows: Sequence[TrainingRow]
    examples: Sequence[EncodedExample]

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(map(len, self.examples))

    @property
    def labels(self) -> int:
        """Tokens with a loss."""
        return self.tokens - sum(example.prompt_length for example in self.examples)

    def first(self, count: int) -> Work:
        """The first rows."""
        return Work(self.rows[:count], self.examples[:count])


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--rows", type=int, default=96, help="rows that `AdapterTrainer` trains (default: 96)")
    options.add_argument("--compared", type=int, default=32, help="rows that the slower alternatives train (default: 32)")
    arguments = options.parse_args(argv)
    count, compared, items = (8, 4, 3) if arguments.small else (arguments.rows, arguments.compared, 48)
    torch.set_num_threads(THREADS)
    bases = {dtype: load_base(_config(dtype), device="cpu") for dtype in ("float32", "bfloat16")}
    work = _read_rows(bases["bfloat16"], count)
    numbers: dict[str, Value] = {"tokens": work.tokens, "labels": work.labels}
    bare = _bare_products(bases["bfloat16"], work)
    numbers |= {f"bare_{dtype}_products_tokens_per_second": rate for dtype, rate in bare.items()}
    numbers |= _train_ours(bases, work, bare)
    numbers |= _train_others(bases["bfloat16"], work.first(compared))
    numbers |= _score(bases["bfloat16"], items)
    settings: dict[str, Value] = {
        "model": "gemma-3-270m",
        "rank": 16,
        "batch_size": BATCH,
        "rows": count,
        "rows_compared": compared,
    }
    return write_record(
        "speed/real_training", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv, threads=THREADS
    )


def _config(dtype: Literal["float32", "bfloat16"], **changes: Any) -> TrainConfig:
    model = Path(os.environ[MODELS]) / "gemma-3-270m"
    return TrainConfig(base_model=str(model), dtype=dtype, epochs=1, holdout=0.0, max_tokens=256, batch_size=BATCH, **changes)


def _read_rows(base: BaseModel, count: int) -> Work:
    """Rows of the pool of three languages with 40 to 80 tokens, evenly spaced."""
    folder = Path(os.environ[DATA])
    files = sorted((folder / "aya_dataset").rglob("train*.parquet"))
    table = pq.read_table(files[0], columns=["inputs", "targets"]).to_pylist()
    found: list[TrainingRow] = []
    for index in np.random.default_rng(SEED).permutation(len(table)):
        row = TrainingRow(table[index]["inputs"], table[index]["targets"])
        if len(encode_rows(base.tokenizer, [row], 256)[0]) in _LENGTHS:
            found.append(row)
        if len(found) == count:
            break
    return Work(found, encode_rows(base.tokenizer, found, 256))


def _bare_products(base: BaseModel, work: Work) -> dict[str, float]:
    """Tokens per second of the frozen products alone, forward and with respect to the inputs, by dtype."""
    tokens, labels = work.tokens * BATCH // len(work.rows), max(work.labels * BATCH // len(work.rows), 1)
    layers = Counter(_product_shapes(base))
    head = base.model.get_output_embeddings()
    shapes = [(tokens, *shape, count) for shape, count in layers.items()] + [(labels, head.in_features, head.out_features, 1)]
    rates = {}
    for name, dtype in {"float32": torch.float32, "bfloat16": torch.bfloat16}.items():
        rates[name] = tokens / sum(count * _product_seconds(m, k, n, dtype) for m, k, n, count in shapes)
    return rates


def _product_shapes(base: BaseModel) -> list[tuple[int, int]]:
    layers = find_target_layers(base.model, AdapterConfig().target_modules).values()
    return [(layer.in_features, layer.out_features) for layer in layers]


def _product_seconds(m: int, k: int, n: int, dtype: torch.dtype) -> float:
    """Seconds of x W^T and of its gradient g W: the best of three."""
    x, weight, gradient = (torch.full(shape, 0.5, dtype=dtype) for shape in ((m, k), (n, k), (m, n)))
    return min(_seconds(lambda: (x @ weight.T, gradient @ weight)) for _ in range(3))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _train_ours(bases: Mapping[str, BaseModel], work: Work, bare: Mapping[str, float]) -> dict[str, Value]:
    numbers: dict[str, Value] = {}
    ways: tuple[tuple[Literal["float32", "bfloat16"], Literal["padded", "packed"]], ...] = (
        ("float32", "padded"),
        ("bfloat16", "padded"),
        ("bfloat16", "packed"),
    )
    for dtype, batches in ways:
        compute_row_losses(bases[dtype], work.examples[:1])  # the head is compared once for each model
        with AdapterTrainer(bases[dtype], work.rows, [], None, _config(dtype, batches=batches), seed=SEED) as trainer:
            name = f"compass_dora_{dtype}_{batches}"
            rate = work.tokens / _seconds(trainer.run)
            numbers |= {f"{name}_tokens_per_second": rate, f"{name}_share_of_bare_products": rate / bare[dtype]}
    return numbers | _profile(bases["bfloat16"], work.first(BATCH))


def _profile(base: BaseModel, work: Work) -> dict[str, Value]:
    """Shares of the processor's time by kind of operation, in one step with packed rows."""
    with (
        AdapterTrainer(base, work.rows, [], None, _config("bfloat16", batches="packed"), seed=SEED) as trainer,
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile,
    ):
        trainer.run()
    taken: Counter[str] = Counter()
    for event in profile.key_averages():
        kind = next((kind for kind, parts in _GROUPS.items() if any(part in event.key for part in parts)), "elementwise and rest")
        taken[kind] += event.self_cpu_time_total
    return {"profile_shares": {kind: value / taken.total() for kind, value in taken.most_common()}}


def _train_others(base: BaseModel, work: Work) -> dict[str, Value]:
    numbers: dict[str, Value] = {}
    kinds: tuple[Literal["dora", "lora"], ...] = ("dora", "lora")
    for kind in kinds:
        loop, trainer = _peft_seconds(base, kind, work)
        numbers[f"peft_{kind}_bfloat16_loop_tokens_per_second"] = work.tokens / loop
        numbers[f"peft_{kind}_bfloat16_trainer_tokens_per_second"] = work.tokens / trainer
    return numbers


def _peft_seconds(base: BaseModel, kind: Literal["dora", "lora"], work: Work) -> tuple[float, float]:
    """Seconds of an epoch in a plain loop, and with transformers' Trainer."""
    model, config = with_peft(base, AdapterConfig(kind=kind)), _config("bfloat16")
    loop = _seconds(lambda: peft_epoch(base, model, work.examples, config, model_loss))
    return loop, _hf_trainer_seconds(base, model, work, config)


def _hf_trainer_seconds(base: BaseModel, model: Any, work: Work, config: TrainConfig) -> float:
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    data = [{"input_ids": list(each.input_ids), "labels": list(each.labels)} for each in work.examples]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=config.batch_size,
            num_train_epochs=1,
            learning_rate=config.learning_rate,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            seed=SEED,
        )
        collator = DataCollatorForSeq2Seq(base.tokenizer, padding=True)
        return _seconds(Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator).train)


def _score(base: BaseModel, count: int) -> dict[str, Value]:
    """Options of real questions as replies; tokens count a question once and each option."""
    questions, options = _read_items(count)
    settings: dict[str, Any] = {"scoring": "option", "batch_size": 32, "max_tokens": 512}
    seconds = _seconds(lambda: score_items(base, questions, options, **settings))
    pairs = list(zip(questions, options, strict=True))
    encoded = [[encode_example(base.tokenizer, question, option, 512) for option in each] for question, each in pairs]
    tokens = sum(row[0].prompt_length + sum(len(e) - e.prompt_length for e in row) for row in encoded)
    plain = _seconds(lambda: [_plain_scores(base, row) for row in encoded[: max(count // 4, 1)]]) * count / max(count // 4, 1)
    return {"scored_tokens": tokens, "scoring_tokens_per_second": tokens / seconds, "scoring_plain_over_compass": plain / seconds}


def _read_items(count: int) -> tuple[list[str], list[list[str]]]:
    questions, options = [], []
    for language in _LANGUAGES:
        [file] = sorted((Path(os.environ[DATA]) / "global_mmlu" / language).rglob("test*.parquet"))
        for row in pq.read_table(file).slice(0, -(-count // len(_LANGUAGES))).to_pylist():
            questions.append(str(row["question"]))
            options.append([str(row[f"option_{letter}"]) for letter in "abcd"])
    return questions[:count], options[:count]


@torch.inference_mode()
def _plain_scores(base: BaseModel, examples: Sequence[EncodedExample]) -> list[float]:
    """As a user's loop: one pass for each option, with all logits."""
    scores = []
    for example in examples:
        ids = torch.tensor([example.input_ids])
        log_probs = base.model(ids).logits[0, example.prompt_length - 1 : -1].float().log_softmax(-1)
        scores.append(float(log_probs.gather(1, ids[0, example.prompt_length :, None]).mean()))
    return scores


if __name__ == "__main__":
    main()
