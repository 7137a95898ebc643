"""API keys, rate limits, concurrency slots, body sizes and shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI

from compass_ray.serving.api.auth import ApiKeys
from compass_ray.serving.api.body_reader import UnfinishedBodies
from compass_ray.serving.api.key_source import hash_key
from compass_ray.serving.api.middleware import BODY_PATHS
from compass_ray.serving.api.rate_limits import RequestLimits
from tests.unit.serving.api.endpoint import Endpoint, chat_body

KEYS = ApiKeys({hash_key("sesame"): "amina", hash_key("other"): "juma"})
BEARER = {"authorization": "Bearer sesame"}
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("path", ["/", "/metrics", "/v1/compass/status", "/v1/models", "/v1/models/sw", "/openapi.json", "/none"])
def test_with_keys_every_path_needs_one(path: str) -> None:
    endpoint = Endpoint(keys=KEYS)
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "sesame"}, {"authorization": "Basic !!!"}):
        response = endpoint.request("GET", path, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
        assert response.headers["www-authenticate"] == 'Bearer realm="compass-ray"'
    assert endpoint.request("GET", path, headers=BEARER).status_code == (404 if path == "/none" else 200)


def test_health_needs_no_key() -> None:
    endpoint = Endpoint(keys=KEYS)
    assert endpoint.request("GET", "/healthz").json() == {"status": "ok"}
    endpoint.service.statistics.export_parts({"monitor": {"failed": "a secret path"}}, 0)
    degraded = endpoint.request("GET", "/healthz")
    assert (degraded.status_code, degraded.json()) == (200, {"status": "degraded", "down": "monitor"})


def test_a_browser_prompts_for_the_key_as_a_password() -> None:
    endpoint = Endpoint(keys=KEYS)
    prompted = endpoint.request("GET", "/", headers={"accept": "text/html,*/*"})
    assert (prompted.status_code, prompted.headers["www-authenticate"]) == (401, 'Basic realm="compass-ray"')
    assert endpoint.request("GET", "/", auth=("anything", "sesame")).status_code == 200
    assert endpoint.request("GET", "/", auth=("sesame", "")).status_code == 401


def test_observations_and_feedback_carry_the_key_s_short_hash() -> None:
    endpoint = Endpoint(keys=KEYS)
    assert endpoint.chat().status_code == 401
    reply = endpoint.chat(headers=BEARER).json()
    endpoint.request("POST", "/v1/feedback", json={"id": reply["id"], "rating": "good"}, headers=BEARER)
    assert [each.key for each in (*endpoint.traffic.observations, *endpoint.traffic.feedback)] == [hash_key("sesame")[:12]] * 2


def test_a_key_above_its_rate_gets_a_429_with_retry_after() -> None:
    endpoint = Endpoint(keys=KEYS, requests_per_minute=2)
    assert [endpoint.chat(headers=BEARER).status_code for _ in range(3)] == [200, 200, 429]
    response = endpoint.chat(headers=BEARER)
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert response.json()["error"]["code"] == "rate_limit_exceeded"
    assert endpoint.chat(headers={"authorization": "bearer other"}).status_code == 200
    assert endpoint.request("GET", "/v1/models", headers=BEARER).status_code == 200


def test_without_keys_each_address_is_limited() -> None:
    endpoint = Endpoint(requests_per_minute=1)
    assert [endpoint.chat().status_code, endpoint.complete().status_code] == [200, 429]


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/feedback"])
def test_a_body_that_is_too_long_is_a_413_with_or_without_its_length(path: str) -> None:
    endpoint = Endpoint(max_body_bytes=100)

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 30

    headers = {"content-type": "application/json"}
    for content in (b" " * 101, parts()):
        response = endpoint.request("POST", path, content=content, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
    huge = {**headers, "content-length": "9" * 5000}
    assert endpoint.request("POST", path, content=b"{}", headers=huge).status_code == 413


def test_a_body_that_does_not_arrive_is_a_408() -> None:
    endpoint = Endpoint(body_timeout_s=0.05)
    response = endpoint.request("POST", CHAT, content=_half_a_body(), headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (408, "request_timeout")


async def _half_a_body() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


@pytest.mark.parametrize("path", sorted(BODY_PATHS))
def test_half_sent_bodies_keep_no_honest_request_out(path: str) -> None:
    endpoint = Endpoint(max_concurrent_requests=2)
    held = RequestLimits(max_concurrent_requests=2).max_unfinished_bodies

    async def scenario() -> None:
        async with endpoint.client(**{"content-type": "application/json"}) as client:
            half_sent = [asyncio.create_task(client.post(path, content=_half_a_body())) for _ in range(held)]
            await asyncio.sleep(0)
            honest = [(await client.post(CHAT, json=chat_body())).status_code for _ in range(5)]
            ended = [each for each in half_sent if each.done()]
            assert honest == [200] * 5
            assert ended == half_sent[: len(ended)], "the oldest bodies are ended first"
            assert 0 < len(ended) <= 5
            assert {each.result().status_code for each in ended} == {408}
            for each in half_sent:
                each.cancel()
            await asyncio.gather(*half_sent, return_exceptions=True)

    asyncio.run(scenario())


def test_half_sent_bodies_of_one_client_end_no_slow_body_of_another() -> None:
    bodies, ended = UnfinishedBodies(limit=4, timeout_s=100.0), list[str]()

    async def read(client: str) -> None:
        try:
            async with bodies.deadline(client):
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append(client)

    async def scenario() -> None:
        tasks = list[asyncio.Task[None]]()
        for client in ["slow", "other", *["flood"] * 50]:
            tasks.append(asyncio.create_task(read(client)))
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())
    assert ended == ["flood"] * 48


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/feedback", "/healthz"])
@pytest.mark.parametrize("end", ["%0A", "%0D", "%00", "%E2%80%A8"])
def test_no_spelling_of_a_path_bypasses_the_middleware(path: str, end: str) -> None:
    endpoint = Endpoint(keys=KEYS, max_body_bytes=5, requests_per_minute=1)
    for _ in range(2):
        response = endpoint.request("POST", path + end, json=chat_body(prompt="sw"), headers=BEARER)
        assert response.status_code == 404
        assert response.json()["error"]["type"] == "invalid_request_error"
    assert endpoint.backend.requests == []


def test_below_a_mount_point_the_middleware_works() -> None:
    outer, endpoint = FastAPI(), Endpoint(keys=KEYS, max_body_bytes=200)
    outer.mount("/compass", endpoint.api)
    endpoint.api = outer
    assert endpoint.request("GET", "/compass/healthz").status_code == 200
    ask = f"/compass{CHAT}"
    assert endpoint.request("POST", ask, json=chat_body()).status_code == 401
    assert endpoint.request("POST", ask, json=chat_body("x" * 200), headers=BEARER).status_code == 413
    assert endpoint.request("POST", ask, json=chat_body(), headers=BEARER).status_code == 200


async def _held(endpoint: Endpoint, client: object) -> asyncio.Task[object]:
    """One request that holds a slot and waits."""
    endpoint.backend.gate = asyncio.Event()
    task = asyncio.create_task(client.post(CHAT, json=chat_body()))  # type: ignore[attr-defined]
    await endpoint.backend.waiting.wait()
    return task


def test_without_a_free_slot_a_request_gets_a_503() -> None:
    endpoint = Endpoint(max_concurrent_requests=1)

    async def scenario() -> None:
        async with endpoint.client() as client:
            held = await _held(endpoint, client)
            refused = await client.post(CHAT, json=chat_body())
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert (await client.get("/v1/models")).status_code == 200
            endpoint.backend.gate.set()  # type: ignore[union-attr]
            assert (await held).status_code == 200  # type: ignore[attr-defined]
            assert (await client.post(CHAT, json=chat_body())).status_code == 200

    asyncio.run(scenario())


def test_on_shutdown_new_requests_are_refused_and_active_ones_finish() -> None:
    endpoint = Endpoint()
    drained: list[int] = []

    async def scenario() -> None:
        async with endpoint.client() as client:
            held = await _held(endpoint, client)
            stop = asyncio.create_task(_stop(endpoint))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            refused = await client.post(CHAT, json=chat_body())
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert (await client.get("/healthz")).status_code == 503
            assert not stop.done()
            endpoint.backend.gate.set()  # type: ignore[union-attr]
            assert (await held).status_code == 200  # type: ignore[attr-defined]
            await stop
            drained.append(endpoint.api.state.admission.active)

    asyncio.run(scenario())
    assert drained == [0]


async def _stop(endpoint: Endpoint) -> None:
    async with endpoint.api.router.lifespan_context(endpoint.api):
        pass


def test_every_route_with_a_body_is_limited() -> None:
    described = Endpoint().api.openapi()["paths"]
    assert {path for path, operations in described.items() if "post" in operations} == BODY_PATHS
    assert not any({"put", "patch", "delete"} & set(operations) for operations in described.values())
