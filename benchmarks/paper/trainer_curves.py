"""Loss curves of our trainer beside those of PEFT with the Trainer of transformers, on the same rows of two languages.

Both train a DoRA adapter on Gemma 3 270M in float32: equal initial factors, rows, batches, order, learning rates, decay and
clipping. Each language has its own rows (target), and its own and added rows (COMPASS). The loss of held-out rows is measured
before and after. Nothing of our trainer runs inside the other.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler

from benchmarks.record import RESULTS, Record, Value, parser, without_run, write_record
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig, TrainConfig, load_run_config
from compass_ray.models.base_model import BaseModel, load_base
from compass_ray.models.chat_template import IGNORE_INDEX, EncodedExample, TrainingRow, encode_rows
from compass_ray.models.model_resolver import resolve_model
from compass_ray.report.style import METHOD_STYLES, MUTED, add_legend_below, new_figure, to_png, with_style
from compass_ray.training.adapter_job import load_training_set
from compass_ray.training.adapter_trainer import AdapterTrainer
from compass_ray.training.collate import batch_by_length

LANGUAGES = ("id", "ja")
METHODS = ("target", "compass")
ROWS, HELD_OUT, BATCH, MAX_TOKENS = 64, 16, 4, 48
POOL = (
    "pool.sources.0.rows_per_language=60",
    "pool.languages=[id, hi, ja, ms, zh]",
    "cluster.n_clusters=[24, 32]",
    "evaluate.items_per_language=16",
)
"""A small pool: its selections supply the rows, and their quality is not measured."""


@dataclass(frozen=True)
class Curve:
    """Loss of each step (nats per token), and of the held-out rows (mean over rows) before and after training."""

    steps: list[float]
    before: float
    after: float
    adapter: dict[str, Tensor]
    """The trained adapter by PEFT's names."""


def train_ours(base: BaseModel, rows: Sequence[TrainingRow], held: Sequence[TrainingRow], config: TrainConfig) -> Curve:
    """One epoch of our trainer."""
    with AdapterTrainer(base, rows, held, None, config, seed=0) as trainer:
        before = trainer.validation_loss() or 0.0
        result = trainer.run()
        adapter = trainer.adapter.to_peft(trainer.adapter.tensors())
        return Curve(list(trainer.last_epoch_steps.losses), before, result.history[-1].validation_loss or 0.0, adapter)


def initial_adapter(base: BaseModel, rows: Sequence[TrainingRow], config: TrainConfig) -> dict[str, Tensor]:
    """The adapter that our trainer starts from, by PEFT's names."""
    with AdapterTrainer(base, rows, (), None, config, seed=0) as trainer:
        return trainer.adapter.to_peft(trainer.adapter.tensors())


