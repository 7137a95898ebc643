"""The status of an environment, also of one without vLLM."""

from __future__ import annotations

import json
import platform

import pytest

from compass_ray.vllm_plugin import installation, status


def test_an_environment_without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_version", lambda package: {"ray": "2.60.0"}.get(package))
    found = status.read_status()
    assert found.vllm is None
    assert found.problem == "vLLM is not installed."
    assert (found.python, found.ray) == (platform.python_version(), "2.60.0")


def test_a_vllm_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_version", lambda package: "0.32.0")
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    assert "ModuleNotFoundError" in (status.read_status().problem or "")


def test_a_vllm_that_accepts_dora_itself_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_version", lambda package: "0.99.0")
    monkeypatch.setattr(installation, "find_reason_against", lambda: installation.NOT_NEEDED)
    assert status.read_status().problem is None


def test_the_last_line_of_the_output_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    status.print_status()
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(printed) == {"python", "vllm", "torch", "ray", "compass_ray", "registered", "problem"}
