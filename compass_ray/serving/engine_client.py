"""The adapter server through its Serve handle, as `backend.Backend`.

Key property: an order whose replica was lost is sent again, so a client sees nothing of it unless a part of the reply had
already gone out. A reply is generated twice then, and given once. It decides nothing about routes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from ray.exceptions import ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta
from compass_ray.registry import Catalogue
from compass_ray.serving.engine_host.adapter_sync import HostState
from compass_ray.serving.inference.backend import OverloadedError, StreamInterruptedError

logger = logging.getLogger(__name__)

_REPLICA_LOST = (RayActorError, WorkerCrashedError, ObjectLostError, DeploymentUnavailableError)
_RETRY_DELAY_S = 0.2
"""Before an order is sent again; how often, the time limit of the request says."""


class EngineClient:
    """Sends orders to whichever replica has room."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        """Wrap the handle."""
        self.handle = handle
        self.stream_handle = handle.options(stream=True)
        self.retries = 0

    async def answer(self, order: GenerationRequest) -> GenerationOutput:
        """Generate one reply on some replica."""
        while True:
            response: Any = self.handle.answer.remote(order)
            try:
                answer: GenerationOutput = await response
                return answer
            except asyncio.CancelledError:  # Serve gives the order up where a client hangs up, not where its time is over
                response.cancel()
                raise
            except BackPressureError:
                raise OverloadedError from None
            except RayTaskError as error:  # its own text holds the replica's frames and address
                raise error.cause from None
            except _REPLICA_LOST as error:
                await self._wait_before_retry(error)

    async def stream(self, order: GenerationRequest) -> AsyncIterator[OutputDelta | GenerationOutput]:
        """Generate one reply on some replica, piece by piece."""
        begun = False
        while True:
            response: Any = self.stream_handle.stream.remote(order)
            try:
                async for each in response:
                    begun = True
                    yield each
                return
            except BackPressureError:
                raise OverloadedError from None
            except RayTaskError as error:
                raise error.cause from None
            except _REPLICA_LOST as error:
                if begun:
                    raise StreamInterruptedError("the replica that generated this reply was lost; ask again") from None
                await self._wait_before_retry(error)
            finally:
                response.cancel()

    async def catalogue(self) -> Catalogue:
        """The live and the whole versions, read anew."""
        catalogue: Catalogue = await self.handle.catalogue.remote()
        return catalogue

    async def state(self) -> HostState:
        """What the server answers with as of its last look, and how its batches went."""
        state: HostState = await self.handle.state.remote()
        return state

    async def _wait_before_retry(self, error: Exception) -> None:
        self.retries += 1
        logger.warning("a replica was lost (%s); its order is sent again", type(error).__name__)
        await asyncio.sleep(_RETRY_DELAY_S)
