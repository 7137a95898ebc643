"""Writers of the two export formats. Each loads its result with PEFT on the base model, or with transformers alone.

Key property: the reference logits come from this package's own serving layers, not from the library that loads the export.
The base model and the merged model are not in memory at the same time.
"""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from typing import Any

from compass_ray.adapters.peft_io import CONFIG_NAME, WEIGHTS_NAME, read_adapter
from compass_ray.config import RunConfig
from compass_ray.export.parity import ExpectedOutputs, Parity, check_token_ids, compare_logits, compute_expected
from compass_ray.models.base_model import find_end_token_ids, load_base
from compass_ray.models.model_resolver import hub_id, resolve_model
from compass_ray.models.remote_code import load_options


def write_peft(config: RunConfig, source: Path, folder: Path) -> Parity:
    """Write the adapter in ``source`` as a PEFT directory with the base model's tokenizer, and compare it.

    Raises:
        ModelError: PEFT gives different results with it.
    """
    from peft import PeftModel

    base = load_base(config.train)
    expected = compute_expected(base, read_adapter(source), config.train.dtype)
    shutil.copyfile(source / WEIGHTS_NAME, folder / WEIGHTS_NAME)
    (folder / CONFIG_NAME).write_text(json.dumps(_portable_peft_config(config, source), indent=2, sort_keys=True), "utf-8")
    base.tokenizer.save_pretrained(str(folder))
    _check_tokenizer(folder, expected, config)
    return compare_logits(expected, PeftModel.from_pretrained(base.model, str(folder)).eval(), base.device)


def write_merged(config: RunConfig, source: Path, folder: Path) -> Parity:
    """Write a complete model with the adapter in ``source`` merged in, and compare it.

    Raises:
        ModelError: transformers gives different results with it.
    """
    from transformers import AutoModelForCausalLM

    expected, device = _merge(config, source, folder)
    gc.collect()  # free the base model before a model of the same size is loaded
    _check_tokenizer(folder, expected, config)
    settings = {"dtype": config.train.dtype, **_code_options(config)}
    return compare_logits(expected, AutoModelForCausalLM.from_pretrained(str(folder), **settings).to(device).eval(), device)


def _merge(config: RunConfig, source: Path, folder: Path) -> tuple[ExpectedOutputs, Any]:
    from peft import PeftModel

    base = load_base(config.train)
    expected = compute_expected(base, read_adapter(source), config.train.dtype)
    merged = PeftModel.from_pretrained(base.model, str(source)).merge_and_unload()
    if ends := sorted(find_end_token_ids(base)):
        merged.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    merged.save_pretrained(str(folder))
    base.tokenizer.save_pretrained(str(folder))
    return expected, base.device


def _portable_peft_config(config: RunConfig, source: Path) -> dict[str, Any]:
    """PEFT's settings, with a base model name that other engines can resolve."""
    settings: dict[str, Any] = json.loads((source / CONFIG_NAME).read_text("utf-8"))
    name = config.train.base_model
    settings["base_model_name_or_path"] = hub_id(name) or resolve_model(name, "base_model")
    if hub_id(name):
        settings["revision"] = config.train.revision
    return settings


def _check_tokenizer(folder: Path, expected: ExpectedOutputs, config: RunConfig) -> None:
    from transformers import AutoTokenizer

    settings = _code_options(config)
    check_token_ids(expected, AutoTokenizer.from_pretrained(str(folder), **settings))


def _code_options(config: RunConfig) -> dict[str, Any]:
    """How the base model's code is loaded for a directory that was written here."""
    return {name: value for name, value in load_options(config.train).items() if name != "revision"}
