"""The pseudonym of a client: of its key, or of its network without keys; neither leaves the ingress itself."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from compass_ray.serving.api.auth import ApiKeys
from compass_ray.serving.api.key_source import hash_key
from tests.unit.serving.api.endpoint import Endpoint, chat_body


def _ask(endpoint: Endpoint, *addresses: str, headers: dict[str, str] | None = None) -> list[str | None]:
    """The clients of one chat request and one rating from each address."""

    async def send() -> None:
        for address in addresses:
            transport = httpx.ASGITransport(endpoint.api, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://compass", headers=headers) as client:
                await client.post("/v1/chat/completions", json=chat_body())
                await client.post("/v1/feedback", json={"id": f"chatcmpl-{0:032x}", "rating": "good"})

    asyncio.run(send())
    asked = [each.client for each in endpoint.traffic.observations[-len(addresses) :]]
    assert asked == [each.client for each in endpoint.traffic.feedback[-len(addresses) :]]
    return asked


@pytest.mark.parametrize(("one", "same", "other"), [
    ("192.0.2.1", "192.0.2.254", "192.0.3.1"),
    ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
    ("::ffff:192.0.2.1", "192.0.2.9", "::1"),
])  # fmt: skip
def test_without_keys_a_network_is_one_client(one: str, same: str, other: str) -> None:
    clients = _ask(Endpoint(), one, same, other)
    assert clients[0] == clients[1] != clients[2]
    assert all(client and one not in client for client in clients)


def test_with_keys_a_key_is_one_client_wherever_it_asks() -> None:
    endpoint = Endpoint(keys=ApiKeys({hash_key("a"): "amina", hash_key("b"): "brian"}))
    first = _ask(endpoint, "192.0.2.1", "198.51.100.1", headers={"authorization": "Bearer a"})
    second = _ask(endpoint, "192.0.2.1", headers={"authorization": "Bearer b"})
    assert first[0] == first[1] != second[0]
    assert hash_key("a")[:12] not in str(first[0])


def test_another_run_names_the_same_client_differently() -> None:
    assert _ask(Endpoint(), "192.0.2.1") != _ask(Endpoint(), "192.0.2.1")
