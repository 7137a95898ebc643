"""Forwarding traffic to a monitor that fails."""

from __future__ import annotations

import asyncio

from compass_ray.monitoring.forwarder import TrafficForwarder
from compass_ray.monitoring.observations import Feedback, Observation


def _observation(number: int) -> Observation:
    return Observation(f"id-{number}", "sw", "habari", None, None, 0.0)


class Monitor:
    """Fails the first calls, then accepts everything; done once it has ``expected`` items."""

    def __init__(self, failures: int, expected: int) -> None:
        self.failures = failures
        self.expected = expected
        self.got: list[str] = []
        self.done = asyncio.Event()

    async def deliver(self, batch: list[Observation]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the actor is restarting")
        self.got += [each.id for each in batch]
        if len(self.got) >= self.expected:
            self.done.set()


async def _run(failures: int, count: int, capacity: int) -> tuple[Monitor, TrafficForwarder, list[float]]:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    monitor = Monitor(failures, min(count, capacity))
    forwarder = TrafficForwarder(monitor.deliver, capacity=capacity, pause=pause)
    for number in range(count):
        forwarder.put(_observation(number))
    task = asyncio.create_task(forwarder.run())
    await monitor.done.wait()
    await forwarder.drain()
    task.cancel()
    return monitor, forwarder, pauses


def test_everything_arrives_in_order_although_the_monitor_failed_first() -> None:
    monitor, forwarder, pauses = asyncio.run(_run(failures=9, count=200, capacity=1000))
    assert monitor.got == [f"id-{n}" for n in range(200)]
    assert forwarder.counts() == {"waiting": 0, "delivered": 200, "dropped": 0, "retries": 9}
    assert pauses[1:4] == [0.1, 0.2, 0.4]
    assert max(pauses) == 5.0


def test_a_full_queue_drops_and_counts_and_never_waits() -> None:
    monitor, forwarder, _ = asyncio.run(_run(failures=0, count=15, capacity=10))
    assert monitor.got == [f"id-{n}" for n in range(10)]
    assert forwarder.counts()["dropped"] == 5


def test_draining_gives_up_on_a_monitor_that_never_answers() -> None:
    async def drain() -> int:
        monitor = Monitor(failures=10**9, expected=1)
        forwarder = TrafficForwarder(monitor.deliver, pause=lambda _: asyncio.sleep(0))
        forwarder.put(_observation(0))
        task = asyncio.create_task(forwarder.run())
        await forwarder.drain()
        task.cancel()
        return forwarder.counts()["waiting"]

    assert asyncio.run(drain()) == 1


def test_feedback_never_overtakes_the_prompts_before_it() -> None:
    async def deliver() -> list[str]:
        monitor, order = Monitor(failures=2, expected=2), list[str]()

        async def rate(batch: list[Feedback]) -> None:
            order.extend([*monitor.got, *(f"rated {each.reply}" for each in batch)])

        forwarder = TrafficForwarder(monitor.deliver, rate, pause=lambda _: asyncio.sleep(0))
        forwarder.put(_observation(0))
        forwarder.submit_feedback(Feedback("id-0", "good", None, None, None, 0.0))
        forwarder.put(_observation(1))
        task = asyncio.create_task(forwarder.run())
        await forwarder.drain()
        task.cancel()
        return order

    assert asyncio.run(deliver()) == ["id-0", "id-1", "rated id-0"]
