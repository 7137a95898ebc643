"""Installation of the patches: all of them, or none with the reason in the log. It never raises, so it never stops vLLM."""

from __future__ import annotations

import inspect
import logging
import os
from typing import Any

from compass_ray.vllm_plugin.compatibility import check_version, find_function, find_problems, resolve

# Below vLLM's own logger, whose handlers write it.
logger = logging.getLogger("vllm.compass_ray.vllm_plugin")

_STATE: list[str] = []
"""Result of the installation in this process, if it was tried."""
INSTALLED = "DoRA adapters are accepted."
NOT_NEEDED = "This vLLM accepts DoRA adapters itself. The plugin does nothing."
PLAIN_VARIABLE = "COMPASS_DORA_PLAIN"
"""Set to 1, a CPU takes the path of GPUs, for tests."""


def install_once() -> str:
    """Install the patches at the first call in this process; return what was done, one sentence."""
    if not _STATE:
        _STATE.append(_try_install())
    return _STATE[0]


def _try_install() -> str:
    try:
        result = _install()
    except Exception as error:
        result = f"vLLM's refusal of DoRA stays: {type(error).__name__}: {error}"
    log = logger.info if result == INSTALLED else logger.warning
    log("vllm_plugin: %s", result)
    return result


def _install() -> str:
    reason = find_reason_against()
    if reason:
        return reason
    from vllm.platforms import current_platform

    from compass_ray.vllm_plugin.patches import PATCHES

    is_grouped = current_platform.is_cpu() and os.environ.get(PLAIN_VARIABLE) != "1"
    for patch in PATCHES:
        if is_grouped or not patch.on_cpu_only:
            _replace(patch.target.owner, patch.target.name, patch.wrap)
    return INSTALLED


def find_reason_against() -> str | None:
    """Why the patches are not installed, or None. It changes nothing."""
    import vllm
    from vllm.platforms import current_platform

    if _accepts_dora():
        return NOT_NEEDED
    problem = check_version(vllm.__version__)
    if problem:
        return f"vLLM's refusal of DoRA stays: {problem}"
    if not current_platform.can_update_inplace():
        return f"vLLM's refusal of DoRA stays: {current_platform.device_name} cannot change tensors in place."
    from compass_ray.vllm_plugin.engine_types import load_engine_types
    from compass_ray.vllm_plugin.patches import EXPECTED, NAMES

    problems = find_problems(EXPECTED, NAMES)
    if not problems:
        load_engine_types()
    return f"vLLM's refusal of DoRA stays: {' '.join(problems)}" if problems else None


def _accepts_dora() -> bool:
    """Whether vLLM's own check of an adapter has nothing against DoRA. False if a version has no such check."""
    try:
        from vllm.lora.peft_helper import PEFTHelper

        helper = PEFTHelper(r=1, lora_alpha=1, target_modules=[], use_dora=True)
        return not any("dora" in message.lower() for message in helper._validate_features())
    except (ImportError, AttributeError, TypeError):
        return False


def _replace(owner: str, name: str, wrap: Any) -> None:
    holder = resolve(owner)
    is_class_method = isinstance(inspect.getattr_static(holder, name), classmethod)
    wrapped = wrap(find_function(owner, name))
    setattr(holder, name, classmethod(wrapped) if is_class_method else wrapped)
