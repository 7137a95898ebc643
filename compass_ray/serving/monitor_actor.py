"""The monitor as a named, detached Ray actor, and its client.

The actor's name is derived from the run's URI. It is started on first use and always restarted by Ray. Its state is stored in
the run directory, so it can resume on another node. A background thread deletes expired data and follows re-clusterings, even
without traffic. A lock serializes all calls. The work is done in `monitoring.monitor.TrafficMonitor`.
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
    """The process that owns a run's monitor."""

    def __init__(self, run_uri: str, config: dict[str, Any]) -> None:
        """Load the encoder and the clusters, and restore the state."""
        import torch

        parsed = RunConfig.model_validate(config)
        torch.set_num_threads(parsed.resources.threads_per_worker)
        run = RunDir(run_uri)
        self.monitor = TrafficMonitor(run, parsed, load_prompt_assigner(run, parsed), time.time)
        self.lock = threading.Lock()
        threading.Thread(target=self._maintain_forever, name="maintenance", daemon=True).start()

    def record(self, observations: Sequence[Observation]) -> Acknowledgement:
        """Record answered prompts. They are stored on disk on return."""
        with self.lock:
            return self.monitor.record(observations)

    def record_feedback(self, feedback: Sequence[Feedback]) -> Acknowledgement:
        """Record feedback on replies. It is stored on disk on return."""
        with self.lock:
            return self.monitor.record_feedback(feedback)

    def record_canary_answers(self, answers: Sequence[CanaryAnswers]) -> Acknowledgement:
        """Record the answers of versions to canary items. They are stored on disk on return."""
        with self.lock:
            return self.monitor.record_canary_answers(answers)

    def signals(self, language: str) -> dict[str, QualitySignals]:
        """Quality signals of the last replies, by version, for the last versions that answered in a language."""
        with self.lock:
            return self.monitor.signals(language)

    def ready(self) -> list[WindowReady]:
        """Windows that are ready for an update."""
        with self.lock:
            return self.monitor.ready()

    def reset_reference(self, language: str, version: str) -> None:
        """Compare with the reference of ``version`` from now on."""
        with self.lock:
            self.monitor.reset_reference(language, version)

    def discard_window(self, language: str) -> None:
        """Discard the ready window and continue to monitor."""
        with self.lock:
            self.monitor.discard_window(language)

    def status(self) -> dict[str, Any]:
        """Window, phase and checks of every language."""
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
                logger.exception(
                    "monitor: deletion of expired prompts or cluster sync failed, retrying in %d s", _MAINTENANCE_INTERVAL_S
                )


@dataclass(frozen=True)
class MonitorClient:
    """Blocking client of a run's monitor."""

    actor: Any

    def record(self, observations: Sequence[Observation]) -> Acknowledgement:
        """Record answered prompts. They are stored on disk on return."""
        acknowledged: Acknowledgement = ray.get(self.actor.record.remote(list(observations)))
        return acknowledged

    def record_feedback(self, feedback: Sequence[Feedback]) -> Acknowledgement:
        """Record feedback on replies. It is stored on disk on return."""
        acknowledged: Acknowledgement = ray.get(self.actor.record_feedback.remote(list(feedback)))
        return acknowledged

    def record_canary_answers(self, answers: Sequence[CanaryAnswers]) -> Acknowledgement:
        """Record the answers of versions to canary items. They are stored on disk on return."""
        acknowledged: Acknowledgement = ray.get(self.actor.record_canary_answers.remote(list(answers)))
        return acknowledged

    def signals(self, language: str) -> dict[str, QualitySignals]:
        """Quality signals of the last replies, by version, for the last versions that answered in a language."""
        signals: dict[str, QualitySignals] = ray.get(self.actor.signals.remote(language))
        return signals

    def ready(self) -> list[WindowReady]:
        """Windows that are ready for an update."""
        windows: list[WindowReady] = ray.get(self.actor.ready.remote())
        return windows

    def reset_reference(self, language: str, version: str) -> None:
        """Compare with the reference of ``version`` from now on."""
        ray.get(self.actor.reset_reference.remote(language, version))

    def discard_window(self, language: str) -> None:
        """Discard the ready window and continue to monitor."""
        ray.get(self.actor.discard_window.remote(language))

    def status(self) -> dict[str, Any]:
        """Window, phase and checks of every language."""
        status: dict[str, Any] = ray.get(self.actor.status.remote())
        return status


def monitor_name(run_uri: str) -> str:
    """The actor's name. Equal for every spelling of a local path."""
    return f"monitor-{content_hash(RunDir(run_uri).uri)}"


def connect(run_uri: str, config: RunConfig) -> MonitorClient:
    """The monitor of a run. Starts it if it does not run."""
    # Ray retries a call that a restart interrupted. All calls are idempotent.
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
    """The monitor of a run if it runs on this cluster, else None."""
    try:
        return MonitorClient(ray.get_actor(monitor_name(run_uri), namespace=NAMESPACE))
    except ValueError:
        return None


def restart_if_running(run_uri: str, config: RunConfig) -> None:
    """Restart a running monitor with these settings. Starts none if none runs."""
    if ray.is_initialized() and find_running(run_uri):
        stop(run_uri)
        connect(run_uri, config)


def stop(run_uri: str) -> None:
    """Stop the actor if it runs, and wait until its name is free. Everything it acknowledged is stored in the run."""
    while running := find_running(run_uri):
        ray.kill(running.actor, no_restart=True)
        time.sleep(_POLL_INTERVAL_S)
