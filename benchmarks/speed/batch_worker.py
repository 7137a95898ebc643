"""One engine in a process of its own, which times the batches that a driver sends.

The driver may use another interpreter than the worker, so both sides import the standard library only. Commands arrive as lines
of JSON on the standard input. Replies leave on a file descriptor of their own, because engines print. `batch_engines` and
`vllm_engine` have the engines.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from benchmarks.speed.process_memory import read_pss

_LOG_LINES = 15


class WorkerError(RuntimeError):
    """An engine that does not start or does not run, with the end of its log."""


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker opens, and the batches that it must fit."""

    engine: str
    base: str
    """Folder of the base model."""
    adapters: Mapping[str, str]
    """Folders of the adapters by name."""
    dtype: str
    device: str
    rank: int
    rows: int
    prompt_tokens: int
    steps: int
    slots: int
    """Adapters of one batch."""
    token_bytes: int
    """Size of the keys and values of one token."""

    @property
    def tokens(self) -> int:
        """Tokens of one row, with one to spare."""
        return self.prompt_tokens + self.steps + 2


class BatchEngine(Protocol):
    """An engine that a worker times."""

    def start(self, adapters: Sequence[str | None]) -> None:
        """Queue a prompt for each row; None is the base model."""

    def prefill(self) -> None:
        """Run until every row has its first token."""

    def step(self) -> None:
        """Decode one token for every row."""

    def stop(self) -> None:
        """Remove the rows."""

    def clock(self) -> float:
        """Seconds that the engine has worked."""

    def repeats(self, adapters: Sequence[str | None]) -> int:
        """Number of batches like the one that runs, if an engine needs several for these adapters."""

    def memory(self) -> dict[str, float]:
        """Bytes by kind."""

    def versions(self) -> dict[str, str]:
        """Versions of packages that the driver's environment does not have."""


class CpuEngine:
    """What the engines share: CPU seconds, and memory of the process."""

    def clock(self) -> float:
        """CPU seconds of the process. Other processes do not count."""
        return time.process_time()

    def repeats(self, adapters: Sequence[str | None]) -> int:
        """One batch holds all adapters."""
        return 1

    def memory(self) -> dict[str, float]:
        """Private and resident bytes of the process."""
        private, resident = read_pss(os.getpid())
        return {"private": private, "resident": resident}

    def versions(self) -> dict[str, str]:
        """The driver has the same packages."""
        return {}


def prompt(row: int, tokens: int) -> list[int]:
    """Token ids of the prompt of a row. All rows differ."""
    return [10 + (37 * row + i) % 1000 for i in range(tokens)]


def serve(open_engine: Callable[[WorkerOptions], BatchEngine]) -> None:
    """Answer the driver until it closes the standard input. The command line has the options and the reply descriptor."""
    options = WorkerOptions(**json.loads(sys.argv[1]))
    with os.fdopen(int(sys.argv[2]), "w", encoding="utf-8") as replies:
        engine = open_engine(options)
        _send(replies, engine.versions())
        for line in sys.stdin:
            adapters = json.loads(line)
            _send(replies, engine.memory() if adapters is None else _time_batch(engine, adapters, options.steps))


def _time_batch(engine: BatchEngine, adapters: Sequence[str | None], steps: int) -> dict[str, float]:
    engine.start(adapters)
    prefill = _time(engine, engine.prefill)
    decode = statistics.median(_time(engine, engine.step) for _ in range(steps))
    engine.stop()
    return {"prefill": engine.repeats(adapters) * prefill, "decode": engine.repeats(adapters) * decode}


def _time(engine: BatchEngine, work: Callable[[], None]) -> float:
    started = engine.clock()
    work()
    return engine.clock() - started


def _send(replies: TextIO, message: Mapping[str, float | str]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


class Worker:
    """The driver's side of a worker."""

    def __init__(self, python: str, module: str, options: WorkerOptions, log: Path) -> None:
        """Start the worker and wait for its engine.

        Raises:
            WorkerError: the engine does not start.
        """
        read, write = os.pipe()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [python, "-m", module, json.dumps(asdict(options)), str(write)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(write,),
                env=environment,
                text=True,
            )
        os.close(write)
        self._replies = os.fdopen(read, encoding="utf-8")
        self.versions: dict[str, str] = self._receive()

    def __enter__(self) -> Self:
        """Use it until the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def time_batch(self, adapters: Sequence[str | None]) -> dict[str, float]:
        """Seconds of the prefill, and the median of the decoding steps.

        Raises:
            WorkerError: the engine failed.
        """
        found: dict[str, float] = self._ask(list(adapters))
        return found

    def memory(self) -> dict[str, float]:
        """Bytes by kind."""
        found: dict[str, float] = self._ask(None)
        return found

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        self._replies.close()

    def _ask(self, message: list[str | None] | None) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        return self._receive()

    def _receive(self) -> Any:
        line = self._replies.readline()
        if not line:
            self.close()
            raise WorkerError("\n".join(self._log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]))
        return json.loads(line)
