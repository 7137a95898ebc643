"""A probe of the base model before any training: template, adapter, training step, scorer and engine, for a few tokens.

Key property: it runs on a small copy of the base model (`reduced_model`), so it reads no weights and takes seconds for any size.
What the endpoint would refuse after training is refused before it. It says nothing about the quality of a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from compass_ray.adapters.dora import (
    attach,
    attach_for_inference,
    attach_for_training,
    find_target_layers,
    find_unmatched_targets,
    list_linear_names,
)
from compass_ray.adapters.peft_io import StoredAdapter
from compass_ray.config import AdapterConfig, TrainConfig
from compass_ray.config.data import ATLAS
from compass_ray.engine.engine import Engine, EngineConfig
from compass_ray.engine.fold_adapter import find_servable_layer, fold_adapter
from compass_ray.engine.requests import GenerationOutput, GenerationRequest
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import TrainingRow, encode_example, encode_rows
from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import hub_id, model_identity, resolve_model
from compass_ray.models.multiple_choice_prompts import Scoring
from compass_ray.models.remote_code import unpinned_settings
from compass_ray.models.scorer import score_items
from compass_ray.preflight import reduced_model
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.training.adapter_trainer import AdapterTrainer
from compass_ray.training.fisher import diagonal_fisher

_ROWS = (
    TrainingRow("Which city is the capital of Kenya?", "Nairobi is the capital of Kenya."),
    TrainingRow("What is 2 + 3?", "5"),
)
_MAX_TOKENS = 512
_PROMPT_TOKENS, _REPLY_TOKENS = 3 * reduced_model.WINDOW, 4
_MAX_DIFFERENCE = 1e-3
"""Nats: the order of additions changes a log-probability by less than 1e-4 in float32."""
_NAME = "probe"
_MOST_READ_BYTES = 4 << 30


@dataclass(frozen=True)
class ProbeFinding:
    """What will not work: the part that fails, the problem and what to do."""

    part: str
    problem: str
    remedy: str
    blocking: bool = True


def check_base(context: CheckContext) -> list[CheckResult]:
    """Probe the base model; report what will not work, and rows of zeros in its weights."""
    config = context.config.train
    if not context.needs_base() or unpinned_settings(config) or (not context.thorough and _is_packaged(config)):
        return []
    try:
        findings = probe_base(config, context.config.evaluate.scoring)
    except ModelError as error:
        return [_not_probed(config, error)]
    results = [
        CheckResult(_NAME, f"{each.part}: {each.problem}", each.remedy, blocking=each.blocking, by="settings")
        for each in findings
        if each.part != "engine" or context.config.serve.engine == "compass"
    ]
    if results or not context.thorough:
        return results
    zeros = f"; {count} rows of adapted layers are zero and keep the scale 1" if (count := count_zero_rows(config)) else ""
    return [CheckResult(_NAME, f"template, adapter, training step, scorer and engine work on a small copy{zeros}")]


def _is_packaged(config: TrainConfig) -> bool:
    """Whether it is the package's own model with its default layers, which the package tests."""
    return config.base_model == ATLAS and config.adapter.target_modules == AdapterConfig().target_modules


def _not_probed(config: TrainConfig, error: ModelError) -> CheckResult:
    found = f"{config.base_model} was not probed: {error}"
    if hub_id(config.base_model):
        return CheckResult(_NAME, found, "run doctor where the hub can be reached, or after the download")
    return CheckResult(_NAME, found, "set train.base_model to a complete model", blocking=True, by="settings")


def count_zero_rows(config: TrainConfig) -> int:
    """Zero rows of the layers that DoRA changes, in the weights of a local model; 0 above `_MOST_READ_BYTES`, and for LoRA."""
    folder = Path(resolve_model(config.base_model, "base_model"))
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() and config.adapter.kind == "dora" else []
    if sum(file.stat().st_size for file in files) > _MOST_READ_BYTES:
        return 0
    endings = tuple(f".{name}.weight" for name in config.adapter.target_modules)
    return sum(_count_zero_rows(file, endings) for file in files)


def _count_zero_rows(file: Path, endings: tuple[str, ...]) -> int:
    from safetensors import safe_open

    with safe_open(str(file), "pt") as stream:
        weights = (stream.get_tensor(name) for name in stream.keys() if name.endswith(endings))  # noqa: SIM118
        return sum(int((~weight.any(-1)).sum()) for weight in weights if weight.ndim == 2)


