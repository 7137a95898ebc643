"""A small copy of a base model for a probe: the same architecture and tokenizer, with random weights.

Key property: only the configuration and the tokenizer are read, so an 8B model is probed on a laptop. The copy has one layer of
each kind, narrow feed-forward layers, `VOCABULARY` tokens and sliding windows of `WINDOW` tokens. Hidden size and attention
heads are the model's. Its outputs mean nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from compass_ray.config import TrainConfig
from compass_ray.models.base_model import BaseModel, freeze
from compass_ray.models.errors import ModelError, describe_loading_error
from compass_ray.models.model_resolver import resolve_model
from compass_ray.models.remote_code import load_options

VOCABULARY = 2048
WINDOW = 8
_INNER = 128
_LAYERS = 2
"""Layers of the copy if the configuration does not distinguish kinds of layers."""
_LOADING_ERRORS = (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError)


class CompactTokenizer:
    """A tokenizer whose ids are numbered in the order of their first use, so that they fit into a small vocabulary."""

    def __init__(self, tokenizer: Any) -> None:
        """Number the special ids first: padding 0, end of text 1."""
        self._tokenizer = tokenizer
        self._numbers: dict[int, int] = {}
        self._number(tokenizer.pad_token_id)
        self._number(tokenizer.eos_token_id)

    def __call__(self, text: str, **settings: Any) -> dict[str, list[int]]:
        """Token ids of a text."""
        return {"input_ids": [self._number(token) for token in self._tokenizer(text, **settings)["input_ids"]]}

    def __getattr__(self, name: str) -> Any:
        """All other attributes are the tokenizer's."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._tokenizer, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> CompactTokenizer:
        """Itself: a copy would number ids differently."""
        return self

    @property
    def pad_token_id(self) -> int:
        """Id of padding."""
        return self._number(self._tokenizer.pad_token_id)

    @property
    def eos_token_id(self) -> int | None:
        """Id of the end of a text."""
        end = self._tokenizer.eos_token_id
        return None if end is None else self._number(end)

    def _number(self, token: int | None) -> int:
        return 0 if token is None else self._numbers.setdefault(token, len(self._numbers))


def load_config(config: TrainConfig) -> Any:
    """The configuration of the base model.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import AutoConfig

    source = load_options(config)
    try:
        return AutoConfig.from_pretrained(resolve_model(config.base_model, "base_model"), **source)
    except _LOADING_ERRORS as error:
        raise ModelError(f"its configuration cannot be loaded ({describe_loading_error(error)})") from error


def load_tokenizer(config: TrainConfig) -> Any:
    """The tokenizer of the base model, with a padding token.

    Raises:
        ModelError: it cannot be loaded, or has neither a padding token nor an end token.
    """
    from transformers import AutoTokenizer

    source = load_options(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_model(config.base_model, "base_model"), **source)
    except _LOADING_ERRORS as error:
        raise ModelError(f"its tokenizer cannot be loaded ({describe_loading_error(error)})") from error
    return freeze(torch.nn.Identity(), tokenizer, torch.device("cpu"), config.base_model).tokenizer


def make_structure(config: TrainConfig, model_config: Any) -> Any:
    """The complete model without storage.

    Raises:
        ModelError: the configuration is not that of a causal language model.
    """
    with torch.device("meta"):
        return _make_model(config, copy.deepcopy(model_config))


def make_reduced_model(config: TrainConfig, model_config: Any, tokenizer: Any) -> BaseModel:
    """The small copy in float32 on the CPU. The global random numbers do not change.

    Raises:
        ModelError: this architecture cannot be built in this size.
    """
    reduced = reduce_config(model_config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _make_model(config, reduced).float()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return freeze(model, CompactTokenizer(tokenizer), torch.device("cpu"), config.base_model)


def reduce_config(model_config: Any) -> Any:
    """A copy of the configuration with the sizes of the small copy."""
    reduced = copy.deepcopy(model_config)
    for part in _parts(reduced):
        _keep_layer_kinds(part)
        for name, value in vars(part).items():
            if name.endswith("intermediate_size") and isinstance(value, int):
                setattr(part, name, min(value, _INNER))
    text = reduced.get_text_config()
    text.vocab_size = min(text.vocab_size, VOCABULARY)
    text.pad_token_id, text.bos_token_id, text.eos_token_id = 0, None, 1
    if getattr(text, "sliding_window", None):
        text.sliding_window = min(text.sliding_window, WINDOW)
    return reduced


def _parts(model_config: Any) -> list[Any]:
    """The configuration and those of its parts, such as a vision tower."""
    from transformers import PretrainedConfig

    return [model_config, *(value for value in vars(model_config).values() if isinstance(value, PretrainedConfig))]


def _keep_layer_kinds(part: Any) -> None:
    """Keep the first layer of each kind, where a kind is one combination of the settings that are given by layer."""
    count = getattr(part, "num_hidden_layers", None)
    if not isinstance(count, int):
        return
    by_layer: Mapping[str, list[Any]] = {
        name: value for name, value in vars(part).items() if isinstance(value, list) and len(value) == count
    }
    kinds = list(zip(*by_layer.values(), strict=True)) if by_layer else list(range(min(count, _LAYERS)))
    kept = sorted({repr(kind): index for index, kind in reversed(list(enumerate(kinds)))}.values())
    for name, value in by_layer.items():
        setattr(part, name, [value[index] for index in kept])
    part.num_hidden_layers = len(kept)


def _make_model(config: TrainConfig, model_config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    code = {key: value for key, value in load_options(config).items() if key != "revision"}
    try:
        return AutoModelForCausalLM.from_config(model_config, **code)
    except (*_LOADING_ERRORS, RuntimeError) as error:
        raise ModelError(f"its architecture cannot be built ({describe_loading_error(error)})") from error
