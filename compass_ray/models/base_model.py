"""The frozen base model and its tokenizer.

No parameter of it ever gets a gradient. Adapters are attached and detached around it, and detaching restores it bit for bit.
It knows no adapters.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from compass_ray.config import TrainConfig
from compass_ray.models.chat_layout import find_end_tokens
from compass_ray.models.devices import choose_device
from compass_ray.models.errors import ModelError, describe_loading_error
from compass_ray.models.model_resolver import resolve_model
from compass_ray.models.remote_code import load_options

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class BaseModel:
    """A causal language model in evaluation mode, its tokenizer, and the name that adapters record for it."""

    model: Any
    """A transformers causal language model."""
    tokenizer: Any
    """Its fast tokenizer, with a padding token."""
    device: torch.device
    name: str = ""


def load_base(config: TrainConfig, *, device: str | None = None) -> BaseModel:
    """Load ``config.base_model`` frozen, in ``config.dtype``, onto ``device``, or onto a GPU if torch sees one.

    Raises:
        ModelError: the model is missing, is not a causal language model, or brings code that is not pinned.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = resolve_model(config.base_model, "base_model")
    target = choose_device(device)
    source = load_options(config)
    with _explain_loading(config.base_model):
        tokenizer = AutoTokenizer.from_pretrained(path, **source)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=_DTYPES[config.dtype], **source)
    return freeze(model, tokenizer, target, config.base_model)


def load_base_without_weights(config: TrainConfig) -> BaseModel:
    """``config.base_model`` on the meta device: layers, tokenizer and generation settings, for an engine that loads the weights.

    Raises:
        ModelError: as `load_base`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    path, device = resolve_model(config.base_model, "base_model"), torch.device("meta")
    source = load_options(config)
    code = {key: value for key, value in source.items() if key != "revision"}
    with _explain_loading(config.base_model):
        tokenizer = AutoTokenizer.from_pretrained(path, **source)
        with device:
            model = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(path, **source), dtype=_DTYPES[config.dtype], **code
            )
        model.generation_config = _read_generation_config(path, config.revision) or model.generation_config
    return freeze(model, tokenizer, device, config.base_model)


def _read_generation_config(path: str, revision: str | None) -> Any:
    """The model's ``generation_config.json``; None if it has none."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(path, revision=revision)
    except OSError:
        return None


@contextmanager
def _explain_loading(name: str) -> Iterator[None]:
    """Turn what transformers raises for a model that cannot be loaded into a ModelError."""
    try:
        yield
    except (OSError, ValueError, KeyError, UnpicklingError) as error:
        raise ModelError(
            f"base model {name!r} cannot be loaded ({describe_loading_error(error)}); use the directory of a "
            f"causal language model, or check the hub id, train.revision and the network"
        ) from error


def freeze(model: Any, tokenizer: Any, device: torch.device, name: str) -> BaseModel:
    """Freeze a loaded model, set it to evaluation mode and move it to ``device``.

    Raises:
        ModelError: the tokenizer has neither a padding token nor an end token.
    """
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(f"the tokenizer of {name!r} has no end-of-text token; set eos_token in its configuration")
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(False)
    return BaseModel(model.to(device).eval(), tokenizer, device, name)


def count_embeddings(base: BaseModel) -> int:
    """Token ids that the model has; its tokenizer may have more."""
    return int(base.model.get_input_embeddings().num_embeddings)


def find_end_token_ids(base: BaseModel) -> frozenset[int]:
    """Ids that end a reply: those of the generation configuration, of the tokenizer, and of the chat template."""
    configured = getattr(getattr(base.model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    tokens = [*listed, base.tokenizer.eos_token_id, *find_end_tokens(base.tokenizer)]
    return frozenset(token for token in tokens if token is not None)


@contextmanager
def swap_model(base: BaseModel, config: TrainConfig, folder: Path) -> Iterator[BaseModel]:
    """Use the model in ``folder`` instead of the base model within the block.

    The base model moves to the CPU meanwhile, to free GPU memory, and moves back at the end.

    Raises:
        ModelError: the folder has no causal language model.
    """
    base.model.to("cpu")
    swapped = None
    try:
        swapped = load_base(config.model_copy(update={"base_model": str(folder), "revision": None}), device=str(base.device))
        yield swapped
    finally:
        if swapped is not None:
            swapped.model.to("meta")  # frees its memory even if something still refers to it
        gc.collect()
        if base.device.type == "cuda":
            torch.cuda.empty_cache()
        base.model.to(base.device)
