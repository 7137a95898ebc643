"""32 replies at once by the engine in this process, by the service whole, and by the service in streams.

Key property: the same orders, adapters mixed, one replica, one thread of torch each way, in turns; the share is of the engine's
wall time, so it holds what HTTP, Ray Serve and the ingress cost while a replica is busy, and the machine should have nothing
else to do. The share by CPU, of the process that generates alone, stands whatever else runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np

from benchmarks.record import Value
from benchmarks.speed.serving_client import LoadRequest, RequestOutcome, send
from benchmarks.speed.serving_processes import Role, cpu_seconds
from compass_ray.engine.requests import GenerationRequest


@dataclass(frozen=True)
class Cost:
    """Wall seconds, and CPU seconds of the process that generates and of those between it and the client."""

    wall: float
    generating: float
    between: float


def throughput(url: str, engine: Any, asks: Sequence[LoadRequest], turns: int) -> dict[str, Value]:
    """Seconds of each way, and the share of the engine's throughput that the service keeps."""
    streams = [replace(ask, stream=True) for ask in asks]
    ways: dict[str, Callable[[], Cost]] = {
        "engine": lambda: _engine_cost(engine, asks),
        "whole": lambda: _service_cost(url, asks),
        "streams": lambda: _service_cost(url, streams),
    }
    rounds = [{name: way() for name, way in ways.items()} for _ in range(turns + 1)][1:]
    bare = float(np.median([each["engine"].wall for each in rounds]))
    tokens = sum(ask.tokens for ask in asks)
    numbers: dict[str, Value] = {
        "at_once": len(asks),
        "engine_seconds": bare,
        "engine_tokens_per_second": tokens / bare,
        "engine_step_ms": 1000 * bare / max(ask.tokens for ask in asks),
    }
    for name in ("whole", "streams"):
        shares = [each["engine"].wall / each[name].wall for each in rounds]
        cpu = [each["engine"].generating / each[name].generating for each in rounds]
        between = [1000 * each[name].between / tokens for each in rounds]
        numbers |= {
            f"{name}_share_of_engine": float(np.median(shares)),
            f"{name}_share_by_turn": shares,
            f"{name}_share_of_engine_by_cpu": float(np.median(cpu)),
            f"{name}_cpu_ms_a_token_between": float(np.median(between)),
        }
    return numbers


def _engine_cost(engine: Any, asks: Sequence[LoadRequest]) -> Cost:
    orders = [
        GenerationRequest((("user", a.prompt),), adapter=None if a.model == "base" else a.model, max_tokens=a.tokens)
        for a in asks
    ]
    wall, cpu = time.monotonic(), time.process_time()
    engine.generate(orders)
    return Cost(time.monotonic() - wall, time.process_time() - cpu, 0.0)


def _service_cost(url: str, asks: Sequence[LoadRequest]) -> Cost:
    before = cpu_seconds()
    wall = asyncio.run(_at_once(url, asks))
    spent = {role: seconds - before[role] for role, seconds in cpu_seconds().items()}
    return Cost(wall, spent[Role.REPLICA], spent[Role.INGRESS] + spent[Role.PROXY])


async def _at_once(url: str, asks: Sequence[LoadRequest]) -> float:
    limits = httpx.Limits(max_connections=len(asks))
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        await asyncio.gather(*(client.get("/healthz") for _ in asks))  # connections are there
        started = time.monotonic()
        heard = await asyncio.gather(*(send(client, ask) for ask in asks))
        seconds = time.monotonic() - started
    for each in heard:
        if each.outcome is not RequestOutcome.ANSWERED:
            raise ValueError(f"{each.request.model} gave {each.detail or each.outcome}; expected a reply")
    return seconds
