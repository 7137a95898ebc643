"""Shadow requests: sent after the response, never visible to the client, limited in number."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from compass_ray.serving.inference.client_hashes import ClientHashes
from compass_ray.serving.inference.requests import InferenceRequest, InferenceResponse
from compass_ray.serving.inference.service import InferenceService
from compass_ray.serving.inference.shadow import MAX_CONCURRENT
from tests.unit.serving.api.endpoint import TRYING, Endpoint


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


def _request(number: int = 0, model: str = "auto") -> InferenceRequest:
    return InferenceRequest(f"id-{number}", model, (("user", "sw habari"),), conversation="one", logprobs=3)


def _run(endpoint: Endpoint, scenario: Callable[[InferenceService], Awaitable[None]]) -> dict[str, dict[str, float]]:
    endpoint.service.catalogue = TRYING
    asyncio.run(scenario(endpoint.service))  # type: ignore[arg-type]
    shadows: dict[str, dict[str, float]] = endpoint.statistics.summary()["shadows"]
    return shadows


async def _finish_shadows(service: InferenceService, response: InferenceResponse) -> None:
    service.after_response(response)
    await asyncio.gather(*service.shadows.tasks)


def test_the_shadow_answers_a_copy_after_the_reply(endpoint: Endpoint) -> None:
    async def scenario(service: InferenceService) -> None:
        response = await service.answer(_request())
        assert len(endpoint.backend.requests) == 1
        await _finish_shadows(service, response)

    shadows = _run(endpoint, scenario)
    first, copy = endpoint.backend.requests
    assert (copy.adapter, copy.blend, copy.logprobs) == ("sw@v0001", None, None)
    assert (copy.messages, copy.max_tokens) == (first.messages, first.max_tokens)
    assert (shadows["sw@v0001"]["requests"], shadows["sw@v0001"]["failed"]) == (1, 0)
    assert len(endpoint.traffic.observations) == 1


def test_a_failed_shadow_is_only_counted(endpoint: Endpoint) -> None:
    async def scenario(service: InferenceService) -> None:
        response = await service.answer(_request())
        endpoint.backend.broken = ("sw@v0001",)
        await _finish_shadows(service, response)

    assert _run(endpoint, scenario)["sw@v0001"]["failed"] == 1


def test_a_version_requested_by_name_has_no_shadow(endpoint: Endpoint) -> None:
    async def scenario(service: InferenceService) -> None:
        await _finish_shadows(service, await service.answer(_request(model="sw@v0003")))
        await _finish_shadows(service, await service.answer(_request(model="base")))

    assert _run(endpoint, scenario) == {}


def test_concurrent_copies_are_limited_and_closing_cancels_them(endpoint: Endpoint) -> None:
    async def scenario(service: InferenceService) -> None:
        responses = [await service.answer(_request(number)) for number in range(10)]
        endpoint.backend.gate = asyncio.Event()
        for response in responses:
            service.after_response(response)
        await asyncio.sleep(0)
        assert len(endpoint.backend.requests) - len(responses) == MAX_CONCURRENT
        await service.shadows.close()
        assert endpoint.backend.cancelled == MAX_CONCURRENT
        assert not service.shadows.tasks

    _run(endpoint, scenario)


def test_draws_are_spread_evenly_and_stable() -> None:
    one, replica = ClientHashes(b"secret"), ClientHashes(b"secret")
    draws = [one.draw(f"conversation-{number}") for number in range(2000)]
    assert draws == [replica.draw(f"conversation-{number}") for number in range(2000)]
    assert all(0.0 <= each < 1.0 for each in draws)
    for share in (0.05, 0.5, 0.9):
        found = sum(each < share for each in draws) / len(draws)
        assert abs(found - share) < 4 * (share * (1 - share) / len(draws)) ** 0.5


def test_draws_need_the_secret_of_the_run() -> None:
    """With another secret the same conversations are assigned as if by chance."""
    names = [f"conversation-{number}" for number in range(2000)]
    chosen = {name for name in names if ClientHashes(b"secret").draw(name) < 0.1}
    guessed = {name for name in names if ClientHashes(b"guess").draw(name) < 0.1}
    assert len(chosen & guessed) < 45
