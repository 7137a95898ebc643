"""How a process ended, in words: its own exit status, or the signal that ended it."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from compass_ray.engine.vllm_backend.process_end import describe_end, has_ended

SECONDS = 30.0
"""A timeout that only a defect reaches."""
Start = Callable[..., BaseProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[BaseProcess] = []

    def start_process(target: Callable[..., Any], argument: float, name: str) -> BaseProcess:
        started.append(multiprocessing.get_context("spawn").Process(target=target, args=(argument,), name=name))
        started[-1].start()
        return started[-1]

    yield start_process
    for process in started:
        process.kill()
        process.join(SECONDS)


def test_only_what_ended_is_described(start: Start) -> None:
    alive, failed = start(time.sleep, 600, "Worker"), start(sys.exit, 3, "EngineCore")
    assert not has_ended([alive])
    failed.join(SECONDS)
    assert has_ended([alive, failed])
    assert describe_end([alive, failed]) == f"process EngineCore ({failed.pid}) ended with exit status 3"


def test_a_signal_has_its_name(start: Start) -> None:
    killed = start(time.sleep, 600, "EngineCore")
    assert killed.pid
    killed.terminate()
    killed.join(SECONDS)
    assert killed.exitcode == -signal.SIGTERM
    assert describe_end([killed]) == f"process EngineCore ({killed.pid}) was ended by SIGTERM"


def test_an_error_of_vllm_without_an_end_is_said() -> None:
    assert describe_end([]) == "no process has ended, but vLLM reports an error"
