"""The thread that owns an engine: requests join the batch between two steps, and outputs go to sinks.

Only this thread uses the engine, so no lock is held while a batch runs. An adapter is read and prepared in the caller's thread;
only its installation runs in the engine thread. A failed step fails the active requests and no others. Knows no Ray and no run
directory.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, TypeVar

from compass_ray.engine.protocol import EngineStoppedError, OutputSink
from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta

logger = logging.getLogger(__name__)
T = TypeVar("T")
_MAX_FAILURES = 3
"""Consecutive failed steps after which the engine is unhealthy."""
_STOPPED = "The engine is stopped."


class StepOutputProtocol(Protocol):
    """The output of one step for one request; see `engine.engine.StepOutput`."""

    @property
    def request_id(self) -> int:
        """The request."""
        ...

    @property
    def delta(self) -> OutputDelta:
        """The new part of the response."""
        ...

    @property
    def final_output(self) -> GenerationOutput | None:
        """The complete response, when it is finished."""
        ...


class AdapterManagerProtocol(Protocol):
    """Prepares adapters; see `engine.adapter_manager`."""

    def prepare(self, folder: Path) -> Any:
        """Read and check an adapter. ValueError if it does not fit the base model."""
        ...


class EngineProtocol(Protocol):
    """Continuous batching; see `engine.engine.Engine`."""

    @property
    def adapter_manager(self) -> AdapterManagerProtocol:
        """Prepares adapters, in any thread."""
        ...

    @property
    def adapter_names(self) -> Sequence[str]:
        """Loaded adapters."""
        ...

    @property
    def has_unfinished_requests(self) -> bool:
        """Whether a step would do anything."""
        ...

    def tokenize(self, request: GenerationRequest) -> list[int]:
        """Token ids of a request, in any single thread. ValueError if the request is invalid."""
        ...

    def install_adapter(self, name: str, prepared: Any) -> None:
        """Add a prepared adapter."""
        ...

    def unload_adapter(self, name: str) -> None:
        """Remove an adapter."""
        ...

    def add_request(self, request: GenerationRequest) -> int:
        """Add a request to the batch and return its id. ValueError if it is invalid."""
        ...

    def abort_request(self, request_id: int) -> None:
        """Remove a request from the batch."""
        ...

    def step(self) -> Sequence[StepOutputProtocol]:
        """Generate one token for every active request."""
        ...


class GenerationLoop:
    """The engine thread and its thread-safe interface, which implements `engine.protocol.GenerationEngine`."""

    def __init__(self, engine: EngineProtocol) -> None:
        """Start the thread. It owns ``engine`` from now on."""
        self.engine = engine
        self.steps = self.requests = 0
        self._inbox: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._sinks: dict[int, OutputSink] = {}
        self._failures = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def is_healthy(self) -> bool:
        """Whether the thread runs and its last steps did not all fail."""
        return self._thread.is_alive() and self._failures < _MAX_FAILURES

    @property
    def names(self) -> Sequence[str]:
        """Loaded adapters."""
        return tuple(self.engine.adapter_names)

    def tokenize(self, request: GenerationRequest) -> list[int]:
        """Token ids of a request, in any single thread. ValueError if the request is invalid."""
        return self.engine.tokenize(request)

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter. ValueError if it does not fit the base model; then nothing changes."""
        prepared = self.engine.adapter_manager.prepare(folder)
        self._run_on_thread(lambda: self.engine.install_adapter(name, prepared)).result()

    def unload(self, name: str) -> None:
        """Unload an adapter. Active requests continue to use it."""
        self._run_on_thread(lambda: self.engine.unload_adapter(name)).result()

    def submit(self, request: GenerationRequest, sink: OutputSink) -> Future[int]:
        """Add a request. The future has the request id, or ValueError if the request is invalid."""
        return self._run_on_thread(lambda: self._submit(request, sink))

    def cancel(self, request_id: int) -> None:
        """Remove a request. Its sink gets no further output."""
        self._inbox.put(lambda: self._cancel(request_id))

    def stop(self) -> None:
        """Stop the thread. Active requests fail."""
        self._inbox.put(None)
        self._thread.join()

    def _run_on_thread(self, work: Callable[[], T]) -> Future[T]:
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                if self._stopped:
                    raise EngineStoppedError(_STOPPED)
                outcome.set_result(work())
            except Exception as error:
                outcome.set_exception(error)

        self._inbox.put(run)
        if self._stopped:  # the thread no longer reads the inbox
            self._drain_inbox()
        return outcome

    def _submit(self, request: GenerationRequest, sink: OutputSink) -> int:
        request_id = self.engine.add_request(request)
        self._sinks[request_id] = sink
        self.requests += 1
        return request_id

    def _cancel(self, request_id: int) -> None:
        if self._sinks.pop(request_id, None):
            self.engine.abort_request(request_id)

    def _run(self) -> None:
        try:
            while self._process_inbox():
                if self.engine.has_unfinished_requests:
                    self._step()
        except Exception:
            logger.exception("engine: thread failed; marking the engine unhealthy")
        finally:
            self._stopped = True
            self._fail_all(EngineStoppedError(_STOPPED))
            self._drain_inbox()

    def _drain_inbox(self) -> None:
        """Run the remaining calls, which fail, so that no caller waits forever."""
        while True:
            try:
                work = self._inbox.get_nowait()
            except queue.Empty:
                return
            if work is not None:
                work()

    def _process_inbox(self) -> bool:
        """Run the queued calls; wait for one if no request is active. False if the thread must stop."""
        wait = not self.engine.has_unfinished_requests
        while True:
            try:
                work = self._inbox.get(block=wait)
            except queue.Empty:
                return True
            if work is None:
                return False
            work()
            wait = False

    def _step(self) -> None:
        try:
            outputs = self.engine.step()
        except Exception as error:
            logger.exception("engine: a step failed; failing its %d requests", len(self._sinks))
            self._failures += 1
            self._fail_all(error)
            return
        self.steps += 1
        self._failures = 0
        for output in outputs:
            self._emit(output)

    def _emit(self, output: StepOutputProtocol) -> None:
        sink = self._sinks.get(output.request_id)
        if sink is None:
            return
        if output.delta.text or output.delta.logprobs:
            sink(output.delta)
        if output.final_output:
            del self._sinks[output.request_id]
            sink(output.final_output)

    def _fail_all(self, error: Exception) -> None:
        sinks, self._sinks = self._sinks, {}
        for sink in sinks.values():
            sink(error)
        for request_id in sinks:
            try:
                self.engine.abort_request(request_id)
            except Exception:
                logger.exception("engine: failed to cancel a request; marking the engine unhealthy")
                self._failures = _MAX_FAILURES
