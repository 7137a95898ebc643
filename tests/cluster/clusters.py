"""Ray clusters of a test's own, made of processes that can be killed: a head, nodes, and the commands that join them.

Nothing here connects this process to a cluster, so the suite's own Ray is not disturbed, and nothing is ended but what was
started here: Ray's own `ray stop`, which Ray's test clusters call, ends every cluster of the machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions

from tests.ports import choose_free_port

PATIENCE_SECONDS = 240.0
_ENVIRONMENT = {
    # A token that an earlier Ray left in the user's home would be asked of every node and client.
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    # How soon a node that went without a word is taken for dead: after 3 s instead of 30 s.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS, every: float = 0.02) -> None:
    """Look until the condition holds; fail with what was waited for."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        pause.wait(every)


@dataclass(frozen=True)
class Node:
    """A node of a cluster: the process that started it, and all that came of it."""

    process: subprocess.Popen[bytes]

    def tree(self) -> list[psutil.Process]:
        """Every living process of the node, the first one first."""
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """End it at once and without a word, as a machine that is taken away."""
        for process in self.tree():
            with _gone():
                process.kill()
        self.process.wait()


class _gone:
    """A process that ended meanwhile is no error."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, psutil.Error)


@dataclass
class Cluster:
    """A head and nodes on this machine, with folders and ports of their own."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="cr-", dir="/tmp")))
    """Short: the paths of Ray's sockets are bounded."""
    nodes: list[Node] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    dashboard: int = 0

    def start(self, *options: str, dashboard: bool = False, environment: Mapping[str, str] | None = None) -> Cluster:
        """Start the head."""
        kept = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR")}
        self.environment = {**kept, **_ENVIRONMENT, **(environment or {})}
        self.dashboard = choose_free_port()
        shown = [f"--include-dashboard={str(dashboard).lower()}", f"--dashboard-port={self.dashboard}"]
        ports = ["--dashboard-agent-listen-port=0", f"--ray-client-server-port={choose_free_port()}"]
        where = [] if any(option.startswith("--port") for option in options) else ["--port=0"]
        self._start("--head", f"--temp-dir={self.folder}", *where, *shown, *ports, *options)
        wait_until(lambda: bool(self._address()), "the head of a cluster")
        self.environment["RAY_ADDRESS"] = self._address()
        wait_until(lambda: len(self.alive()) == 1, "the head's own node")
        return self

    def add(self, *nodes: str) -> list[Node]:
        """Start nodes, each with an option of its own, and wait until the head knows them."""
        before = len(self.alive())
        started = [self._join(option) for option in nodes]

        def all_there() -> bool:
            for place, option in enumerate(nodes):
                if started[place].process.poll() is not None:  # on a busy machine a node may give up its own start
                    started[place] = self._join(option)
            return len(self.alive()) == before + len(nodes)

        wait_until(all_there, f"nodes that join; their logs are in {self.folder}", every=0.2)
        return started

    def _join(self, *options: str) -> Node:
        return self._start(f"--address={self._address()}", "--dashboard-agent-listen-port=0", *options)

    def _start(self, *options: str) -> Node:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory=100000000", *options]
        with (self.folder / f"start-{len(self.nodes)}.log").open("wb") as log:
            environment = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        self.nodes.append(Node(process))
        return self.nodes[-1]

    def _address(self) -> str:
        file = self.folder / "ray_current_cluster"
        return file.read_text().strip() if file.exists() else ""

    def table(self) -> list[dict[str, Any]]:
        """What Ray knows of every node, dead ones too."""
        state = GlobalState()
        options = GcsClientOptions.create(self._address(), None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
        state._initialize_global_state(options)
        try:
            return list(state.node_table())
        finally:
            state.disconnect()

    def alive(self) -> list[dict[str, Any]]:
        return [node for node in self.table() if node["Alive"]]

    def processes(self, title: str) -> list[psutil.Process]:
        """The cluster's own processes whose title starts so, as ``ray::MapWorker``."""
        found = []
        for process in {each.pid: each for node in self.nodes for each in node.tree()}.values():
            with _gone():
                if process.cmdline()[:1] and process.cmdline()[0].startswith(title):
                    found.append(process)
        return found

    def node_of(self, process: psutil.Process) -> Node:
        return next(node for node in self.nodes if process.pid in {each.pid for each in node.tree()})

    def command(self, *words: str) -> subprocess.Popen[str]:
        """Start ``python -m`` of some words as a driver of this cluster."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, "-m", *words], env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    def close(self) -> None:
        """End every process that this cluster started, and remove its folder."""
        trees = [process for node in self.nodes for process in node.tree()]
        for process in trees:
            with _gone():
                process.send_signal(signal.SIGKILL)
        for node in self.nodes:
            node.process.wait()
        psutil.wait_procs(trees, timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)


def ended(process: subprocess.Popen[str], seconds: float = PATIENCE_SECONDS) -> tuple[int, str]:
    """How a command ended, and what it printed."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still at work after {seconds:.0f} s: {out[-2000:]}\n{err[-4000:]}") from None
    return process.returncode, out + err


def stamps(folder: str, pattern: str) -> dict[str, tuple[int, int, bytes]]:
    """Of files that are there: inode, time of writing and content. Equal stamps mean that nobody wrote them again."""
    found: Sequence[Path] = sorted(Path(folder).glob(pattern))
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes()) for p in found}
