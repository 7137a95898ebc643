"""What DeepSpeed is told: how weights, gradients and optimiser state are spread, from a JSON file; the rest from the run.

Key property: a file says only how the work is spread. What is computed (batch, precision, clipping, optimiser, learning
rate) comes from the run's own settings, so two clusters with different files train the same model. Starts nothing.
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
from compass_ray.models.errors import ModelError

PACKAGED_CONFIGS = ("zero2", "zero3")
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
"""Keys of a DeepSpeed file that say what is computed, and the settings that say it here."""


def require_deepspeed() -> None:
    """Check that DeepSpeed is installed, without importing it.

    Raises:
        ModelError: it is not.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise ModelError(
            "select.methods has compass_fft, which needs DeepSpeed, and that is not installed: "
            "DS_BUILD_OPS=0 pip install --no-build-isolation deepspeed, once torch and setuptools are there; "
            "or leave compass_fft out"
        )


def read_deepspeed_config(name: str) -> dict[str, Any]:
    """The settings of ``full.deepspeed``: a packaged file by its name, or any file by its path.

    Raises:
        ConfigError: no such file, no JSON object, a key that belongs to the run, or a ZeRO stage that spreads nothing.
    """
    found = _parse(name, _read_text(name))
    if taken := [key for key in _RUN_SETTING_OF_KEY if found.get(key, "auto") != "auto"]:
        raise ConfigError(
            f"full.deepspeed {name!r} sets {taken[0]!r}, which {_RUN_SETTING_OF_KEY[taken[0]]} says here; take it out of the file"
        )
    zero = found.get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, dict) else None
    if stage not in (1, 2, 3):
        raise ConfigError(f"full.deepspeed {name!r} has zero_optimization.stage {stage!r}; expected 1, 2 or 3")
    return {key: value for key, value in found.items() if key not in _RUN_SETTING_OF_KEY}


def with_run_settings(settings: Mapping[str, Any], config: RunConfig, workers: int) -> dict[str, Any]:
    """The same with the run's own batch, precision and clipping, for so many workers.

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
        # Its own Adam for the CPU compiles for a minute when it is first used; torch's is passed in.
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
            f"full.deepspeed {name!r} cannot be read ({error}); give {' or '.join(PACKAGED_CONFIGS)}, or the path of a JSON file"
        ) from None


def _parse(name: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"full.deepspeed {name!r} is no JSON ({error}); correct the file") from None
    if not isinstance(found, dict):
        raise ConfigError(f"full.deepspeed {name!r} holds a {type(found).__name__}; expected a JSON object")
    return found