def probe_base(config: TrainConfig, scoring: Scoring) -> tuple[ProbeFinding, ...]:
    """Probe ``config.base_model`` with this adapter and training. Repeated calls for the same model cost nothing.

    Raises:
        ModelError: its configuration or tokenizer cannot be loaded.
    """
    return _probe(config, scoring, model_identity(config.base_model, config.revision))


@lru_cache(maxsize=16)
def _probe(config: TrainConfig, scoring: Scoring, identity: str) -> tuple[ProbeFinding, ...]:
    model_config = reduced_model.load_config(config)
    tokenizer = reduced_model.load_tokenizer(config)
    try:
        structure = reduced_model.make_structure(config, model_config)
    except ModelError as error:
        return (ProbeFinding("model", str(error), "set train.base_model to a causal language model"),)
    found = [
        *_probe_tokenizer(tokenizer),
        *_probe_vocabulary(tokenizer, model_config),
        *_probe_layers(config, model_config, structure),
    ]
    if any(finding.part == "template" for finding in found):
        return tuple(found)
    try:
        base = reduced_model.make_reduced_model(config, model_config, tokenizer)
        small = _small_training(config, base)
    except ModelError as error:
        return (*found, ProbeFinding("training", str(error), "training, scorer and engine were not probed", blocking=False))
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("training", partial(_probe_training, base, small)),
        ("Fisher information", partial(_probe_fisher, base, small)),
        ("scorer", partial(_probe_scorer, base, scoring)),
        ("engine", partial(_probe_engine, base, small)),
    )
    return (*found, *(finding for part, step in steps for finding in _attempt(part, step)))


def _attempt(part: str, step: Callable[[], object]) -> Iterator[ProbeFinding]:
    """The finding of a failed step. An error of unknown meaning may come from the small copy, so it does not block."""
    try:
        step()
    except ModelError as error:
        yield _finding(part, error)
    except Exception as error:  # code of any architecture
        reason = (str(error).strip().splitlines() or [""])[0]
        yield ProbeFinding(part, f"{type(error).__name__}: {reason}", "this part may fail in the run", blocking=False)


def _finding(part: str, error: ModelError) -> ProbeFinding:
    problem, _, remedy = str(error).partition("; ")
    return ProbeFinding(part, problem, remedy or "use another base model")


def _probe_tokenizer(tokenizer: Any) -> Iterator[ProbeFinding]:
    """What is wrong with the tokenizer or its chat template."""
    if not getattr(tokenizer, "is_fast", False):
        yield ProbeFinding(
            "tokenizer", f"{type(tokenizer).__name__} is not a fast tokenizer", "add a tokenizer.json to the model"
        )
    try:
        for row in _ROWS:
            encode_example(tokenizer, row.prompt, row.response, _MAX_TOKENS)
    except ModelError as error:
        yield _finding("template", error)


def _probe_vocabulary(tokenizer: Any, model_config: Any) -> Iterator[ProbeFinding]:
    """Token ids that the model does not have. Added tokens that no row uses, such as those of images, may be among them."""
    highest = max(tokenizer.pad_token_id, getattr(tokenizer, "vocab_size", 0) - 1)
    size = getattr(model_config.get_text_config(), "vocab_size", highest + 1)
    if highest >= size:
        yield ProbeFinding(
            "tokenizer",
            f"it has the token id {highest:,}, but the model has {size:,} tokens",
            "set train.base_model to a model with its own tokenizer, or set the tokenizer's padding token to one of the model's",
        )


def _probe_layers(config: TrainConfig, model_config: Any, model: Any) -> Iterator[ProbeFinding]:
    """Target modules that match nothing, and layers that cannot be trained or served."""
    names = config.adapter.target_modules
    quantization = getattr(model_config, "quantization_config", None)
    if quantization:
        yield ProbeFinding("adapter", "the base model is quantized", "set train.base_model to its unquantized version")
    if unmatched := find_unmatched_targets(model, names):
        yield ProbeFinding(
            "adapter",
            f"the base model has no layer named {', '.join(unmatched)}",
            f"set train.adapter.target_modules to some of {', '.join(list_linear_names(model))}",
        )
    yield from _attempt_layers(model, names)


def _attempt_layers(model: Any, names: tuple[str, ...]) -> Iterator[ProbeFinding]:
    """The first layer of each name that cannot be trained or served."""
    for name in names:
        if name not in find_unmatched_targets(model, names):
            yield from _attempt("adapter", partial(_require_servable_layers, model, name))


