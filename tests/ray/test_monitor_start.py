"""A service whose monitor cannot start: it answers, and every place that shows its state says why."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from compass_ray import registry
from compass_ray.config import with_overrides
from compass_ray.serving import app, monitor_actor
from tests.ray import tiny_run


@pytest.mark.slow
def test_a_service_without_its_monitor_answers_and_says_why(ray_cluster: None, tmp_path: Path) -> None:
    run, config = tiny_run.make(tmp_path)
    registry.promote(run, "sw", "v0001")
    broken = with_overrides(config, ["embed.encoder=/no/encoder"])
    endpoint = app.start(run.uri, broken, port=0)
    try:
        failure = monitor_actor.find_failure(run.uri, broken)
        assert "encoder '/no/encoder' does not exist on this machine" in failure
        with httpx.Client(base_url=endpoint.url, timeout=30) as http:
            body = {"messages": [{"role": "user", "content": tiny_run.prompt("sw", 1)}]}
            assert http.post("/v1/chat/completions", json=body).status_code == 200
            assert http.get("/v1/compass/status").json()["monitor"] == {"failed": failure}
            assert http.get("/healthz").json() == {"status": "degraded", "down": "monitor"}
            assert 'compass_part_up{part="monitor"} 0.0' in http.get("/metrics").text
    finally:
        app.stop(endpoint)
