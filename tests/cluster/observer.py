"""A driver that hands prompts to a run's monitor, waits to be told, and says what the monitor knows before and after."""

from __future__ import annotations

import json
import sys

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.monitoring.observations import Feedback, Observation
from compass_ray.serving import monitor_actor
from compass_ray.serving.monitor_actor import MonitorClient


def told(monitor: MonitorClient) -> str:
    """One line of JSON."""
    return json.dumps(monitor.status()["languages"]["sw"])


def main(folder: str) -> None:
    """Sixty prompts and a rating are acknowledged before the first line is printed."""
    run = RunDir(folder)
    config = run.read_config()
    ray_session.start(config.resources)
    monitor = monitor_actor.connect(run.uri, config)
    asked = [Observation(f"id-{n}", "sw", f"swali la {n}", "v0001", 1.0 + n / 100, 100.0 + n) for n in range(60)]
    assert monitor.record(asked).stored == 60
    assert monitor.record_feedback([Feedback("id-7", "bad", None, None, "key", 200.0)]).stored == 1
    print(told(monitor), flush=True)
    sys.stdin.readline()
    print(told(monitor), flush=True)
    monitor_actor.stop(run.uri)


if __name__ == "__main__":
    main(sys.argv[1])
