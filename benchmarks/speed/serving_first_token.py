"""Milliseconds to the first token at one client: the bare engine, a bare hop through Ray Serve, the service; the monitor's part.

Key property: all ways are measured in turns in one run, on the same prompts. The overhead is the service's first token less the
engine's, the time in which the engine computes nothing. Wall time: the machine should have nothing else to do.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx
import numpy as np

from benchmarks.record import Value
from benchmarks.speed.serving_client import ROUTE, LoadRequest, RequestOutcome, send
from benchmarks.speed.serving_hop import PREFIX
from compass_ray.engine.requests import GenerationRequest

UNWATCHED = "/unwatched"
_BLOCK = 10
_DRAWS = 10_000

Way = Callable[[LoadRequest], Awaitable[float]]


async def first_tokens(url: str, engine: Any, asks: Sequence[LoadRequest]) -> dict[str, Value]:
    """The three ways, one request of each after another."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        ways: dict[str, Way] = {
            "engine": _by_engine(engine),
            "hop": _over_http(client, PREFIX + ROUTE),
            "service": _over_http(client, ROUTE),
        }
        taken = await _in_turns(ways, asks)
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


async def monitors_part(url: str, asks: Sequence[LoadRequest]) -> dict[str, Value]:
    """Whole replies of the service that a monitor watches and of one without, in turns of blocks; the difference in ms."""
    watched: list[float] = []
    unwatched: list[float] = []
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for at in range(0, len(asks) - _BLOCK + 1, _BLOCK):
            block, pair = asks[at : at + _BLOCK], [(ROUTE, watched), (UNWATCHED + ROUTE, unwatched)]
            for route, taken in pair if at // _BLOCK % 2 else reversed(pair):
                taken.append(float(np.mean([await _whole(client, ask, route) for ask in block])))
                await _settled(client)
    difference = np.array(watched) - np.array(unwatched)
    drawn = np.random.default_rng(0).choice(difference, size=(_DRAWS, len(difference)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return {
        "watched_ms_p50": float(np.median(watched)),
        "unwatched_ms_p50": float(np.median(unwatched)),
        "difference_ms_median": float(np.median(difference)),
        "difference_ms_low": float(low),
        "difference_ms_high": float(high),
        "blocks": len(difference),
    }


async def _in_turns(ways: Mapping[str, Way], asks: Sequence[LoadRequest]) -> dict[str, np.ndarray]:
    """Milliseconds of each way for each request, after one round that does not count."""
    names = list(ways)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number, ask in enumerate([asks[0], *asks]):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            milliseconds = 1000 * await ways[name](ask)
            if number:
                taken[name].append(milliseconds)
    return {name: np.array(each) for name, each in taken.items()}


def _by_engine(engine: Any) -> Way:
    async def way(ask: LoadRequest) -> float:
        started = time.monotonic()
        ticket = engine.add_request(
            GenerationRequest((("user", ask.prompt),), adapter=f"{ask.language}@v0001", max_tokens=ask.tokens)
        )
        while not any(event.delta.text for event in engine.step()):
            pass
        seconds = time.monotonic() - started
        engine.abort_request(ticket)
        return seconds

    return way


def _over_http(client: httpx.AsyncClient, route: str) -> Way:
    async def way(ask: LoadRequest) -> float:
        heard = await send(client, ask, route)
        if heard.outcome is not RequestOutcome.ANSWERED:
            raise ValueError(f"{route} gave {heard.detail or heard.outcome}; expected a reply")
        return heard.first - heard.sent

    return way


async def _whole(client: httpx.AsyncClient, ask: LoadRequest, route: str) -> float:
    """Milliseconds of a whole reply."""
    heard = await send(client, ask, route)
    if heard.outcome is not RequestOutcome.ANSWERED:
        raise ValueError(f"{route} gave {heard.detail or heard.outcome}; expected a reply")
    return 1000 * (heard.ended - heard.sent)


async def _settled(client: httpx.AsyncClient) -> None:
    """Wait until the monitor has nothing left to do."""
    while (await client.get("/v1/compass/status")).json()["traffic"]["waiting"]:
        pass
