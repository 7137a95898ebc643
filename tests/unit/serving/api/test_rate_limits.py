"""Rates and places by themselves."""

from __future__ import annotations

import asyncio

import pytest

from compass_ray.serving.api.rate_limits import ConcurrencyLimiter, RateLimiter, client_network
from compass_ray.serving.inference.errors import ApiError


def test_a_rate_is_each_one_s_own() -> None:
    rate = RateLimiter(2)
    for who in ("a", "a", "b", "b"):
        rate.check(who)
    with pytest.raises(ApiError, match="more than 2 requests a minute") as refused:
        rate.check("a")
    assert refused.value.status == 429
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 60


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
        ("testclient", "testclient", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
def test_of_ipv6_a_whole_network_is_one(one: str, other: str, same: bool) -> None:
    assert (client_network(one) == client_network(other)) is same


def test_a_place_is_given_back_whatever_happens() -> None:
    admission = ConcurrencyLimiter(1)
    with pytest.raises(RuntimeError), admission.slot():
        raise RuntimeError
    with admission.slot(), pytest.raises(ApiError) as refused, admission.slot():
        pass
    assert (refused.value.status, refused.value.detail.code) == (503, "overloaded")
    assert admission.active == 0


def test_it_says_whether_everybody_left_in_time() -> None:
    async def scenario() -> tuple[bool, bool]:
        admission = ConcurrencyLimiter(1)
        with admission.slot():
            in_time = await admission.wait_until_idle(0.01)
        return in_time, await admission.wait_until_idle(0.01)

    assert asyncio.run(scenario()) == (False, True)
