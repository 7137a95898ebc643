"""The bounds an ingress keeps: requests a minute of one key or address, requests under way, bytes and seconds of one request.

Key property: every bound is of this process alone, so a service with several ingress replicas takes up to so many times as
much; nothing is shared, so nothing can fail. COMPASS has no section on it. Not here: the answers to who is refused
(`failures`).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from compass_ray.config import ServeConfig
from compass_ray.serving.inference import errors

_IPV6_PREFIX_BITS = 64
"""Bits of an IPv6 address that one household or machine is given; the rest it may choose at will."""


@dataclass(frozen=True)
class RequestLimits:
    """What one ingress takes."""

    max_waiting: int = 256
    request_seconds: float = 120.0
    max_body_bytes: int = 4_000_000
    requests_per_minute: int | None = None

    @classmethod
    def from_config(cls, config: ServeConfig) -> RequestLimits:
        """The limits of a configuration."""
        return cls(config.max_concurrent_requests, config.request_timeout_s, config.max_body_bytes, config.requests_per_minute)


class RateLimiter:
    """Requests of each key or address in the last minute."""

    def __init__(self, per_minute: int | None) -> None:
        """Allow so many in any minute; None allows all."""
        self.per_minute = per_minute
        self.limiter = MovingWindowRateLimiter(MemoryStorage())
        self.item = RateLimitItemPerMinute(per_minute or 1)

    def check(self, who: str) -> None:
        """Count a request.

        Raises:
            ApiError: 429, with the seconds until one more is allowed.
        """
        if self.per_minute is None or self.limiter.hit(self.item, who):
            return
        wait = self.limiter.get_window_stats(self.item, who).reset_time - time()
        raise errors.rate_limited(self.per_minute, wait)


class ConcurrencyLimiter:
    """Places for requests under way."""

    def __init__(self, most: int) -> None:
        """Give out at most so many at once."""
        self.most = most
        self.active = 0
        self.closed = False
        self._left = asyncio.Event()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            ApiError: 503, all are taken or no more are given out.
        """
        if self.closed:
            raise errors.draining()
        if self.active >= self.most:
            raise errors.overloaded()
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1
            self._left.set()

    def open(self) -> None:
        """Give out places, as from the beginning."""
        self.closed = False

    def close(self) -> None:
        """Give out no more; those under way finish."""
        self.closed = True

    async def wait_until_idle(self, seconds: float) -> bool:
        """Wait until nobody is inside, at most so long; whether that came to be."""
        try:
            async with asyncio.timeout(seconds):
                while self.active:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            return False
        return True


def client_network(address: str) -> str:
    """Whom an address stands for: itself, or of IPv6 its network.

    >>> client_network("2001:db8::1") == client_network("2001:db8::2")
    True
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((found, _IPV6_PREFIX_BITS), strict=False))
