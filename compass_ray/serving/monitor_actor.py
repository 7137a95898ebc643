"""The monitor as a named, detached Ray actor, and the client that reaches it.

Key property: the actor is addressed by the run it watches, made where it is missing, and restarted by Ray for ever; its state is
the run directory's, so a restart on another node goes on. A thread of its own erases what has become too old, and takes windows
to clusters that were fitted anew, traffic or none; a lock lets one caller at a time in. All of its work is
`monitoring.monitor.TrafficMonitor`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from compass_ray.artifacts import RunDir, content_hash
from compass_ray.config import RunConfig
from compass_ray.core.drift import QualitySignals
from compass_ray.monitoring.cluster_assigner import load_prompt_assigner
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import Acknowledgement, CanaryAnswers, Feedback, Observation, WindowReady

logger = logging.getLogger(__name__)

NAMESPACE = "compass-ray"
_MAINTENANCE_INTERVAL_S = 60
_POLL_INTERVAL_S = 0.05


class MonitorActor:
    """One process that owns a run's monitor."""

    def __init__(self, run_uri: str, config: dict[str, Any]) -> None:
        """Load the encoder and the clusters, and rebuild the state."""
        import torch

        parsed = RunConfig.model_validate(config)
        torch.set_num_threads(parsed.resources.threads_per_worker)
        run = RunDir(run_uri)
        self.monitor = TrafficMonitor(run, parsed, load_prompt_assigner(run, parsed), time.time)
        self.lock = threading.Lock()
        threading.Thread(target=self._maintain_forever, name="looking", daemon=True).start()

    def record(self, observations: Sequence[Observation]) -> Acknowledgement:
        """Take in answered prompts; they are on disk on return."""
        with self.lock:
            return self.monitor.record(observations)

    def rate(self, feedback: Sequence[Feedback]) -> Acknowledgement:
        """Take in what clients said of replies; it is on disk on return."""
        with self.lock:
            return self.monitor.record_feedback(feedback)

    def canaries(self, answers: Sequence[CanaryAnswers]) -> Acknowledgement:
        """Take in how versions answered canary questions; it is on disk on return."""
        with self.lock:
            return self.monitor.canaries(answers)

    def signals(self, language: str) -> dict[str, QualitySignals]:
        """How the last replies of each of the last versions that answered in a language were."""
        with self.lock:
            return self.monitor.signals(language)

    def ready(self) -> list[WindowReady]:
        """Windows that wait for an update."""
        with self.lock:
            return self.monitor.ready()

    def reset(self, language: str, version: str) -> None:
        """Compare with the reference of ``version`` from now on."""
        with self.lock:
            self.monitor.reset(language, version)

    def release(self, language: str) -> None:
        """An update was refused: watch on."""
        with self.lock:
            self.monitor.release(language)

    def status(self) -> dict[str, Any]:
        """Every language's window, phase and checks."""
        with self.lock:
            return self.monitor.status()

    def _maintain_forever(self) -> None:
        while True:
            time.sleep(_MAINTENANCE_INTERVAL_S)
            try:
                with self.lock:
                    self.monitor.erase_expired()
                    self.monitor.sync_clusters()
            except Exception:
                logger.exception("erasing or following clusters failed; it is tried again in %d seconds", _MAINTENANCE_INTERVAL_S)


@dataclass(frozen=True)
class MonitorClient:
    """The monitor of a run, for callers that may wait for it."""

    actor: Any

    def record(self, observations: Sequence[Observation]) -> Acknowledgement:
        """Take in answered prompts; they are on disk on return."""
        acknowledged: Acknowledgement = ray.get(self.actor.record.remote(list(observations)))
        return acknowledged

    def rate(self, feedback: Sequence[Feedback]) -> Acknowledgement:
        """Take in what clients said of replies; it is on disk on return."""
        acknowledged: Acknowledgement = ray.get(self.actor.rate.remote(list(feedback)))
        return acknowledged

    def canaries(self, answers: Sequence[CanaryAnswers]) -> Acknowledgement:
        """Take in how versions answered canary questions; it is on disk on return."""
        acknowledged: Acknowledgement = ray.get(self.actor.canaries.remote(list(answers)))
        return acknowledged

    def signals(self, language: str) -> dict[str, QualitySignals]:
        """How the last replies of each of the last versions that answered in a language were."""
        signals: dict[str, QualitySignals] = ray.get(self.actor.signals.remote(language))
        return signals

    def ready(self) -> list[WindowReady]:
        """Windows that wait for an update."""
        windows: list[WindowReady] = ray.get(self.actor.ready.remote())
        return windows

    def reset(self, language: str, version: str) -> None:
        """Compare with the reference of ``version`` from now on."""
        ray.get(self.actor.reset.remote(language, version))

    def release(self, language: str) -> None:
        """An update was refused: watch on."""
        ray.get(self.actor.release.remote(language))

    def status(self) -> dict[str, Any]:
        """Every language's window, phase and checks."""
        status: dict[str, Any] = ray.get(self.actor.status.remote())
        return status


def monitor_name(run_uri: str) -> str:
    """The actor's name; the same for every spelling of a local path."""
    return f"monitor-{content_hash(RunDir(run_uri).uri)}"


def connect(run_uri: str, config: RunConfig) -> MonitorClient:
    """The monitor of a run, started if it is not there."""
    # A call that a restart interrupted is made again: each one done twice is as if done once.
    options: dict[str, Any] = {
        "name": monitor_name(run_uri),
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_task_retries": -1,
        "num_cpus": config.resources.replica_cpus,
        "resources": dict(config.resources.replica_resources),
    }
    actor = ray.remote(MonitorActor).options(**options)
    return MonitorClient(actor.remote(RunDir(run_uri).uri, config.model_dump(mode="json")))


def find_running(run_uri: str) -> MonitorClient | None:
    """The monitor of a run where one runs on this cluster; starts none."""
    try:
        return MonitorClient(ray.get_actor(monitor_name(run_uri), namespace=NAMESPACE))
    except ValueError:
        return None


def restart_if_running(run_uri: str, config: RunConfig) -> None:
    """Put a monitor with these settings in the place of one that runs, which may have others; starts none where none runs."""
    if ray.is_initialized() and find_running(run_uri):
        stop(run_uri)
        connect(run_uri, config)


def stop(run_uri: str) -> None:
    """End the actor, where it runs, and return when its name is free; what it acknowledged stays in the run."""
    while found := find_running(run_uri):
        ray.kill(found.actor, no_restart=True)
        time.sleep(_POLL_INTERVAL_S)
