"""A request whose replica or engine is lost is answered by another one, unless the client already has a part of the response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from compass_ray.engine.protocol import EngineStoppedError
from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta
from compass_ray.models.errors import ModelError
from compass_ray.serving import engine_client
from compass_ray.serving.engine_client import EngineClient
from compass_ray.serving.inference.backend import StreamInterruptedError

REQUEST = GenerationRequest(text="Habari")
OUTPUT = GenerationOutput("Nzuri", None, 1, 1, "stop", 0.5)


def raised(cause: Exception) -> RayTaskError:
    """An error of a replica, as its caller gets it."""
    return RayTaskError("answer", "traceback", cause)


class ScriptedResponse:
    """The response of one replica: outputs, or an error at the end of them."""

    def __init__(self, outputs: Sequence[Any]) -> None:
        self.outputs = outputs

    def __await__(self) -> Any:
        return self._last().__await__()

    async def _last(self) -> Any:
        if isinstance(self.outputs[-1], Exception):
            raise self.outputs[-1]
        return self.outputs[-1]

    async def __aiter__(self) -> AsyncIterator[Any]:
        for each in self.outputs:
            if isinstance(each, Exception):
                raise each
            yield each

    def cancel(self) -> None:
        """The client frees a response that it no longer reads."""


class ScriptedHandle:
    """A handle whose requests get the responses in order."""

    def __init__(self, *responses: Sequence[Any]) -> None:
        self.responses = list(responses)

    def options(self, **_: object) -> ScriptedHandle:
        return self

    @property
    def answer(self) -> ScriptedHandle:
        return self

    stream = answer

    def remote(self, _: GenerationRequest) -> ScriptedResponse:
        return ScriptedResponse(self.responses.pop(0))


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_client, "_RETRY_DELAY_S", 0.0)


def _client(*responses: Sequence[Any]) -> EngineClient:
    handle: Any = ScriptedHandle(*responses)
    return EngineClient(handle)


async def _stream(client: EngineClient) -> list[Any]:
    return [output async for output in client.stream(REQUEST)]


def test_a_stopped_engine_is_retried_on_another_replica() -> None:
    client = _client([raised(EngineStoppedError("stopped"))], [OUTPUT])
    assert asyncio.run(client.answer(REQUEST)) == OUTPUT
    assert client.retries == 1


def test_other_errors_of_a_replica_reach_the_caller() -> None:
    client = _client([raised(ModelError("too long"))], [raised(ModelError("too long"))])
    with pytest.raises(ModelError, match="too long"):
        asyncio.run(client.answer(REQUEST))
    with pytest.raises(ModelError, match="too long"):
        asyncio.run(_stream(client))
    assert client.retries == 0


def test_a_stream_is_retried_before_its_first_part_only() -> None:
    delta = OutputDelta("N")
    client = _client([raised(EngineStoppedError("stopped"))], [delta, OUTPUT], [delta, raised(EngineStoppedError("stopped"))])
    assert asyncio.run(_stream(client)) == [delta, OUTPUT]
    with pytest.raises(StreamInterruptedError):
        asyncio.run(_stream(client))
