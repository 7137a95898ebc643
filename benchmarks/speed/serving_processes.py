"""Processes of a service that this process started: sample their memory once a second, and kill one of them.

Only descendants of this process are considered, so another Ray on the machine is neither counted nor killed. A shared page
counts proportionally to each process (PSS). Linux only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import psutil

from benchmarks.speed.process_memory import MemorySampler

EVERY = 1.0
_TENTHS = 10
_MIB = 1 << 20


class Role(Enum):
    """Roles of the service's processes; the value is the start of the process title."""

    REPLICA = "ray::ServeReplica:compass-ray:adapters"
    INGRESS = "ray::ServeReplica:compass-ray:ingress"
    PROXY = "ray::ProxyActor"
    CONTROLLER = "ray::ServeController"
    MONITOR = "ray::MonitorActor"
    VLLM = "VLLM::"
    """Processes that a replica with vLLM starts."""


@dataclass(frozen=True)
class Sample:
    """Time of the sample, and number and PSS in MiB of the processes of each role."""

    time: float
    counts: dict[Role, int]
    mib: dict[Role, float]


def list_processes(role: Role | None = None) -> list[tuple[Role, psutil.Process]]:
    """The service's processes by process id."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            title = " ".join(child.cmdline()[:1])
        except psutil.Error:
            continue
        found += [(each, child) for each in ([role] if role else Role) if title.startswith(each.value)]
    return sorted(found, key=lambda each: each[1].pid)


def kill_process(role: Role) -> int:
    """Kill one process of the role (SIGKILL), and return its process id.

    Raises:
        LookupError: no process has the role.
    """
    running = list_processes(role)
    if not running:
        raise LookupError(f"no process of this service has the title {role.value}")
    process = running[0][1]
    process.kill()
    return int(process.pid)


def cpu_seconds() -> dict[Role, float]:
    """CPU seconds of the processes of each role so far."""
    spent = dict.fromkeys(Role, 0.0)
    for role, process in list_processes():
        times = process.cpu_times()
        spent[role] += times.user + times.system
    return spent


class ServiceMemorySampler(MemorySampler):
    """Samples the service's memory in a thread."""

    def __init__(self) -> None:
        """Start without samples."""
        super().__init__(EVERY)
        self.samples: list[Sample] = []

    def take_sample(self) -> None:
        """Take one sample."""
        self.samples.append(_sample())

    def growth(self) -> dict[str, float]:
        """Mean of the last quarter divided by the mean of the second, for all processes together and for each role.

        Samples in which a killed process is missing are ignored.
        """
        quarter = len(self.samples) // 4
        most = {role: max((each.counts[role] for each in self.samples), default=0) for role in Role}
        early, late = (_means([each for each in part if each.counts == most]) for part in self._quarters(quarter))
        return {name: late[name] / mib for name, mib in early.items() if mib and late}

    def by_tenth_mib(self) -> dict[str, list[float]]:
        """Means over each tenth of the samples. A killed process is missing until its restart."""
        tenths = [part.tolist() for part in np.array_split(np.array(self.samples, dtype=object), _TENTHS) if len(part)]
        means = [_means(each) for each in tenths]
        return {name: [each[name] for each in means] for name in (means[0] if means else ())}

    def _quarters(self, length: int) -> tuple[list[Sample], list[Sample]]:
        """The samples of the second and of the last quarter."""
        return self.samples[length : 2 * length], self.samples[3 * length :]


def _means(samples: Sequence[Sample]) -> dict[str, float]:
    if not samples:
        return {}
    roles = {role.name.lower(): float(np.mean([each.mib[role] for each in samples])) for role in Role}
    return {"service": sum(roles.values()), **roles}


def _sample() -> Sample:
    counts, mib = dict.fromkeys(Role, 0), dict.fromkeys(Role, 0.0)
    now = time.monotonic()
    for role, process in list_processes():
        try:
            mib[role] += process.memory_full_info().pss / _MIB
        except psutil.Error:
            continue
        counts[role] += 1
    return Sample(now, counts, mib)
