"""The model of one method in one language: the base model alone, with the method's adapter, or fully fine-tuned.

The base model is loaded once. An adapter is attached to it within a block; a fully fine-tuned model replaces it meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compass_ray.artifacts import FULL_FINETUNING, Artifact, RunDir
from compass_ray.config import TrainConfig

if TYPE_CHECKING:
    from compass_ray.models.base_model import BaseModel


def find_model_artifact(run: RunDir, method: str, language: str, version: str | None) -> Artifact | None:
    """The adapter or full model of a method's version; None for the base model, whose version is None."""
    if version is None:
        return None
    return run.full_model(language, method) if method == FULL_FINETUNING else run.adapter(language, version)


@contextmanager
def open_method_model(base: BaseModel, config: TrainConfig, method: str, trained: Artifact | None) -> Iterator[BaseModel]:
    """The model of ``method``; ``trained`` is from `find_model_artifact`.

    Raises:
        ModelError: the adapter was made for another base model, or the folder has no model.
    """
    from compass_ray.adapters.dora import with_adapter
    from compass_ray.models.base_model import swap_model

    if trained is None:
        yield base
        return
    with trained.local_folder() as folder:
        is_full = method == FULL_FINETUNING
        with swap_model(base, config, folder) if is_full else with_adapter(base, folder) as model:
            yield model
