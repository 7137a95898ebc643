"""The DeepSpeed configuration: partitioning from a JSON file, all other settings from the run.

A file sets only how weights, gradients and optimizer state are partitioned. Batch, precision, clipping, optimizer and
learning rate come from the run configuration. So two clusters with different files train the same model. Starts nothing.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from compass_ray.config import ConfigError, RunConfig
from compass_ray.config.full_finetuning import PACKAGED_CONFIGS
from compass_ray.models.errors import ModelError

_RUN_SETTING_OF_KEY = {
    "train_batch_size": "train.batch_size",
    "train_micro_batch_size_per_gpu": "full.micro_batch",
    "gradient_accumulation_steps": "train.batch_size and full.micro_batch",
    "gradient_clipping": "train.clip_norm",
    "bf16": "train.dtype",
    "fp16": "train.dtype",
    "optimizer": "full.learning_rate, train.betas and train.weight_decay",
    "scheduler": "train.warmup_ratio",
}
"""DeepSpeed keys that compass_ray sets, and the run settings that they come from."""


def require_deepspeed() -> None:
    """Check that DeepSpeed is installed, without importing it.

    Raises:
        ModelError: it is not installed.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise ModelError(
            "select.methods has compass_fft, which needs DeepSpeed, but it is not installed; install torch and setuptools, "
            "then run DS_BUILD_OPS=0 pip install --no-build-isolation deepspeed, or remove compass_fft"
        )


def read_deepspeed_config(name: str) -> dict[str, Any]:
    """Read the file of ``full.deepspeed``: a packaged file by its name, or any file by its path.

    Raises:
        ConfigError: the file is missing or not a JSON object, has a key that the run sets, or has no ZeRO stage of 1 to 3.
    """
    settings = _parse(name, _read_text(name))
    if conflicts := [key for key in _RUN_SETTING_OF_KEY if settings.get(key, "auto") != "auto"]:
        raise ConfigError(
            f"full.deepspeed {name!r} sets {conflicts[0]!r}. compass_ray sets it from {_RUN_SETTING_OF_KEY[conflicts[0]]}; "
            f"remove it from the file."
        )
    zero = settings.get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, dict) else None
    if stage not in (1, 2, 3):
        raise ConfigError(f"full.deepspeed {name!r} has zero_optimization.stage {stage!r}; expected 1, 2 or 3")
    return {key: value for key, value in settings.items() if key not in _RUN_SETTING_OF_KEY}


def with_run_settings(settings: Mapping[str, Any], config: RunConfig, workers: int) -> dict[str, Any]:
    """Add batch size, precision and clipping of the run to ``settings``, for this number of workers.

    >>> run = RunConfig(languages=["sw"])
    >>> with_run_settings({}, run, workers=4)["gradient_accumulation_steps"]
    4
    """
    train = config.train
    return {
        **settings,
        "train_micro_batch_size_per_gpu": config.full.micro_batch,
        "gradient_accumulation_steps": math.ceil(train.batch_size / (workers * config.full.micro_batch)),
        "gradient_clipping": train.clip_norm,
        "bf16": {"enabled": train.dtype == "bfloat16"},
        # DeepSpeed's CPU Adam compiles for a minute at first use; torch's is used instead.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
    }


def _read_text(name: str) -> str:
    if name in PACKAGED_CONFIGS:
        return (resources.files("compass_ray") / "presets" / "deepspeed" / f"{name}.json").read_text("utf-8")
    try:
        return Path(name).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"full.deepspeed {name!r} cannot be read ({error}); use {' or '.join(PACKAGED_CONFIGS)}, or the path of a JSON file"
        ) from None


def _parse(name: str, text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"full.deepspeed {name!r} is not valid JSON ({error}); correct the file") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"full.deepspeed {name!r} is a {type(settings).__name__}; expected a JSON object")
    return settings
