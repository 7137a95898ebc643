"""Load generator: many clients of a service, while versions are replaced and processes are killed.

Events depend on the number of replies, not on the clock. Requests continue until each replacement was seen in a reply. This
module does not check replies.
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
from benchmarks.speed.serving_expected_replies import ReplyKey
from benchmarks.speed.serving_fixture import SEED, Shape
from benchmarks.speed.serving_load_metrics import LiveVersions
from benchmarks.speed.serving_processes import Role, kill_process, list_processes
from compass_ray.artifacts import RunDir

AT_ONCE = 64
LIMIT = 900.0
"""Maximum seconds of the load; after that it fails."""
_PATIENCE = 60.0
"""Seconds without data after which a request fails."""
_SEEN_WITHIN = 20.0


@dataclass(frozen=True)
class LoadPlan:
    """Events of the load by share of the requests; ``replacements`` are spread evenly."""

    shape: Shape
    requests: int
    replacements: int
    replicas: int
    replica_killed_at: tuple[float, ...]
    monitor_killed_at: tuple[float, ...]
    prompts: int
    at_once: int = AT_ONCE

    def events(self) -> list[tuple[float, str]]:
        """Share of the requests and name of each event, in order."""
        found = [((number + 0.5) / (self.replacements + 1), "replace") for number in range(self.replacements)]
        found += [(share, "replica") for share in self.replica_killed_at]
        found += [(share, "monitor") for share in self.monitor_killed_at]
        return sorted(found)


@dataclass
class LoadState:
    """State of the load: requests to send, and responses."""

    requests: Iterator[LoadRequest]
    wanted: int
    responses: list[LoadResponse] = field(default_factory=list)
    sent: int = 0
    events_done: bool = False
    """Whether all events are done."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def send_requests(self, client: httpx.AsyncClient) -> None:
        """Send one request after another."""
        while self.sent < self.wanted or not self.events_done:
            self.sent += 1
            self.responses.append(await send(client, next(self.requests)))
            self.changed.set()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the responses holds."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()


def generate_requests(replies: Sequence[ReplyKey], languages: Sequence[str], *, seed: int) -> Iterator[LoadRequest]:
    """Endless requests: a quarter streams; mostly to ``auto``, otherwise to a language, a version or the base."""
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
    """Run the load and its events.

    Raises:
        TimeoutError: the load took longer than `LIMIT`, or a new version did not answer.
    """
    load = LoadState(generate_requests(replies, plan.shape.languages, seed=SEED), plan.requests)
    limits = httpx.Limits(max_connections=plan.at_once, max_keepalive_connections=plan.at_once)
    async with (
        httpx.AsyncClient(base_url=url, timeout=_PATIENCE, limits=limits) as client,
        asyncio.timeout(LIMIT),
        asyncio.TaskGroup() as group,
    ):
        group.create_task(_run_events(load, run, plan, timeline))
        for _ in range(plan.at_once):
            group.create_task(load.send_requests(client))
    return load.responses


async def _run_events(load: LoadState, run: RunDir, plan: LoadPlan, timeline: LiveVersions) -> None:
    languages = itertools.cycle(plan.shape.languages)
    for share, event in plan.events():
        await load.wait_until(lambda share=share: len(load.responses) >= share * plan.requests)  # type: ignore[misc]
        if event == "replace":
            await _replace_version(load, run, next(languages), plan.shape.versions, timeline)
        else:
            role = Role[event.upper()]
            await load.wait_until(lambda role=role: bool(list_processes(role)))  # type: ignore[misc]
            await asyncio.to_thread(kill_process, role)
    load.events_done = True


async def _replace_version(load: LoadState, run: RunDir, language: str, versions: int, timeline: LiveVersions) -> None:
    """Promote the next version, and wait for a reply from it."""
    from compass_ray import registry

    version = f"v{int(timeline.live(language)[1:]) % versions + 1:04}"
    began = time.monotonic()
    await asyncio.to_thread(registry.promote, run, language, version)
    timeline.record_replacement(language, version, began, time.monotonic())
    models = ("auto", language)
    async with asyncio.timeout(_SEEN_WITHIN):
        await load.wait_until(
            lambda: any(
                each.adapter == f"{language}@{version}" and each.request.model in models
                for each in itertools.takewhile(lambda each: each.ended > began, reversed(load.responses))
            )
        )
