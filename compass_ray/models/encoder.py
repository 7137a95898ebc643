"""Encode prompts to unit embeddings with any sentence-transformers model (COMPASS, section 3.2.1).

Only prompts are embedded, never responses. Batches hold rows of similar length within a budget of tokens; rows are returned in
the given order. ``embed.dtype: auto`` is float16 on a GPU, bfloat16 for wide layers on a CPU that multiplies it, and otherwise
float32.
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
from safetensors import SafetensorError

from compass_ray.config import EmbedConfig
from compass_ray.models.devices import choose_device
from compass_ray.models.errors import ModelError, describe_loading_error
from compass_ray.models.model_resolver import resolve_model
from compass_ray.models.remote_code import load_options
from compass_ray.models.token_batches import token_batches

BATCH_TOKENS = {"cpu": 512, "cuda": 16_384}
"""Default budget of a batch by device, in tokens with their padding.

CPU time of one thread, multilingual-e5-small, 96 prompts, on a busy machine: 1,490 tokens/s with 512, 1,130 with 2,048 and 650
with 8,192. Small batches stay in the cache. In bfloat16: 2,480 with 512; the cosine with float32 is at least 0.9999.
"""
_WIDE = 256
"""Input features of a layer from which on bfloat16 is faster than float32 on a CPU that multiplies it."""


class Encoder:
    """A sentence encoder; ``dimension`` is the length of its embeddings, ``dtype`` the name of its weights' type."""

    def __init__(self, config: EmbedConfig, *, device: str | None = None) -> None:
        """Load ``config.encoder`` onto ``device``, or onto a GPU if torch sees one.

        Raises:
            ModelError: the model is missing, is not a sentence encoder, brings code that is not pinned, or has no tasks
                although ``config.task`` is set.
        """
        self.config = config
        self.device = choose_device(device)
        self.model = _load(config, self.device)
        self.dtype = str(next((p.dtype for p in self.model.parameters()), torch.float32)).removeprefix("torch.")
        self._task = _task_kwargs(config, self.model)
        if self.model.max_seq_length != math.inf:  # a static embedding has no limit and accepts none
            self.model.max_seq_length = min(config.max_tokens, self.model.max_seq_length or config.max_tokens)
        dimension = self.model.get_embedding_dimension()
        self.dimension: int = dimension or self._encode_batch(["dimension"]).shape[1]

    @property
    def default_batch_tokens(self) -> int:
        """Tokens of a batch with its padding that suit the device."""
        return BATCH_TOKENS.get(self.device.type, BATCH_TOKENS["cuda"])

    def encode(self, prompts: Sequence[str], *, batch_size: int, batch_tokens: int | None = None) -> npt.NDArray[np.float32]:
        """Unit rows float32[n, dimension] of ``prompts``, in their order.

        Args:
            prompts: n texts.
            batch_size: maximum number of rows of a batch.
            batch_tokens: maximum number of tokens of a batch with its padding; by default what suits the device.

        Raises:
            ModelError: the model returned NaN or a zero row, or a limit is below 1.
        """
        most = self.default_batch_tokens if batch_tokens is None else batch_tokens
        if min(batch_size, most) < 1:
            raise ModelError(f"batch_size is {batch_size} and batch_tokens is {most}; they must be at least 1")
        rows = np.zeros((len(prompts), self.dimension), np.float32)
        for batch in token_batches(self.count_tokens(prompts), most, batch_size):
            rows[batch] = self._encode_batch([prompts[i] for i in batch])
        return _normalize(rows, self.config.encoder)

    def _encode_batch(self, prompts: list[str]) -> npt.NDArray[np.float32]:
        # A prompt of None is the model's default prompt.
        options = {"prompt": self.config.prompt_prefix or None, "batch_size": len(prompts), **self._task}
        with torch.inference_mode():
            found = self.model.encode(prompts, convert_to_tensor=True, show_progress_bar=False, **options)
        return np.asarray(found.float().cpu().numpy())

    def count_tokens(self, prompts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Tokens int64[n] that the model reads of each prompt.

        One for each prompt of a static embedding, which pads nothing. Without a fast tokenizer, characters as an upper bound.
        """
        if self.model.max_seq_length == math.inf:
            return np.ones(len(prompts), np.int64)
        texts, most = [self.prompt + prompt for prompt in prompts], int(self.model.max_seq_length)
        tokenizer: Any = getattr(self.model, "tokenizer", None)
        if not texts or not getattr(tokenizer, "is_fast", False):
            return np.minimum(np.array([len(text) for text in texts], np.int64), most)
        encoded = tokenizer(texts, truncation=True, max_length=most, return_attention_mask=False, return_token_type_ids=False)
        return np.array([len(ids) for ids in encoded["input_ids"]], np.int64)

    @property
    def prompt(self) -> str:
        """The text before each prompt: ``embed.prompt_prefix``, otherwise the model's default prompt."""
        return self.config.prompt_prefix or (self.model.prompts or {}).get(self.model.default_prompt_name) or ""

    def describe(self) -> dict[str, Any]:
        """How texts are embedded, for a record: type of the weights, text before each prompt, the model's own prompts."""
        own = {name: text for name, text in (self.model.prompts or {}).items() if text}
        return {"dtype": self.dtype, "prompt": self.prompt, "own_prompts": own, "default_prompt": self.model.default_prompt_name}


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
        narrowed = config.dtype == "auto" and device.type == "cpu" and _has_wide_layers(model) and _multiplies_bfloat16()
        return model.to(device, torch.bfloat16 if narrowed else None)
    except (OSError, ValueError, ImportError, UnpicklingError, SafetensorError) as error:
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
    """Load a transformers model and pool its tokens as ``pooling`` says. Texts are read as they stand."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    source = {key: value for key, value in options.items() if key != "dtype"}
    tokens = Transformer(
        path,
        model_kwargs=dict(options),
        config_kwargs=dict(source),
        processor_kwargs=dict(source),
        # By default sentence-transformers wraps each text in the tokenizer's chat template, if it has one.
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )
    tokenizer: Any = tokens.tokenizer
    if tokenizer.pad_token is None:  # as of many language models; padding has no weight
        tokenizer.pad_token = tokenizer.eos_token
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


def _multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products in bfloat16."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _has_wide_layers(model: torch.nn.Module) -> bool:
    return any(isinstance(each, torch.nn.Linear) and each.in_features >= _WIDE for each in model.modules())


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
