"""Read and write adapters as plain PEFT directories, which `peft.PeftModel.from_pretrained` loads.

Reading checks everything that could make a reply wrong without an error: the kind, the scaling, the tensor names. Only
features that `dora` computes are accepted; other PEFT features are rejected by name. Runs no model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from compass_ray.config import AdapterConfig
from compass_ray.models.errors import ModelError

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_PICKLE_NAME = "adapter_model.bin"
_UNSUPPORTED = (
    "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias", "layer_replication",
    "alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config", "kasa_config", "target_parameters",
    "trainable_token_indices",
)  # fmt: skip
# For these, PEFT changes the base weights at load, unless they were converted to plain LoRA.
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
_LAYER_FILTERS = ("layers_to_transform", "exclude_modules")
_DTYPES = {f"torch.{name}" for name in ("float64", "float32", "bfloat16", "float16")}


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter read from disk. ``tensors`` have PEFT's names."""

    r: int
    scaling: float
    use_dora: bool
    target_modules: tuple[str, ...]
    base_model: str
    tensors: Mapping[str, Tensor]
    is_partial: bool = False
    """Whether it may lack layers that ``target_modules`` names."""

    def config(self) -> AdapterConfig:
        """The adapter's training configuration. Alpha is rounded; use ``scaling`` for the exact value."""
        return AdapterConfig(
            kind="dora" if self.use_dora else "lora",
            r=self.r,
            alpha=max(round(self.scaling * self.r), 1),
            target_modules=self.target_modules,
        )


def write_adapter(folder: Path, config: AdapterConfig, tensors: Mapping[str, Tensor], base_model: str) -> None:
    """Write a PEFT directory into ``folder``. ``base_model`` is the name or path from which PEFT loads the base."""
    from peft import LoraConfig

    lora_config = LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_dora=config.kind == "dora",
        target_modules=sorted(config.target_modules),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_model,
        inference_mode=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, folder / WEIGHTS_NAME, {"format": "pt"})
    lora_config.save_pretrained(str(folder))


def read_adapter(folder: Path) -> StoredAdapter:
    """Read and check a PEFT directory.

    Raises:
        ModelError: a file is missing or damaged, or the adapter uses an unsupported feature.
    """
    settings = _read_config(folder)
    r = int(_check_number(folder, settings.get("r", 0)))
    if settings.get("peft_type") != "LORA" or r < 1:
        raise ModelError(f"{folder} has a {settings.get('peft_type')} adapter of rank {r}; use a LoRA or DoRA adapter")
    unsupported = [key for key in _UNSUPPORTED if settings.get(key)]
    if settings.get("bias", "none") != "none":
        unsupported.append("bias")
    if str(settings.get("init_lora_weights")).startswith(_BASE_CHANGING_INITS):
        unsupported.append(f"init_lora_weights {settings['init_lora_weights']}")
    if unsupported:
        raise ModelError(f"{folder}: the adapter uses {', '.join(unsupported)}, which is not supported; train it without")
    divisor = math.sqrt(r) if settings.get("use_rslora") else r
    targets = settings.get("target_modules") or ()
    if not isinstance(targets, str) and not (isinstance(targets, list | tuple) and all(isinstance(t, str) for t in targets)):
        raise ModelError(
            f"{folder / CONFIG_NAME} is damaged (target_modules {targets!r}); copy it again, or remove {folder} and run again"
        )
    return StoredAdapter(
        r=r,
        scaling=_check_number(folder, settings.get("lora_alpha", r)) / divisor,
        use_dora=bool(settings.get("use_dora")),
        target_modules=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
        base_model=str(settings.get("base_model_name_or_path") or ""),
        tensors=_read_tensors(folder),
        is_partial=isinstance(targets, str) or any(settings.get(key) for key in _LAYER_FILTERS),
    )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        settings = json.loads((folder / CONFIG_NAME).read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} is not an adapter directory: it lacks {CONFIG_NAME}; use a folder that PEFT wrote") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(
            f"{folder / CONFIG_NAME} is damaged ({error}); copy it again, or remove {folder} and run again"
        ) from None
    if not isinstance(settings, dict):
        raise ModelError(
            f"{folder / CONFIG_NAME} is damaged (not a JSON object); copy it again, or remove {folder} and run again"
        )
    return settings


def _check_number(folder: Path, value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ModelError(
            f"{folder / CONFIG_NAME} is damaged ({value!r} as rank or alpha); copy it again, or remove {folder} and run again"
        )
    return float(value)


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(folder / WEIGHTS_NAME)
    except FileNotFoundError:
        if (folder / _PICKLE_NAME).exists():
            raise ModelError(
                f"{folder} has its weights in the pickle file {_PICKLE_NAME}, which can run code; convert it to {WEIGHTS_NAME} "
                f"on an isolated machine, or train the adapter again"
            ) from None
        raise ModelError(f"{folder} lacks {WEIGHTS_NAME}; copy it again, or remove {folder} and run again") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{folder / WEIGHTS_NAME} is damaged ({error}); copy it again, or remove {folder} and run again"
        ) from None
    dtypes = {str(tensor.dtype) for tensor in tensors.values()} - _DTYPES
    if dtypes:
        raise ModelError(
            f"{folder / WEIGHTS_NAME} has {', '.join(sorted(dtypes))} tensors; store them in float32, bfloat16 or float16"
        )
    bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if bad or not tensors:
        problem = f"NaN or infinity in {bad[0]}" if bad else "no tensors"
        raise ModelError(f"{folder / WEIGHTS_NAME} has {problem}; train the adapter again")
    return tensors
