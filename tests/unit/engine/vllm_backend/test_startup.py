"""What is said before vLLM opens."""

from __future__ import annotations

from typing import Any

import pytest

from compass_ray.config import load_run_config
from compass_ray.engine.vllm_backend import startup


class Opened(Exception):
    """The point where the engine would open."""


@pytest.mark.parametrize(("gpus", "warns"), [(0, True), (1, False)])
def test_gpus_that_ray_does_not_reserve_are_named(
    gpus: int, warns: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(*values: Any) -> None:
        raise Opened

    monkeypatch.setattr(startup.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(startup, "_set_variables", lambda threads, is_cpu: None)
    monkeypatch.setattr(startup, "load_base_without_weights", stop)
    config = load_run_config("atlas-test", overrides=["serve.engine=vllm", f"resources.replica_gpus={gpus}"])
    with pytest.raises(Opened):
        startup.open_vllm_engine(config)
    assert ("set resources.replica_gpus=1" in caplog.text) == warns
