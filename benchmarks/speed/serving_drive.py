"""Many clients on a service, and what is done to it meanwhile: versions replaced, processes killed.

Key property: what happens is decided by how many replies there were, not by the clock, and requests go on until each
replacement was seen in a reply. It judges nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import httpx

from benchmarks.speed.serving_client import LoadRequest, LoadResponse, send
from benchmarks.speed.serving_processes import Role, kill_process, list_processes
from benchmarks.speed.serving_replies import ReplyKey
from benchmarks.speed.serving_run import SEED, Shape
from benchmarks.speed.serving_verdict import LiveVersions
from compass_ray.artifacts import RunDir

AT_ONCE = 64
LIMIT = 900.0
"""Seconds after which the load is an error."""
_PATIENCE = 60.0
"""Seconds without a byte after which a request has failed."""
_SEEN_WITHIN = 20.0


@dataclass(frozen=True)
class LoadPlan:
    """What happens, at which share of the requests; ``replacements`` are spread evenly over all of them."""

    shape: Shape
    requests: int
    replacements: int
    replicas: int
    replica_killed_at: tuple[float, ...]
    monitor_killed_at: tuple[float, ...]
    prompts: int

    def events(self) -> list[tuple[float, str]]:
        """Share of the requests and what happens then, in order."""
        found = [((number + 0.5) / (self.replacements + 1), "replace") for number in range(self.replacements)]
        found += [(share, "replica") for share in self.replica_killed_at]
        found += [(share, "monitor") for share in self.monitor_killed_at]
        return sorted(found)


@dataclass
class LoadState:
    """Requests on their way, and what was heard."""

    requests: Iterator[LoadRequest]
    wanted: int
    responses: list[LoadResponse] = field(default_factory=list)
    sent: int = 0
    events_done: bool = False
    """Whether all that was to happen has happened."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def send_requests(self, client: httpx.AsyncClient) -> None:
        """Send one request after another."""
        while self.sent < self.wanted or not self.events_done:
            self.sent += 1
            self.responses.append(await send(client, next(self.requests)))
            self.changed.set()

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for what the replies so far decide."""
        while not holds():
            self.changed.clear()
            await self.changed.wait()


def generate_requests(replies: Sequence[ReplyKey], languages: Sequence[str], *, seed: int) -> Iterator[LoadRequest]:
    """Requests without end: a quarter streams; to ``auto`` mostly, to a language, a version or the base else."""
    draw = random.Random(seed)
    by_language = {code: [key for key in replies if (key[0] or "").startswith(f"{code}@")] for code in languages}
    while True:
        language = draw.choice(languages)
        adapter, prompt, tokens = draw.choice(by_language[language])
        model = draw.choices(("auto", language, adapter or "", "base"), (6, 1.5, 1.5, 1))[0]
        yield LoadRequest(model, prompt, language, tokens, stream=draw.random() < 0.25)


async def run_load(
    url: str, run: RunDir, plan: LoadPlan, replies: Sequence[ReplyKey], timeline: LiveVersions
) -> list[LoadResponse]:
    """The load, and what happens meanwhile.

    Raises:
        TimeoutError: it took longer than `LIMIT`, or a new version never answered.
    """
    load = LoadState(generate_requests(replies, plan.shape.languages, seed=SEED), plan.requests)
    most = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with (
        httpx.AsyncClient(base_url=url, timeout=_PATIENCE, limits=most) as client,
        asyncio.timeout(LIMIT),
        asyncio.TaskGroup() as group,
    ):
        group.create_task(_run_events(load, run, plan, timeline))
        for _ in range(AT_ONCE):
            group.create_task(load.send_requests(client))
    return load.responses


async def _run_events(load: LoadState, run: RunDir, plan: LoadPlan, timeline: LiveVersions) -> None:
    turn = itertools.cycle(plan.shape.languages)
    for share, what in plan.events():
        await load.wait_until(lambda share=share: len(load.responses) >= share * plan.requests)  # type: ignore[misc]
        if what == "replace":
            await _replace_version(load, run, next(turn), plan.shape.versions, timeline)
        else:
            role = Role[what.upper()]
            await load.wait_until(lambda role=role: bool(list_processes(role)))  # type: ignore[misc]
            await asyncio.to_thread(kill_process, role)
    load.events_done = True


async def _replace_version(load: LoadState, run: RunDir, language: str, versions: int, timeline: LiveVersions) -> None:
    """Make the next version live, and wait for a reply by it."""
    from compass_ray import registry

    version = f"v{int(timeline.live(language)[1:]) % versions + 1:04}"
    began = time.monotonic()
    await asyncio.to_thread(registry.promote, run, language, version)
    timeline.record_replacement(language, version, began, time.monotonic())
    asked = ("auto", language)
    async with asyncio.timeout(_SEEN_WITHIN):
        await load.wait_until(
            lambda: any(
                each.adapter == f"{language}@{version}" and each.request.model in asked
                for each in itertools.takewhile(lambda each: each.ended > began, reversed(load.responses))
            )
        )