def train_reference(
    rows: Sequence[TrainingRow],
    held: Sequence[TrainingRow],
    config: TrainConfig,
    initial: Mapping[str, Tensor],
) -> Curve:
    """One epoch of PEFT and transformers' Trainer on the same rows in the same order, from the same factors."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

    path, shape = resolve_model(config.base_model, "base_model"), config.adapter
    tokenizer = AutoTokenizer.from_pretrained(path)
    lora = LoraConfig(
        r=shape.r, lora_alpha=shape.alpha, target_modules=list(shape.target_modules), use_dora=True, task_type="CAUSAL_LM"
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), lora)
    set_peft_model_state_dict(model, dict(initial))
    examples, held_out = encode_rows(tokenizer, rows, config.max_tokens), encode_rows(tokenizer, held, config.max_tokens)
    batches = batch_by_length([len(each) for each in examples], config.batch_size, np.random.default_rng((0, 0)))
    ordered = [{"input_ids": examples[i].input_ids, "labels": examples[i].labels} for batch in batches for i in batch]
    before = held_out_loss(model, held_out)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=config.batch_size,
            max_grad_norm=config.clip_norm,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
        )
        trainer = _reference_trainer(model, arguments, ordered, _optimizers(model, config, len(batches)), tokenizer.pad_token_id)
        trainer.train()
    adapter = {name: tensor.detach().float().cpu() for name, tensor in get_peft_model_state_dict(model).items()}
    return Curve(trainer.step_losses, before, held_out_loss(model, held_out), adapter)


def _reference_trainer(model: Any, arguments: Any, ordered: list[Any], optimizers: Any, pad: int) -> Any:
    from transformers import Trainer

    class OrderedTrainer(Trainer):  # type: ignore[misc]
        """Keeps the order of the rows, and the loss of each step without rounding."""

        step_losses: list[float]

        def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
            return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            self.step_losses.append(float(loss.detach()))
            return loss

    trainer = OrderedTrainer(
        model=model,
        args=arguments,
        train_dataset=ordered,
        data_collator=lambda each: _collate(each, pad),
        optimizers=optimizers,
    )
    trainer.step_losses = []
    return trainer


def _optimizers(model: Any, config: TrainConfig, steps: int) -> tuple[Any, Any]:
    """AdamW that decays the factors only, and a linear warm-up followed by half a cosine."""
    named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    groups = [
        {"params": [each for name, each in named if "magnitude" not in name], "weight_decay": config.weight_decay},
        {"params": [each for name, each in named if "magnitude" in name], "weight_decay": 0.0},
    ]
    warmup = round(steps * config.warmup_ratio)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _collate(rows: Sequence[Mapping[str, Sequence[int]]], pad: int) -> dict[str, Tensor]:
    width = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, fill: int) -> Tensor:
        return torch.tensor([[*row[name], *[fill] * (width - len(row[name]))] for row in rows])

    mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
    return {
        "input_ids": padded("input_ids", pad),
        "labels": padded("labels", IGNORE_INDEX),
        "attention_mask": torch.tensor(mask),
    }


def held_out_loss(model: Any, examples: Sequence[EncodedExample]) -> float:
    """Mean over rows of the mean loss of a row's reply, by the model's own loss."""
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        ids, labels = ([torch.tensor([getattr(each, name)]) for each in examples] for name in ("input_ids", "labels"))
        losses = [float(model(input_ids=a, labels=b).loss) for a, b in zip(ids, labels, strict=True)]
    model.train(was_training)
    return float(np.mean(losses))


def settings(arguments: argparse.Namespace) -> RunConfig:
    """The run that supplies the rows: a small sample of the data, or the small atlas."""
    overrides = ("train.dtype=float32", "train.epochs=1", f"train.batch_size={BATCH}", f"train.max_tokens={MAX_TOKENS}")
    if arguments.small:
        return load_run_config("atlas-test", overrides=overrides)
    models, data = (Path(_folder(name)) for name in ("COMPASS_REAL_MODELS", "COMPASS_SHARED_DATA"))
    os.environ.update(
        COMPASS_BASE_MODEL=str(models / "gemma-3-270m"),
        COMPASS_ENCODER=str(models / "e5-small"),
        COMPASS_IDENTIFIER=str(models / "lid.176.ftz"),
        COMPASS_AYA_DATASET=str(data / "aya_dataset"),
        COMPASS_GLOBAL_MMLU=str(data / "global_mmlu"),
    )
    languages = f"languages=[{', '.join(LANGUAGES)}]"
    return load_run_config("gemma-3-270m", overrides=(languages, "train.batches=padded", *POOL, *overrides))


def _folder(variable: str) -> str:
    folder = os.environ.get(variable)
    if not folder:
        raise SystemExit(f"{variable} is not set; set it to its folder (see CONTRIBUTING.md), or use --small")
    return folder


def measure(config: RunConfig, run: RunDir, rows: int, held_out: int) -> dict[str, dict[str, tuple[Curve, Curve]]]:
    """Curves of both trainers by language and method. The held-out rows are the language's own, equal for its methods."""
    base = load_base(config.train)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    found: dict[str, dict[str, tuple[Curve, Curve]]] = {}
    for code in config.languages:
        held = load_training_set(run, run.selection("target", code), config).rows[:held_out]
        for method in METHODS:
            pool = load_training_set(run, run.selection(method, code), config).rows
            chosen = [row for row in pool if row.prompt not in {each.prompt for each in held}]
            # Whole batches: the Trainer cuts the rows into batches in order, so a smaller one must not stand before others.
            whole = min(rows, len(chosen)) // config.train.batch_size * config.train.batch_size
            order = np.random.default_rng(0).permutation(len(chosen))[:whole]
            batch = [TrainingRow(chosen[i].prompt, chosen[i].response) for i in order]
            reference = train_reference(batch, held, config.train, initial_adapter(base, batch, config.train))
            found.setdefault(code, {})[method] = (train_ours(base, batch, held, config.train), reference)
    return found


