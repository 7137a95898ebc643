"""Tests that need vLLM: `make test-vllm` runs them in the environment of `make vllm-env`. Elsewhere they skip."""

from __future__ import annotations

import os

import pytest

# Read by vLLM in this process and in those that it starts. A test may run on two cores that others use too.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("KMP_BLOCKTIME", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


@pytest.fixture(scope="session", autouse=True)
def _registered() -> None:
    """Without the entry point the engine's own processes would not have the plugin."""
    from compass_ray.vllm_plugin.status import read_status

    status = read_status()
    assert status.registered, "install the package into this environment: make vllm-env"
    assert status.problem is None, status.problem
