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

from compass_ray.models.orders import Answer, Order, Piece

logger = logging.getLogger(__name__)
T = TypeVar("T")
_FAILURES = 3
"""Failed steps in a row after which the engine counts as lost."""
_STOPPED = "the engine was stopped"


class Happened(Protocol):
    """What a step added to one reply; see `models.engine.Event`."""

    @property
    def ticket(self) -> int:
        """Whose reply."""
        ...

    @property
    def piece(self) -> Piece:
        """What was added."""
        ...

    @property
    def done(self) -> Answer | None:
        """The whole of it, at its end."""
        ...


class Bank(Protocol):
    """Prepares adapters; see `models.bank`."""

    def prepare(self, folder: Path) -> Any:
        """Read and check an adapter; ValueError where it does not fit the base."""
        ...


class Batching(Protocol):
    """Generates in a batch that orders join and leave; see `models.engine`."""

    @property
    def bank(self) -> Bank:
        """Where adapters are prepared, in any thread."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Adapters that are resident."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        ...

    def prompt(self, order: Order) -> list[int]:
        """Token ids of an order, in any one thread; ValueError where it cannot be followed."""
        ...

    def install(self, name: str, prepared: Any) -> None:
        """Make a prepared adapter resident."""
        ...

    def unload(self, name: str) -> None:
        """Forget an adapter."""
        ...

    def submit(self, order: Order) -> int:
        """Let an order join; ValueError where it cannot be followed."""
        ...

    def cancel(self, ticket: int) -> None:
        """Give an order's place to others."""
        ...

    def step(self) -> Sequence[Happened]:
        """One token of every reply under way."""
        ...


Sink = Callable[[Piece | Answer | Exception], None]
"""Takes pieces, then the answer or what went wrong; called in the thread, so it must not wait."""


class GenerationLoop:
    """The thread, and how others speak to it."""

    def __init__(self, engine: Batching) -> None:
        """Start the thread; ``engine`` is its own from now on."""
        self.engine = engine
        self.steps = self.orders = 0
        self._inbox: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._sinks: dict[int, Sink] = {}
        self._failures = 0
        self._over = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def sound(self) -> bool:
        """Whether it can be expected to answer."""
        return self._thread.is_alive() and self._failures < _FAILURES

    @property
    def names(self) -> Sequence[str]:
        """Adapters that are resident."""
        return tuple(self.engine.names)

    def load(self, name: str, folder: Path) -> None:
        """Make an adapter resident; ValueError where it does not fit the base, and nothing has changed."""
        prepared = self.engine.bank.prepare(folder)
        self._call(lambda: self.engine.install(name, prepared)).result()

    def unload(self, name: str) -> None:
        """Forget an adapter; replies that have begun keep it."""
        self._call(lambda: self.engine.unload(name)).result()

    def submit(self, order: Order, sink: Sink) -> Future[int]:
        """Let an order join; the ticket, or ValueError where it cannot be followed."""
        return self._call(lambda: self._begin(order, sink))

    def cancel(self, ticket: int) -> None:
        """Give an order's place to others; its sink hears nothing more."""
        self._inbox.put(lambda: self._drop(ticket))

    def stop(self) -> None:
        """End the thread; orders under way fail."""
        self._inbox.put(None)
        self._thread.join()

    def _call(self, work: Callable[[], T]) -> Future[T]:
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                if self._over:
                    raise RuntimeError(_STOPPED)
                outcome.set_result(work())
            except Exception as error:
                outcome.set_exception(error)

        self._inbox.put(run)
        if self._over:  # nobody reads the inbox any more
            self._refuse_all()
        return outcome

    def _begin(self, order: Order, sink: Sink) -> int:
        ticket = self.engine.submit(order)
        self._sinks[ticket] = sink
        self.orders += 1
        return ticket

    def _drop(self, ticket: int) -> None:
        if self._sinks.pop(ticket, None):
            self.engine.cancel(ticket)

    def _run(self) -> None:
        try:
            while self._read():
                if self.engine.busy:
                    self._step()
        except Exception:
            logger.exception("the engine is lost")
        finally:
            self._over = True
            self._fail(RuntimeError(_STOPPED))
            self._refuse_all()

    def _refuse_all(self) -> None:
        """Let nobody wait for what will never be done."""
        while True:
            try:
                work = self._inbox.get_nowait()
            except queue.Empty:
                return
            if work is not None:
                work()

    def _read(self) -> bool:
        """Do what was asked for meanwhile; wait for something where nothing is under way."""
        wait = not self.engine.busy
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
            self._fail(error)
            return
        self.steps += 1
        self._failures = 0
        for each in happened:
            self._tell(each)

    def _tell(self, happened: Happened) -> None:
        sink = self._sinks.get(happened.ticket)
        if sink is None:
            return
        if happened.piece.text or happened.piece.scores:
            sink(happened.piece)
        if happened.done:
            del self._sinks[happened.ticket]
            sink(happened.done)

    def _fail(self, error: Exception) -> None:
        lost, self._sinks = self._sinks, {}
        for sink in lost.values():
            sink(error)
        for ticket in lost:
            try:
                self.engine.cancel(ticket)
            except Exception:
                logger.exception("a reply could not be given up; the engine counts as lost")
                self._failures = _FAILURES
