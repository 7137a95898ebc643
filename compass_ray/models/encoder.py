"""Encode prompts to unit embeddings with any sentence-transformers model (COMPASS, section 3.2.1).

Only prompts are embedded, never responses. Rows are returned in the given order for any batch size; the library sorts by
length internally. Half precision is the default only on a GPU.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pickle import UnpicklingError
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from compass_ray.config import EmbedConfig
from compass_ray.models.devices import choose_device
from compass_ray.models.errors import ModelError, describe_loading_error
from compass_ray.models.model_resolver import resolve_model
from compass_ray.models.remote_code import load_options


class Encoder:
    """A sentence encoder; ``dimension`` is the length of its embeddings."""

    def __init__(self, config: EmbedConfig, *, device: str | None = None) -> None:
        """Load ``config.encoder`` onto ``device``, or onto a GPU if torch sees one.

        Raises:
            ModelError: the model is missing, is not a sentence encoder, brings code that is not pinned, or has no tasks
                although ``config.task`` is set.
        """
        self.config = config
        self.device = choose_device(device)
        self.model = _load(config, self.device)
        self._task = _task_kwargs(config, self.model)
        if self.model.max_seq_length != math.inf:  # a static embedding has no limit and accepts none
            self.model.max_seq_length = min(config.max_tokens, self.model.max_seq_length or config.max_tokens)
        dimension = self.model.get_embedding_dimension()
        self.dimension: int = dimension if dimension else self.encode(["dimension"], batch_size=1).shape[1]

    def encode(self, prompts: Sequence[str], *, batch_size: int) -> npt.NDArray[np.float32]:
        """Unit rows float32[n, dimension] of ``prompts``, in their order.

        Raises:
            ModelError: the model returned NaN or a zero row, or ``batch_size`` is below 1.
        """
        if batch_size < 1:
            raise ModelError(f"batch_size is {batch_size}; it must be at least 1")
        if not prompts:
            return np.zeros((0, self.dimension), np.float32)
        texts = [self.config.prompt_prefix + prompt for prompt in prompts]
        with torch.inference_mode():
            embeddings = self.model.encode(
                texts, batch_size=batch_size, convert_to_numpy=True, show_progress_bar=False, **self._task
            )
        return _normalize(np.asarray(embeddings, dtype=np.float32), self.config.encoder)


def _task_kwargs(config: EmbedConfig, model: Any) -> dict[str, str]:
    if config.task is None:
        return {}
    if "task" not in model.get_model_kwargs():
        raise ModelError(f"encoder {config.encoder!r} has no tasks; remove embed.task (it is {config.task!r})")
    return {"task": config.task}


def _load(config: EmbedConfig, device: torch.device) -> Any:
    path = resolve_model(config.encoder, "encoder")
    options = load_options(config) | {"dtype": getattr(torch, _dtype(config, device))}
    try:
        model = _load_pooled(config.pooling, path, options, device) if config.pooling else _load_modules(path, options, device)
        if config.adapter:
            _load_adapter(config, path, model)
        return model.to(device)
    except (OSError, ValueError, ImportError, UnpicklingError) as error:
        raise ModelError(
            f"encoder {config.encoder!r} cannot be loaded ({describe_loading_error(error)}); use a sentence-transformers "
            f"directory, or check the hub id, embed.revision, embed.adapter and the network"
        ) from error


def _load_modules(path: str, options: dict[str, Any], device: torch.device) -> Any:
    """Load the modules that the encoder's ``modules.json`` names. Without one, sentence-transformers takes the mean."""
    from sentence_transformers import SentenceTransformer

    class PinnedEncoder(SentenceTransformer):  # type: ignore[misc]
        """Takes each class from the pinned commit of its own repository.

        The library spends ``code_revision`` on the first module's class, and then loads the model's code from the main branch.
        """

        def _load_module_class_from_ref(self, class_ref: str, *args: Any, **kwargs: Any) -> Any:
            names = inspect.signature(SentenceTransformer._load_module_class_from_ref).bind(self, class_ref, *args, **kwargs)
            names.arguments["model_kwargs"] = dict(code) if "--" in class_ref else {}
            return SentenceTransformer._load_module_class_from_ref(*names.args, **names.kwargs)

    code = {key: value for key, value in options.items() if key == "code_revision"}
    return PinnedEncoder(
        path,
        device=str(device),
        revision=options["revision"],
        trust_remote_code=options["trust_remote_code"],
        model_kwargs={"dtype": options["dtype"], **code},
        config_kwargs=dict(code),
        processor_kwargs=dict(code),
    )


def _load_pooled(pooling: str, path: str, options: dict[str, Any], device: torch.device) -> Any:
    """Load a transformers model and pool its tokens as ``pooling`` says."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    source = {key: value for key, value in options.items() if key != "dtype"}
    tokens = Transformer(path, model_kwargs=dict(options), config_kwargs=dict(source), processor_kwargs=dict(source))
    return SentenceTransformer(modules=[tokens, Pooling(tokens.get_embedding_dimension(), pooling)], device=str(device))


def _load_adapter(config: EmbedConfig, path: str, model: Any) -> None:
    """Add the PEFT adapter in the folder ``config.adapter`` of the encoder."""
    place = {"subfolder": config.adapter, "revision": config.revision}
    model[0].auto_model.load_adapter(path, adapter_name=config.adapter, adapter_kwargs=place)
    model[0].auto_model.set_adapter(config.adapter)


def _dtype(config: EmbedConfig, device: torch.device) -> str:
    if config.dtype != "auto":
        return config.dtype
    return "float16" if device.type == "cuda" else "float32"


def _normalize(rows: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(length[:, 0]) | (length[:, 0] == 0))
    if bad.size:
        raise ModelError(
            f"encoder {name!r} returned NaN or a zero row for {bad.size} of {len(rows)} prompts, first for number "
            f"{bad[0]}; use another encoder or remove these prompts"
        )
    unit: npt.NDArray[np.float32] = rows / length
    return unit
