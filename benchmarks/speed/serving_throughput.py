"""Throughput of 32 concurrent replies: engine in this process, service with complete replies, and service with streams.

All use the same requests with mixed adapters, one replica and one torch thread, interleaved. The share is that of the engine's
wall time, so it includes the cost of HTTP, Ray Serve and the ingress while a replica is busy; run it on an idle machine. The
share by CPU counts only the generating process, so other processes do not affect it.
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


def throughput(url: str, engine: Any, requests: Sequence[LoadRequest], turns: int) -> dict[str, Value]:
    """Seconds of each implementation, and the service's share of the engine's throughput."""
    streams = [replace(request, stream=True) for request in requests]
    ways: dict[str, Callable[[], Cost]] = {
        "engine": lambda: _engine_cost(engine, requests),
        "whole": lambda: _service_cost(url, requests),
        "streams": lambda: _service_cost(url, streams),
    }
    rounds = [{name: way() for name, way in ways.items()} for _ in range(turns + 1)][1:]
    bare = float(np.median([each["engine"].wall for each in rounds]))
    tokens = sum(request.tokens for request in requests)
    numbers: dict[str, Value] = {
        "at_once": len(requests),
        "engine_seconds": bare,
        "engine_tokens_per_second": tokens / bare,
        "engine_step_ms": 1000 * bare / max(request.tokens for request in requests),
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


def _engine_cost(engine: Any, requests: Sequence[LoadRequest]) -> Cost:
    generation = [
        GenerationRequest((("user", a.prompt),), adapter=None if a.model == "base" else a.model, max_tokens=a.tokens)
        for a in requests
    ]
    wall, cpu = time.monotonic(), time.process_time()
    engine.generate(generation)
    return Cost(time.monotonic() - wall, time.process_time() - cpu, 0.0)


def _service_cost(url: str, requests: Sequence[LoadRequest]) -> Cost:
    before = cpu_seconds()
    wall = asyncio.run(_at_once(url, requests))
    spent = {role: seconds - before[role] for role, seconds in cpu_seconds().items()}
    return Cost(wall, spent[Role.REPLICA], spent[Role.INGRESS] + spent[Role.PROXY])


async def _at_once(url: str, requests: Sequence[LoadRequest]) -> float:
    limits = httpx.Limits(max_connections=len(requests))
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        await asyncio.gather(*(client.get("/healthz") for _ in requests))  # open the connections first
        started = time.monotonic()
        responses = await asyncio.gather(*(send(client, request) for request in requests))
        seconds = time.monotonic() - started
    for each in responses:
        if each.outcome is not RequestOutcome.ANSWERED:
            raise ValueError(f"{each.request.model} gave {each.detail or each.outcome}; expected a reply")
    return seconds
