"""Milliseconds to the first token of one client: engine, no-op app on Ray Serve, and service; and the cost of the monitor.

All are measured interleaved in one run, on the same prompts. The overhead is the service's time to first token minus the
engine's. Wall time; run it on an idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx
import numpy as np

from benchmarks.record import Value
from benchmarks.speed.serving_client import ROUTE, LoadRequest, RequestOutcome, send
from benchmarks.speed.serving_noop_app import PREFIX
from compass_ray.engine.requests import GenerationRequest

UNMONITORED = "/unmonitored"
_BLOCK = 10
_DRAWS = 10_000

Way = Callable[[LoadRequest], Awaitable[float]]


async def first_tokens(url: str, engine: Any, requests: Sequence[LoadRequest]) -> dict[str, Value]:
    """Measure the three, one request each in turn."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        ways: dict[str, Way] = {
            "engine": _by_engine(engine),
            "hop": _over_http(client, PREFIX + ROUTE),
            "service": _over_http(client, ROUTE),
        }
        taken = await _interleaved(ways, requests)
    added = taken["service"] - np.median(taken["engine"])
    parts = {**taken, "overhead": added}
    return {
        **{f"{name}_ms_p{q}": float(np.percentile(part, q)) for name, part in parts.items() for q in (50, 95)},
        "overhead_over_hop": float(np.median(added) / np.median(taken["hop"])),
        "overhead_over_hop_by_quarter": [
            float((np.median(service) - np.median(bare)) / np.median(hop))
            for service, bare, hop in zip(*(np.array_split(taken[name], 4) for name in ("service", "engine", "hop")), strict=True)
        ],
    }


async def monitor_cost(url: str, requests: Sequence[LoadRequest]) -> dict[str, Value]:
    """Milliseconds of complete replies with and without a monitor, in alternating blocks, and their difference."""
    monitored: list[float] = []
    unmonitored: list[float] = []
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for at in range(0, len(requests) - _BLOCK + 1, _BLOCK):
            block, pair = requests[at : at + _BLOCK], [(ROUTE, monitored), (UNMONITORED + ROUTE, unmonitored)]
            for route, taken in pair if at // _BLOCK % 2 else reversed(pair):
                taken.append(float(np.mean([await _complete_reply(client, request, route) for request in block])))
                await _wait_for_monitor(client)
    difference = np.array(monitored) - np.array(unmonitored)
    drawn = np.random.default_rng(0).choice(difference, size=(_DRAWS, len(difference)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return {
        "watched_ms_p50": float(np.median(monitored)),
        "unwatched_ms_p50": float(np.median(unmonitored)),
        "difference_ms_median": float(np.median(difference)),
        "difference_ms_low": float(low),
        "difference_ms_high": float(high),
        "blocks": len(difference),
    }


async def _interleaved(ways: Mapping[str, Way], requests: Sequence[LoadRequest]) -> dict[str, np.ndarray]:
    """Milliseconds of each target for each request, after one warm-up round."""
    names = list(ways)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number, request in enumerate([requests[0], *requests]):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            milliseconds = 1000 * await ways[name](request)
            if number:
                taken[name].append(milliseconds)
    return {name: np.array(each) for name, each in taken.items()}


def _by_engine(engine: Any) -> Way:
    async def way(request: LoadRequest) -> float:
        started = time.monotonic()
        request_id = engine.add_request(
            GenerationRequest((("user", request.prompt),), adapter=f"{request.language}@v0001", max_tokens=request.tokens)
        )
        while not any(event.delta.text for event in engine.step()):
            pass
        seconds = time.monotonic() - started
        engine.abort_request(request_id)
        return seconds

    return way


def _over_http(client: httpx.AsyncClient, route: str) -> Way:
    async def way(request: LoadRequest) -> float:
        response = await send(client, request, route)
        if response.outcome is not RequestOutcome.ANSWERED:
            raise ValueError(f"{route} gave {response.detail or response.outcome}; expected a reply")
        return response.first - response.sent

    return way


async def _complete_reply(client: httpx.AsyncClient, request: LoadRequest, route: str) -> float:
    """Milliseconds of a complete reply."""
    response = await send(client, request, route)
    if response.outcome is not RequestOutcome.ANSWERED:
        raise ValueError(f"{route} gave {response.detail or response.outcome}; expected a reply")
    return 1000 * (response.ended - response.sent)


async def _wait_for_monitor(client: httpx.AsyncClient) -> None:
    """Wait until no prompts wait for the monitor."""
    while (await client.get("/v1/compass/status")).json()["traffic"]["waiting"]:
        pass