def _require_servable_layers(model: Any, name: str) -> None:
    for path in find_target_layers(model, (name,)):
        find_servable_layer(model, path)


def _small_training(config: TrainConfig, base: BaseModel) -> TrainConfig:
    """The settings of one training step, on the layers that exist."""
    names = config.adapter.target_modules
    matched = tuple(name for name in names if name not in find_unmatched_targets(base.model, names))
    if not matched:
        raise ModelError(f"its layers {', '.join(names)} are not in the small copy")
    adapter = config.adapter.model_copy(update={"target_modules": matched})
    changes = {"adapter": adapter, "epochs": 1, "batch_size": len(_ROWS), "max_tokens": _MAX_TOKENS, "tokens": None}
    return config.model_copy(update=changes)


def _probe_training(base: BaseModel, config: TrainConfig) -> None:
    with AdapterTrainer(base, _ROWS, (), None, config, seed=0) as trainer:
        trainer.run()


def _probe_fisher(base: BaseModel, config: TrainConfig) -> None:
    """What a served adapter stores for its updates."""
    with attach_for_training(base.model, _random_adapter(base, config)):
        diagonal_fisher(base.model, encode_rows(base.tokenizer, _ROWS[:1], _MAX_TOKENS))


def _probe_scorer(base: BaseModel, scoring: Scoring) -> None:
    scores = score_items(base, ["2 + 3 = ?"], [["4", "5"]], scoring=scoring, batch_size=2, max_tokens=_MAX_TOKENS)
    if not all(math.isfinite(score) for score in scores[0]):
        raise ModelError(f"the scores of the options are {scores[0].tolist()}")


def _probe_engine(base: BaseModel, config: TrainConfig) -> None:
    """Generate with and without an adapter in one batch, and compare with the model's own log-probabilities."""
    stored = _random_adapter(base, config)
    engine = Engine(base, EngineConfig(max_num_seqs=2, max_model_len=2 * _PROMPT_TOKENS, prefill_chunk_tokens=_PROMPT_TOKENS + 5))
    try:
        engine.model_runner.eos_token_ids = frozenset()
        engine.install_adapter(_NAME, fold_adapter(base.model, stored))
        length = min(_PROMPT_TOKENS, engine.max_model_len - _REPLY_TOKENS)
        prompts = [list(range(2, 2 + length)), list(range(3, 3 + length - 2))]
        requests = [
            GenerationRequest(prompt_token_ids=prompt, adapter=adapter, max_tokens=_REPLY_TOKENS, logprobs=0)
            for prompt, adapter in zip(prompts, (_NAME, None), strict=True)
        ]
        outputs = engine.generate(requests)
    finally:
        engine.close()
    with attach_for_inference(base.model, stored):
        adapted = _difference(base, prompts[0], outputs[0])
    difference = max(adapted, _difference(base, prompts[1], outputs[1]))
    if not difference <= _MAX_DIFFERENCE:
        raise ModelError(
            f"batched serving of {type(base.model).__name__} differs from the model by {difference:.2g} nats; "
            f"use another base model"
        )


def _random_adapter(base: BaseModel, config: TrainConfig) -> StoredAdapter:
    """An adapter as after training, so that no factor is zero."""
    adapter, generator = attach(base.model, config.adapter, seed=0), torch.Generator().manual_seed(0)
    tensors = adapter.tensors()
    adapter.detach()
    for name, tensor in tensors.items():
        if name.endswith("lora_B.weight"):
            tensor.normal_(0, 0.05, generator=generator)
    settings = config.adapter
    return StoredAdapter(
        settings.r, settings.alpha / settings.r, settings.kind == "dora", settings.target_modules, base.name, tensors
    )


@torch.inference_mode()
def _difference(base: BaseModel, prompt: list[int], output: GenerationOutput) -> float:
    """The largest difference of a reply token's log-probability, in nats, from that of the model in one forward pass."""
    reply = [score.token_id for score in output.logprobs]
    ids = torch.tensor([[*prompt, *reply]], device=base.device)
    logits = base.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    wanted = logits.log_softmax(-1).gather(1, torch.tensor(reply, device=base.device)[:, None])[:, 0]
    return float((wanted - torch.tensor([score.logprob for score in output.logprobs])).abs().max())
