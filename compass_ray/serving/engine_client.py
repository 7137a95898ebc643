"""The client of the adapter server over its Serve handle; implements `inference.backend.InferenceBackend`.

A request whose replica was lost, or whose engine stopped, is retried on another one. The client of the API notices this only if
a part of the response was already sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from ray.exceptions import ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from compass_ray.engine.protocol import EngineStoppedError
from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta
from compass_ray.registry import Catalogue
from compass_ray.serving.engine_host.adapter_sync import HostState
from compass_ray.serving.inference.backend import OverloadedError, StreamInterruptedError

logger = logging.getLogger(__name__)

_REPLICA_LOST = (RayActorError, WorkerCrashedError, ObjectLostError, DeploymentUnavailableError)
_RETRY_DELAY_S = 0.2
"""Delay before a retry. The request timeout limits the number of retries."""


class EngineClient:
    """Sends requests to any replica with free capacity."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        """Wrap the handle."""
        self.handle = handle
        self.stream_handle = handle.options(stream=True)
        self.retries = 0

    async def answer(self, request: GenerationRequest) -> GenerationOutput:
        """The complete response of some replica."""
        while True:
            response: Any = self.handle.answer.remote(request)
            try:
                answer: GenerationOutput = await response
                return answer
            except asyncio.CancelledError:  # Serve cancels the request when a client disconnects, but not on our timeout
                response.cancel()
                raise
            except BackPressureError:
                raise OverloadedError from None
            except RayTaskError as error:  # its text contains the replica's stack frames and address
                if not isinstance(error.cause, EngineStoppedError):
                    raise error.cause from None
                await self._wait_before_retry(error.cause)
            except _REPLICA_LOST as error:
                await self._wait_before_retry(error)

    async def stream(self, request: GenerationRequest) -> AsyncIterator[OutputDelta | GenerationOutput]:
        """The deltas of some replica's response, then the complete response."""
        started = False
        while True:
            response: Any = self.stream_handle.stream.remote(request)
            try:
                async for output in response:
                    started = True
                    yield output
                return
            except BackPressureError:
                raise OverloadedError from None
            except RayTaskError as error:
                if not isinstance(error.cause, EngineStoppedError):
                    raise error.cause from None
                await self._retry_unless_started(error.cause, started)
            except _REPLICA_LOST as error:
                await self._retry_unless_started(error, started)
            finally:
                response.cancel()

    async def catalogue(self) -> Catalogue:
        """The live and the complete versions, re-read by a replica."""
        catalogue: Catalogue = await self.handle.catalogue.remote()
        return catalogue

    async def state(self) -> HostState:
        """The state of a replica as of its last sync."""
        state: HostState = await self.handle.state.remote()
        return state

    async def _retry_unless_started(self, error: Exception, started: bool) -> None:
        """Wait before a retry. Raise if the client already has a part of the response."""
        if started:
            raise StreamInterruptedError("The replica that generated this response was lost. Send the request again.") from None
        await self._wait_before_retry(error)

    async def _wait_before_retry(self, error: Exception) -> None:
        self.retries += 1
        logger.warning("engine: replica lost (%s); retrying the request on another replica", type(error).__name__)
        await asyncio.sleep(_RETRY_DELAY_S)
