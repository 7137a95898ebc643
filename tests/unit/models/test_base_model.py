"""The base model with its weights, and without them for an engine that loads them itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray.config import TrainConfig
from compass_ray.models.base_model import find_end_token_ids, load_base, load_base_without_weights
from compass_ray.models.errors import ModelError


def test_a_base_without_weights_has_the_layers_and_the_end_tokens_of_the_model() -> None:
    config = TrainConfig(base_model="atlas")
    full, empty = load_base(config), load_base_without_weights(config)
    assert {name: tuple(each.shape) for name, each in full.model.named_parameters()} == {
        name: tuple(each.shape) for name, each in empty.model.named_parameters()
    }
    assert all(parameter.is_meta for parameter in empty.model.parameters())
    assert find_end_token_ids(full) == find_end_token_ids(empty)
    assert empty.tokenizer("Habari")["input_ids"] == full.tokenizer("Habari")["input_ids"]


def test_a_base_without_weights_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base_without_weights(TrainConfig(base_model=str(tmp_path)))
