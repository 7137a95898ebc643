"""Forwarding traffic to a monitor that fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace

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


def _queued(forwarder: TrafficForwarder, then: int) -> list[str]:
    """The ids that are delivered, once ``then`` items wait no longer."""

    async def deliver() -> list[str]:
        got: list[str] = []

        async def take(batch: list[Observation]) -> None:
            got.extend(each.id for each in batch)

        async def take_feedback(batch: list[Feedback]) -> None:
            got.extend(each.reply for each in batch)

        forwarder.deliver, forwarder.deliver_feedback = take, take_feedback
        task = asyncio.create_task(forwarder.run())
        while len(got) < then:
            await asyncio.sleep(0)
        task.cancel()
        return got

    return asyncio.run(deliver())


def _forwarder(capacity: int, max_bytes: int = 10**9) -> TrafficForwarder:
    async def never(_: list[Observation]) -> None:
        raise ConnectionError

    return TrafficForwarder(never, capacity=capacity, max_bytes=max_bytes, pause=lambda _: asyncio.sleep(0))


def test_a_flood_of_one_client_drops_its_own_items() -> None:
    forwarder = _forwarder(10)
    for number in range(50):
        forwarder.submit_feedback(Feedback(f"flood-{number}", "bad", None, None, None, 0.0, "flood"))
    for number in range(3):
        forwarder.put(replace(_observation(number), client="one"))
    assert forwarder.counts()["dropped"] == 40
    assert [name for name in _queued(forwarder, 13) if name.startswith("id-")] == ["id-0", "id-1", "id-2"]


def test_queued_texts_are_bounded_in_bytes_and_truncated_as_stored() -> None:
    forwarder = _forwarder(1000, max_bytes=70_000)
    for number in range(50):
        forwarder.put(replace(_observation(number), prompt="\u4e00" * 1_000_000, client="flood"))
    forwarder.put(replace(_observation(99), client="one"))
    assert forwarder.counts()["waiting"] == 2, "20,000 characters take 40,000 bytes"
    assert sorted(_queued(forwarder, 2)) == ["id-0", "id-99"]


def test_bytes_are_counted_as_they_are_in_memory() -> None:
    forwarder = _forwarder(1000, max_bytes=2**20)
    for number in range(200):  # one wide character makes every character of a text take 4 bytes
        forwarder.put(replace(_observation(number), prompt="e" * 9_999 + "\U0001f600", client=f"client-{number}"))
    assert forwarder.counts()["waiting"] <= 2**20 / 40_000


def test_feedback_of_many_networks_displaces_no_prompt() -> None:
    forwarder = _forwarder(50)
    for number in range(50):
        forwarder.put(replace(_observation(number), client=f"client-{number}"))
    for number in range(500):
        forwarder.submit_feedback(Feedback(f"flood-{number}", "bad", None, None, None, 0.0, f"network-{number}"))
        forwarder.put(replace(_observation(100 + number), client=f"network-{number}"))
    delivered = [name for name in _queued(forwarder, 100) if name.startswith("id-")]
    assert delivered == [f"id-{number}" for number in range(50)]
