"""One thread that owns an engine: orders join the batch between two of its steps, and pieces of replies come out.

Key property: nothing but the thread touches the engine, so nobody holds a lock while a batch runs; an adapter is read and
prepared by whoever loads it, and takes the thread no longer than putting it in. A step that fails fails the orders under
way and no others. Plain Python: knows no Ray, no run directory.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, TypeVar

from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta

logger = logging.getLogger(__name__)
T = TypeVar("T")
_MAX_FAILURES = 3
"""Failed steps in a row after which the engine counts as lost."""
_STOPPED = "the engine was stopped"


class StepOutputProtocol(Protocol):
    """What a step added to one reply; see `models.engine.Event`."""

    @property
    def request_id(self) -> int:
        """Whose reply."""
        ...

    @property
    def delta(self) -> OutputDelta:
        """What was added."""
        ...

    @property
    def final_output(self) -> GenerationOutput | None:
        """The whole of it, at its end."""
        ...


class AdapterManagerProtocol(Protocol):
    """Prepares adapters; see `models.bank`."""

    def prepare(self, folder: Path) -> Any:
        """Read and check an adapter; ValueError where it does not fit the base."""
        ...


class EngineProtocol(Protocol):
    """Generates in a batch that orders join and leave; see `models.engine`."""

    @property
    def adapter_manager(self) -> AdapterManagerProtocol:
        """Where adapters are prepared, in any thread."""
        ...

    @property
    def adapter_names(self) -> Sequence[str]:
        """Adapters that are resident."""
        ...

    @property
    def has_unfinished_requests(self) -> bool:
        """Whether a step would do anything."""
        ...

    def tokenize(self, order: GenerationRequest) -> list[int]:
        """Token ids of an order, in any one thread; ValueError where it cannot be followed."""
        ...

    def install_adapter(self, name: str, prepared: Any) -> None:
        """Make a prepared adapter resident."""
        ...

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter."""
        ...

    def add_request(self, order: GenerationRequest) -> int:
        """Let an order join; ValueError where it cannot be followed."""
        ...

    def abort_request(self, ticket: int) -> None:
        """Give an order's place to others."""
        ...

    def step(self) -> Sequence[StepOutputProtocol]:
        """One token of every reply under way."""
        ...


OutputSink = Callable[[OutputDelta | GenerationOutput | Exception], None]
"""Takes pieces, then the answer or what went wrong; called in the thread, so it must not wait."""


class GenerationLoop:
    """The thread, and how others speak to it."""

    def __init__(self, engine: EngineProtocol) -> None:
        """Start the thread; ``engine`` is its own from now on."""
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
        """Whether it can be expected to answer."""
        return self._thread.is_alive() and self._failures < _MAX_FAILURES

    @property
    def names(self) -> Sequence[str]:
        """Adapters that are resident."""
        return tuple(self.engine.adapter_names)

    def load(self, name: str, folder: Path) -> None:
        """Make an adapter resident; ValueError where it does not fit the base, and nothing has changed."""
        prepared = self.engine.adapter_manager.prepare(folder)
        self._run_on_thread(lambda: self.engine.install_adapter(name, prepared)).result()

    def unload(self, name: str) -> None:
        """Forget an adapter; replies that have begun keep it."""
        self._run_on_thread(lambda: self.engine.unload_adapter(name)).result()

    def submit(self, order: GenerationRequest, sink: OutputSink) -> Future[int]:
        """Let an order join; the ticket, or ValueError where it cannot be followed."""
        return self._run_on_thread(lambda: self._submit(order, sink))

    def cancel(self, ticket: int) -> None:
        """Give an order's place to others; its sink hears nothing more."""
        self._inbox.put(lambda: self._cancel(ticket))

    def stop(self) -> None:
        """End the thread; orders under way fail."""
        self._inbox.put(None)
        self._thread.join()

    def _run_on_thread(self, work: Callable[[], T]) -> Future[T]:
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                if self._stopped:
                    raise RuntimeError(_STOPPED)
                outcome.set_result(work())
            except Exception as error:
                outcome.set_exception(error)

        self._inbox.put(run)
        if self._stopped:  # nobody reads the inbox any more
            self._drain_inbox()
        return outcome

    def _submit(self, order: GenerationRequest, sink: OutputSink) -> int:
        ticket = self.engine.add_request(order)
        self._sinks[ticket] = sink
        self.requests += 1
        return ticket

    def _cancel(self, ticket: int) -> None:
        if self._sinks.pop(ticket, None):
            self.engine.abort_request(ticket)

    def _run(self) -> None:
        try:
            while self._process_inbox():
                if self.engine.has_unfinished_requests:
                    self._step()
        except Exception:
            logger.exception("the engine is lost")
        finally:
            self._stopped = True
            self._fail_all(RuntimeError(_STOPPED))
            self._drain_inbox()

    def _drain_inbox(self) -> None:
        """Let nobody wait for what will never be done."""
        while True:
            try:
                work = self._inbox.get_nowait()
            except queue.Empty:
                return
            if work is not None:
                work()

    def _process_inbox(self) -> bool:
        """Do what was asked for meanwhile; wait for something where nothing is under way."""
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
            happened = self.engine.step()
        except Exception as error:
            logger.exception("a step of the batch failed; its replies are lost")
            self._failures += 1
            self._fail_all(error)
            return
        self.steps += 1
        self._failures = 0
        for each in happened:
            self._emit(each)

    def _emit(self, happened: StepOutputProtocol) -> None:
        sink = self._sinks.get(happened.request_id)
        if sink is None:
            return
        if happened.delta.text or happened.delta.logprobs:
            sink(happened.delta)
        if happened.final_output:
            del self._sinks[happened.request_id]
            sink(happened.final_output)

    def _fail_all(self, error: Exception) -> None:
        lost, self._sinks = self._sinks, {}
        for sink in lost.values():
            sink(error)
        for ticket in lost:
            try:
                self.engine.abort_request(ticket)
            except Exception:
                logger.exception("a reply could not be given up; the engine counts as lost")
                self._failures = _MAX_FAILURES
