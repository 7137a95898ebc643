"""No-op application on Ray Serve: a FastAPI ingress and a streaming deployment, without a model.

It has the proxy, options and number of processes of the service but does no work, so its time is the cost of Ray Serve and
HTTP. Annotations are evaluated eagerly, because Ray sends the classes without the names of this module.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from compass_ray.config import RunConfig

PREFIX = "/hop"
_CHUNKS = 4


def start(config: RunConfig) -> None:
    """Deploy it in addition to the running applications, below `PREFIX`."""
    from ray import serve

    serve.run(
        _application(config), name="hop", route_prefix=PREFIX, logging_config={"log_level": "WARNING", "enable_access_log": False}
    )


def _application(config: RunConfig) -> Any:
    from ray import serve

    api = FastAPI()

    class Speaker:
        async def speak(self, text: str) -> AsyncIterator[str]:
            for _ in range(_CHUNKS):
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
