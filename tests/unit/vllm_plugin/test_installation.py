"""Without a vLLM that fits, nothing is installed and nothing is raised; the reason is logged once."""

from __future__ import annotations

import logging
import sys
from types import ModuleType
from typing import Any

import pytest

from compass_ray import vllm_plugin
from compass_ray.vllm_plugin import installation


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(installation, "_STATE", [])
    caplog.set_level(logging.INFO, logger=installation.logger.name)


def _stand_in(monkeypatch: pytest.MonkeyPatch, version: str, refusals: list[str]) -> Any:
    """A vLLM with a version and an own check of adapters, and nothing else."""
    names = ("vllm", "vllm.platforms", "vllm.lora", "vllm.lora.peft_helper")
    modules: dict[str, Any] = {name: ModuleType(name) for name in names}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    modules["vllm"].__version__ = version
    modules["vllm.platforms"].current_platform = type("Platform", (), {"can_update_inplace": lambda self: True})()
    helper = type("Helper", (), {"__init__": lambda self, **settings: None, "_validate_features": lambda self: refusals})
    modules["vllm.lora.peft_helper"].PEFTHelper = helper
    return helper


def test_without_vllm_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert "vLLM's refusal of DoRA stays" in installation.install_once()


def test_the_reason_is_logged_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    _stand_in(monkeypatch, "0.99.0", ["vLLM does not yet support DoRA."])
    vllm_plugin.register()
    vllm_plugin.register()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        "vllm_plugin: vLLM's refusal of DoRA stays: vLLM 0.99.0 is not one of the tested versions"
    )


@pytest.mark.parametrize("version", ["0.32.0", "0.99.0"])
def test_it_steps_aside_if_vllm_accepts_dora(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    helper = _stand_in(monkeypatch, version, ["vLLM does not support LoRA bias (lora_bias)."])
    before = dict(vars(helper))
    assert installation.install_once() == "This vLLM accepts DoRA adapters itself. The plugin does nothing."
    assert dict(vars(helper)) == before


def test_a_vllm_without_the_functions_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = _stand_in(monkeypatch, "0.32.0", ["vLLM does not yet support DoRA."])
    before = dict(vars(helper))
    result = installation.install_once()
    assert "_apply_sync is missing" in result
    assert dict(vars(helper)) == before


def test_a_class_method_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        @classmethod
        def load(cls, path: str) -> str:
            return f"{cls.__name__} {path}"

        def run(self) -> str:
            return "ran"

    module: Any = ModuleType("other_model")
    module.Model = Model
    monkeypatch.setitem(sys.modules, "other_model", module)
    installation._replace("other_model:Model", "load", lambda original: lambda cls, path: original(cls, path).upper())
    installation._replace("other_model:Model", "run", lambda original: lambda self: original(self) + " twice")
    assert Model.load("a") == "MODEL A"
    assert Model().run() == "ran twice"
