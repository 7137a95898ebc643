"""The least that can stand between a client and a replica under Ray Serve: a FastAPI ingress and a deployment that streams.

Key property: the same proxy, options and number of processes as the service has, and no work: what it takes is what Ray Serve
and HTTP take. It knows no model. Annotations are evaluated at once, since Ray sends the classes without this module's names.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from compass_ray.config import RunConfig

PREFIX = "/hop"
_PIECES = 4


def start(config: RunConfig) -> None:
    """Serve it beside what is served already, below `PREFIX`."""
    from ray import serve

    serve.run(
        _application(config), name="hop", route_prefix=PREFIX, logging_config={"log_level": "WARNING", "enable_access_log": False}
    )


def _application(config: RunConfig) -> Any:
    from ray import serve

    api = FastAPI()

    class Speaker:
        async def speak(self, text: str) -> AsyncIterator[str]:
            for _ in range(_PIECES):
                yield text

    class Hop:
        def __init__(self, speaker: Any) -> None:
            self.streaming = speaker.options(stream=True)

        @api.post("/v1/chat/completions")
        async def chat(self, body: dict[str, Any]) -> StreamingResponse:
            pieces = self.streaming.speak.remote(body["messages"][-1]["content"])
            return StreamingResponse(_events(pieces), media_type="text/event-stream")

    options = {"num_cpus": config.resources.replica_cpus}
    speaker = serve.deployment(
        name="speaker", max_ongoing_requests=config.serve.max_concurrent_requests, ray_actor_options=options
    )
    hop = serve.deployment(name="hop", max_ongoing_requests=config.serve.max_concurrent_requests, ray_actor_options=options)
    return hop(serve.ingress(api)(Hop)).bind(speaker(Speaker).bind())


async def _events(pieces: AsyncIterator[str]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        event = {"model": "base", "choices": [{"delta": {"content": piece}}]}
        yield b"data: %b\n\n" % json.dumps(event).encode()
    yield b"data: [DONE]\n\n"
