"""The rate limiter and the concurrency limiter."""

from __future__ import annotations

import asyncio
import time

import pytest

from compass_ray.serving.api.rate_limits import ConcurrencyLimiter, RateLimiter
from compass_ray.serving.inference.client_hashes import network_of
from compass_ray.serving.inference.errors import ApiError


def test_each_client_has_its_own_rate() -> None:
    rate = RateLimiter(2)
    for who in ("a", "a", "b", "b"):
        rate.check(who)
    with pytest.raises(ApiError, match="Rate limit of 2 requests per minute exceeded") as refused:
        rate.check("a")
    assert refused.value.status == 429
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 60


def test_requests_under_a_clock_that_was_ahead_block_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    rate, ahead = RateLimiter(2), time.time() + 86_400
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: ahead)
        for _ in range(2):
            rate.check("a")
    for _ in range(2):
        rate.check("a")
    with pytest.raises(ApiError):
        rate.check("a")


def test_without_a_rate_nothing_is_counted() -> None:
    rate = RateLimiter(None)
    for _ in range(100):
        rate.check("a")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("any text", "another text", True),
        ("any text", "192.0.2.1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
def test_an_ipv6_network_counts_as_one_client_and_all_that_is_no_address_too(one: str, other: str, same: bool) -> None:
    assert (network_of(one, ipv4_bits=32) == network_of(other, ipv4_bits=32)) is same


def test_a_slot_is_always_released() -> None:
    admission = ConcurrencyLimiter(1)
    with pytest.raises(RuntimeError), admission.slot():
        raise RuntimeError
    with admission.slot(), pytest.raises(ApiError) as refused, admission.slot():
        pass
    assert (refused.value.status, refused.value.detail.code) == (503, "overloaded")
    assert admission.active == 0


def test_waiting_until_idle_reports_a_timeout() -> None:
    async def scenario() -> tuple[bool, bool]:
        admission = ConcurrencyLimiter(1)
        with admission.slot():
            in_time = await admission.wait_until_idle(0.01)
        return in_time, await admission.wait_until_idle(0.01)

    assert asyncio.run(scenario()) == (False, True)
