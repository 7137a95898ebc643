"""The monitor as a named, detached Ray actor, and its client.

The actor's name is derived from the run's URI. It is started on first use and always restarted by Ray. Its state is stored in
the run directory, so it can resume on another node. If it cannot load encoder, clusters or state, it stays alive, says why and
tries again. A background thread deletes expired data and follows re-clusterings, even without traffic. A lock serializes all
calls. The work is done in `monitoring.monitor.TrafficMonitor`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.core.drift import QualitySignals
from compass_ray.heap_trim import trim_heap_forever
from compass_ray.monitoring.cluster_assigner import load_prompt_assigner
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import Acknowledgement, CanaryAnswers, Feedback, Observation, WindowReady
from compass_ray.serving.actor_names import NAMESPACE, monitor_name

logger = logging.getLogger(__name__)

_MAINTENANCE_INTERVAL_S = 60
_POLL_INTERVAL_S = 0.05
_START_SECONDS = 120.0
"""Longest time in which `find_failure` waits for a monitor that loads its encoder."""
_WAIT_SECONDS = 0.5


class MonitorStartError(RuntimeError):
    """The monitor could not load what it needs; it tries again."""


class MonitorActor:
    """The process that owns a run's monitor."""

    def __init__(self, run_uri: str, config: dict[str, Any]) -> None:
        """Load the encoder and the clusters, and restore the state. Does not raise: Ray starts no such actor again."""
        import torch

        self.run, self.config = RunDir(run_uri), RunConfig.model_validate(config)
        torch.set_num_threads(self.config.resources.threads_per_worker)
        self.loaded: TrafficMonitor | None = None
        self.start_failure = ""
        self.lock = threading.Lock()
        self._load()
        trim_heap_forever()
        threading.Thread(target=self._maintain_forever, name="maintenance", daemon=True).start()

    @property
    def monitor(self) -> TrafficMonitor:
        """The monitor.

        Raises:
            MonitorStartError: it could not be loaded.
        """
        if self.loaded is None:
            raise MonitorStartError(f"the monitor cannot start: {self.start_failure}")
        return self.loaded

    def failure(self) -> str:
        """Why the monitor could not be loaded; empty if it runs."""
        return self.start_failure

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
        """Window, phase and checks of every language; only ``failed``, the reason, if the monitor could not be loaded."""
        with self.lock:
            return self.monitor.status() if self.loaded else {"failed": self.start_failure}

    def _load(self) -> None:
        try:
            assigner = load_prompt_assigner(self.run, self.config)
            self.loaded = TrafficMonitor(self.run, self.config, assigner, time.time, elapsed=time.monotonic)
            self.start_failure = ""
        except Exception as error:  # a model, a cluster file or the state: the reason is shown to the operator
            self.start_failure = describe_failure(error)
            logger.exception("monitor: cannot start, retrying in %d s", _MAINTENANCE_INTERVAL_S)

    def _maintain_forever(self) -> None:
        while True:
            time.sleep(_MAINTENANCE_INTERVAL_S)
            try:
                with self.lock:
                    if self.loaded is None:
                        self._load()
                        continue
                    self.monitor.erase_expired()
                    self.monitor.sync_clusters()
            except Exception:
                logger.exception(
                    "monitor: deletion of expired prompts or cluster sync failed, retrying in %d s", _MAINTENANCE_INTERVAL_S
                )


def describe_failure(error: Exception) -> str:
    """The first line of an error, with its type if it is not one of this package's own."""
    lines = str(error).strip().splitlines() or [""]
    is_own = type(error).__module__.startswith("compass_ray.")
    return lines[0] if is_own else f"{type(error).__name__}: {lines[0]}".removesuffix(": ")


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


def find_failure(run_uri: str, config: RunConfig, cancelled: Callable[[], bool] = lambda: False) -> str:
    """Why the run's monitor could not start; empty if it runs. Waits until it has loaded, or ``cancelled`` returns true."""
    asked = connect(run_uri, config).actor.failure.remote()
    for _ in range(round(_START_SECONDS / _WAIT_SECONDS)):
        if cancelled():
            return ""
        finished, _ = ray.wait([asked], timeout=_WAIT_SECONDS)
        if finished:
            return _read_failure(asked)
    return f"it has not loaded within {_START_SECONDS:g} s"


def _read_failure(asked: Any) -> str:
    try:
        failure: str = ray.get(asked)
    except ray.exceptions.RayError as error:
        return describe_failure(error)
    return failure


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