def summarize(ours: Curve, reference: Curve) -> dict[str, Value]:
    """Losses of both, and how far they differ."""
    moved = {name: tensor.float() - reference.adapter[name] for name, tensor in ours.adapter.items()}
    size = math.sqrt(sum(float((each.float() ** 2).sum()) for each in reference.adapter.values()))
    return {
        "steps": len(ours.steps),
        "ours_step_loss": ours.steps,
        "reference_step_loss": reference.steps,
        "largest_step_difference": max(abs(a - b) for a, b in zip(ours.steps, reference.steps, strict=True)),
        "zero_shot_held_out_loss": ours.before,
        "reference_zero_shot_held_out_loss": reference.before,
        "ours_held_out_loss": ours.after,
        "reference_held_out_loss": reference.after,
        "adapter_relative_difference": math.sqrt(sum(float((each**2).sum()) for each in moved.values())) / size,
    }


@with_style
def plot_curves(found: Mapping[str, tuple[Curve, Curve]], language: str) -> Figure:
    """Losses of the steps of one language: ours as lines, the reference as markers."""
    figure, axes = new_figure(4.9, 3.1)
    for method, (ours, reference) in found.items():
        style = METHOD_STYLES[method]
        steps = range(1, len(ours.steps) + 1)
        axes.plot(steps, ours.steps, color=style.colour, label=f"{method}, ours")
        axes.plot(steps, reference.steps, style.marker, color=style.colour, mfc="none", label=f"{method}, PEFT and Trainer")
    zero = next(iter(found.values()))[0].before
    axes.axhline(zero, color=MUTED, linestyle=":", label="zero-shot, held-out rows")
    axes.set(xlabel="step", ylabel="loss (nats per token)", title=f"Loss of each step, {language}")
    add_legend_below(figure, axes, 2)
    return figure


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--run", type=Path, help="folder that keeps the run with the selections (default: a temporary one)")
    arguments = options.parse_args(argv)
    config = settings(arguments)
    rows, held_out = (16, 4) if arguments.small else (ROWS, HELD_OUT)
    with tempfile.TemporaryDirectory() as temporary:
        from compass_ray import pipeline, ray_session

        run = RunDir(str(arguments.run or temporary))
        with ray_session.session(config.resources):
            pipeline.run_all(config, run, until="select")
        found = measure(config, run, rows, held_out)
    folder = arguments.output or (None if arguments.small else RESULTS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for code, curves in found.items():
            (folder / f"paper_trainer_curves_{code}.png").write_bytes(to_png(plot_curves(curves, code)))
    numbers: dict[str, Value] = {
        code: {method: summarize(*pair) for method, pair in curves.items()} for code, curves in found.items()
    }
    described: dict[str, Value] = {
        "base_model": "atlas" if arguments.small else "gemma-3-270m",
        "rows": rows,
        "held_out": held_out,
        "train": config.train.model_dump(mode="json", include={"dtype", "learning_rate", "batch_size", "max_tokens", "adapter"}),
    }
    return write_record(
        "paper/trainer_curves",
        arguments,
        seeds=[config.seed],
        settings=described,
        numbers=numbers,
        argv=without_run(sys.argv[1:] if argv is None else argv),
    )


if __name__ == "__main__":
    main()
