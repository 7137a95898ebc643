"""The adapter server after its engine stopped: it ends its sync without a message, and its health check fails."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from compass_ray.engine.protocol import EngineStoppedError
from compass_ray.registry import Catalogue
from compass_ray.serving import adapter_server
from compass_ray.serving.adapter_server import AdapterServer


def test_a_stopped_engine_ends_the_sync_and_fails_the_health_check(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def catalogue() -> Catalogue:
        raise errors.pop(0)

    errors = [OSError("the store is away"), EngineStoppedError("stopped")]
    server = AdapterServer.__new__(AdapterServer)
    monkeypatch.setattr(server, "catalogue", catalogue, raising=False)
    monkeypatch.setattr(server, "generation", SimpleNamespace(is_healthy=False), raising=False)
    monkeypatch.setattr(adapter_server, "SYNC_INTERVAL_S", 0.0)
    asyncio.run(asyncio.wait_for(server._sync_forever(), 10))
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [OSError]
    with pytest.raises(RuntimeError, match="unhealthy"):
        server.check_health()
