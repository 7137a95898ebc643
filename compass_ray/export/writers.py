"""Write an export and load it again as another engine would: with PEFT on the base model, or with transformers alone.

Key property: the logits that it is compared with are those of this package's own layers, which serve, not of the library
that loads it. Of a merged model only one is in memory at a time.
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
from compass_ray.models.base_model import load_base
from compass_ray.models.model_resolver import hub_id, resolve_model


def write_peft(config: RunConfig, source: Path, folder: Path) -> Parity:
    """A PEFT directory of the adapter in ``source``, with the base's tokenizer, compared.

    Raises:
        ModelError: PEFT computes something else with it.
    """
    from peft import PeftModel

    base = load_base(config.train)
    wanted = compute_expected(base, read_adapter(source), config.train.dtype)
    shutil.copyfile(source / WEIGHTS_NAME, folder / WEIGHTS_NAME)
    (folder / CONFIG_NAME).write_text(json.dumps(_portable_peft_config(config, source), indent=2, sort_keys=True), "utf-8")
    base.tokenizer.save_pretrained(str(folder))
    _check_tokenizer(folder, wanted, config)
    return compare_logits(wanted, PeftModel.from_pretrained(base.model, str(folder)).eval(), base.device)


def write_merged(config: RunConfig, source: Path, folder: Path) -> Parity:
    """A whole model with the adapter in ``source`` merged into it, compared.

    Raises:
        ModelError: transformers computes something else with it.
    """
    from transformers import AutoModelForCausalLM

    wanted, device = _merge(config, source, folder)
    gc.collect()  # the base's memory, before its like is loaded
    _check_tokenizer(folder, wanted, config)
    settings = {"dtype": config.train.dtype, "trust_remote_code": config.train.trust_remote_code}
    return compare_logits(wanted, AutoModelForCausalLM.from_pretrained(str(folder), **settings).to(device).eval(), device)


def _merge(config: RunConfig, source: Path, folder: Path) -> tuple[ExpectedOutputs, Any]:
    from peft import PeftModel

    base = load_base(config.train)
    wanted = compute_expected(base, read_adapter(source), config.train.dtype)
    PeftModel.from_pretrained(base.model, str(source)).merge_and_unload().save_pretrained(str(folder))
    base.tokenizer.save_pretrained(str(folder))
    return wanted, base.device


def _portable_peft_config(config: RunConfig, source: Path) -> dict[str, Any]:
    """PEFT's settings, with a base model that whoever loads it finds."""
    described: dict[str, Any] = json.loads((source / CONFIG_NAME).read_text("utf-8"))
    name = config.train.base_model
    described["base_model_name_or_path"] = hub_id(name) or resolve_model(name, "base_model")
    if hub_id(name):
        described["revision"] = config.train.revision
    return described


def _check_tokenizer(folder: Path, wanted: ExpectedOutputs, config: RunConfig) -> None:
    from transformers import AutoTokenizer

    settings = {"trust_remote_code": config.train.trust_remote_code}
    check_token_ids(wanted, AutoTokenizer.from_pretrained(str(folder), **settings))
