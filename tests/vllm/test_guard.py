"""The plugin installs itself only into a vLLM that it knows. Each case is a process of its own, since patches stay."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

REFUSED = "vLLM does not yet support DoRA."
LOG = "import logging\nlogging.basicConfig(level=logging.INFO)\n"
SHOW = """
from vllm.lora.peft_helper import PEFTHelper
from vllm.config.lora import LoRAConfig
from vllm.plugins import load_general_plugins
load_general_plugins()
try:
    PEFTHelper(r=1, lora_alpha=1, target_modules=[], use_dora=True).validate_legal(LoRAConfig())
    print("accepted")
except ValueError as error:
    print(error)
"""

WITHOUT_CUDA = "__import__('types').SimpleNamespace(max_lora_rank=16, fully_sharded_loras=False)"
"""In place of vLLM's configuration, which refuses two streams on a CPU."""


def _run(before: str, after: str = SHOW, **environment: str) -> tuple[str, str]:
    """Last line of the output, and the log."""
    settings = os.environ | environment
    done = subprocess.run([sys.executable, "-c", LOG + before + after], capture_output=True, text=True, env=settings, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1], done.stdout + done.stderr


def test_the_entry_point_installs_it() -> None:
    said, log = _run("")
    assert said == "accepted"
    assert log.count("vllm_plugin: DoRA adapters are accepted.") == 1


def test_it_can_be_left_out() -> None:
    assert _run("", VLLM_PLUGINS="another")[0] == REFUSED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            "from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA as Layer\ndel Layer._apply_sync",
            "_apply_sync is missing",
        ),
        ("from vllm.lora import lora_model\nlora_model.parse_fine_tuned_lora_name = lambda key: key", "has the parameters key"),
        ("import vllm\nvllm.__version__ = '0.99.0'", "vLLM 0.99.0 is not one of the known versions"),
    ],
)
def test_a_changed_vllm_keeps_its_refusal_and_the_reason_is_logged_once(change: str, reason: str) -> None:
    said, log = _run(change, "\nfrom compass_ray.vllm_plugin import register\nregister()\n" + SHOW)
    assert said == REFUSED
    assert log.count("vllm_plugin: vLLM's refusal of DoRA stays") == 1
    assert reason in log


def test_nothing_is_patched_if_one_function_is_not_as_expected() -> None:
    change = """
from vllm.lora.lora_model import LoRAModel
from vllm.lora.worker_manager import WorkerLoRAManager as Worker
from vllm.lora.model_manager import LoRAModelManager as Manager
del Manager.remove_all_adapters
before = Worker._load_adapter, LoRAModel.from_lora_tensors.__func__, Manager.activate_adapter
from compass_ray.vllm_plugin import register
register()
print(before == (Worker._load_adapter, LoRAModel.from_lora_tensors.__func__, Manager.activate_adapter))
"""
    assert _run(change, "")[0] == "True"


def test_it_steps_aside_if_vllm_accepts_dora() -> None:
    change = """
from vllm.lora.peft_helper import PEFTHelper
PEFTHelper._validate_features = lambda self: []
validate = PEFTHelper.validate_legal
from compass_ray.vllm_plugin import register
register()
print(PEFTHelper.validate_legal is validate)
"""
    said, log = _run(change, "")
    assert said == "True"
    assert "This vLLM accepts DoRA adapters itself. The plugin does nothing." in log


@pytest.mark.parametrize(
    ("config", "environment", "reason"),
    [
        ("LoRAConfig(fully_sharded_loras=True)", {}, "not supported with --fully-sharded-loras"),
        (WITHOUT_CUDA, {"VLLM_LORA_ENABLE_DUAL_STREAM": "1"}, "not supported with VLLM_LORA_ENABLE_DUAL_STREAM=1"),
    ],
)
def test_what_dora_cannot_be_combined_with_is_named(config: str, environment: dict[str, str], reason: str) -> None:
    said, _ = _run("", SHOW.replace("LoRAConfig()", config), **environment)
    assert reason in said


def test_a_rank_above_the_limit_is_refused_as_for_lora() -> None:
    assert "LoRA rank 99 is greater than max_lora_rank 16" in _run("", SHOW.replace("r=1", "r=99"))[0]


def test_compiled_models_of_a_vllm_without_the_plugin_are_not_used() -> None:
    show = "\nfrom vllm.config.lora import LoRAConfig\nfrom vllm.plugins import load_general_plugins\nload_general_plugins()\n"
    show += "print(LoRAConfig().compute_hash())"
    assert _run("", show)[0] != _run("", show, VLLM_PLUGINS="another")[0]


def test_importing_it_loads_neither_torch_nor_ray() -> None:
    code = "import compass_ray.vllm_plugin, sys; print(sorted({'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules)))"
    assert _run(code, "")[0] == "[]"


def test_it_needs_nothing_of_the_package_but_itself() -> None:
    code = "from vllm.plugins import load_general_plugins\nload_general_plugins()\nimport sys\n"
    code += "print(sorted(name for name in sys.modules if name.startswith('compass_ray.') and 'vllm_plugin' not in name))"
    assert _run(code, "")[0] == "['compass_ray.log_records', 'compass_ray.texts']"
