"""The limits of one ingress process: request rate per key or address, concurrency, and size and time of a request.

Limits are per process, so a service with N ingress replicas accepts up to N times as much. Nothing is shared between replicas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from compass_ray.config import ServeConfig
from compass_ray.serving.inference import errors

_MINUTE_S = 60.0
_MIN_UNFINISHED_BODIES = 64


@dataclass(frozen=True)
class RequestLimits:
    """The limits of one ingress process."""

    max_concurrent_requests: int = 256
    request_timeout_s: float = 120.0
    max_body_bytes: int = 4_000_000
    body_timeout_s: float = 30.0
    requests_per_minute: int | None = None

    @property
    def max_unfinished_bodies(self) -> int:
        """Bodies that are read at once, before their requests take a concurrency slot."""
        return max(self.max_concurrent_requests, _MIN_UNFINISHED_BODIES)

    @classmethod
    def from_config(cls, config: ServeConfig) -> RequestLimits:
        """The limits of a configuration."""
        return cls(
            max_concurrent_requests=config.max_concurrent_requests,
            request_timeout_s=config.request_timeout_s,
            max_body_bytes=config.max_body_bytes,
            body_timeout_s=config.body_timeout_s,
            requests_per_minute=config.requests_per_minute,
        )


class RateLimiter:
    """Limits the requests of each key or address in a moving window of one minute."""

    def __init__(self, per_minute: int | None) -> None:
        """Allow ``per_minute`` requests in any minute; None allows all."""
        self.per_minute = per_minute
        self.limiter = MovingWindowRateLimiter(MemoryStorage())
        self.item = RateLimitItemPerMinute(per_minute or 1)

    def check(self, client: str) -> None:
        """Count a request.

        Raises:
            ApiError: 429, with the seconds until the next request is allowed.
        """
        if self.per_minute is None or self.limiter.hit(self.item, client):
            return
        wait = self.limiter.get_window_stats(self.item, client).reset_time - time()
        if wait <= _MINUTE_S:
            raise errors.rate_limited(self.per_minute, wait)
        self.limiter.storage.reset()  # the clock was ahead and is set back: those requests would count until it is there again
        self.check(client)


class ConcurrencyLimiter:
    """Concurrency slots for active requests."""

    def __init__(self, max_active: int) -> None:
        """Allow ``max_active`` requests at once."""
        self.max_active = max_active
        self.active = 0
        self.closed = False
        self._left = asyncio.Event()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a slot.

        Raises:
            ApiError: 503, all slots are taken or the limiter is closed.
        """
        if self.closed:
            raise errors.draining()
        if self.active >= self.max_active:
            raise errors.overloaded()
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1
            self._left.set()

    def open(self) -> None:
        """Allow new requests, as initially."""
        self.closed = False

    def close(self) -> None:
        """Refuse new requests; active ones finish."""
        self.closed = True

    async def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait up to ``timeout_s`` seconds until no request is active. False on timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.active:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            return False
        return True
