"""The queue of pooled training: nothing is lost or done twice whatever dies, and one bad language stops no other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st

from compass_ray.stages.train.job_queue import JobQueue
from compass_ray.stages.train.train_jobs import Job

SW, HI, RU = (Job(code, "compass", "v0001") for code in ("sw", "hi", "ru"))


def _play(scenario: Callable[[JobQueue], Awaitable[None]], attempts: int = 3) -> JobQueue:
    queue = JobQueue(attempts)

    async def bounded() -> None:
        await asyncio.wait_for(scenario(queue), 10)

    asyncio.run(bounded())
    return queue


def test_jobs_come_in_order_and_the_end_is_told() -> None:
    async def scenario(queue: JobQueue) -> None:
        assert await queue.join("a")
        await queue.put([SW, HI])
        await queue.close()
        for job in (SW, HI):
            assert await queue.take("a") == job
            await queue.finished(job)
        assert await queue.take("a") is None
        assert not await queue.join("b")

    assert asyncio.run(_play(scenario).failures()) == {}


def test_a_worker_waits_for_what_is_still_being_selected() -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.join("a")
        waiting = asyncio.create_task(queue.take("a"))
        await asyncio.sleep(0)
        assert not waiting.done()
        await queue.put([RU])
        assert await waiting == RU

    _play(scenario)


def test_an_idle_worker_takes_what_another_failed_at() -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.join("a")
        await queue.put([SW])
        await queue.close()
        assert await queue.take("a") == SW
        idle = asyncio.create_task(queue.take("a"))
        await asyncio.sleep(0)
        assert not idle.done()
        await queue.failed(SW, "out of memory", final=False)
        assert await idle == SW

    _play(scenario)


def test_what_a_dead_group_held_is_handed_out_again_behind_the_others() -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.join("a")
        await queue.put([SW, HI])
        assert await queue.take("a") == SW
        stale = asyncio.create_task(queue.take("a"))
        await asyncio.sleep(0)
        assert await stale == HI
        await queue.finished(HI)
        await queue.put([RU])
        assert await queue.join("b")
        assert [await queue.take("b"), await queue.take("b")] == [RU, SW]

    _play(scenario)


def test_a_worker_of_a_group_that_is_gone_takes_nothing() -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.join("a")
        asleep = asyncio.create_task(queue.take("a"))
        await asyncio.sleep(0)
        await queue.join("b")
        assert await asleep is None
        await queue.put([SW])
        assert await queue.take("b") == SW

    _play(scenario)


def test_a_language_that_fails_three_times_is_reported_and_the_others_end() -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.put([SW, HI, RU])
        await queue.close()
        for group in range(10):
            if not await queue.join(str(group)):
                break
            while (job := await queue.take(str(group))) is not None:
                if job == HI:
                    await queue.failed(job, "a device-side assert", final=False)
                    break
                await queue.finished(job)

    assert asyncio.run(_play(scenario).failures()) == {HI: "a device-side assert (3 attempts)"}


def test_a_failure_that_would_come_again_is_final_at_once() -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.join("a")
        await queue.put([SW])
        await queue.close()
        await queue.take("a")
        await queue.failed(SW, "no rows", final=True)
        assert await queue.take("a") is None

    assert asyncio.run(_play(scenario).failures()) == {SW: "no rows"}


def test_a_neighbour_of_a_failing_language_is_not_blamed() -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.put([SW, HI])
        await queue.close()
        for group in ("a", "b", "c"):  # the whole group ends each time, with the neighbour under way
            await queue.join(group)
            assert {await queue.take(group), await queue.take(group)} == {SW, HI}
            await queue.failed(HI, "a device-side assert", final=False)
        assert await queue.join("d")
        assert await queue.take("d") == SW
        await queue.finished(SW)

    assert set(asyncio.run(_play(scenario).failures())) == {HI}


def test_workers_that_die_before_they_take_anything_end_it() -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.put([SW])
        groups = [await queue.join(str(group)) for group in range(3)]
        assert groups == [True, True, True]
        assert not await queue.join("3")

    [reason] = asyncio.run(_play(scenario).failures()).values()
    assert "3 times" in reason


def test_what_is_abandoned_has_failed_with_the_reason() -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.join("a")
        await queue.put([SW, HI])
        await queue.take("a")
        await queue.abandon("no such base model")
        assert await queue.ended(0) == 2

    assert asyncio.run(_play(scenario).failures()) == dict.fromkeys((SW, HI), "no such base model")


@given(st.lists(st.sampled_from(("finish", "fail", "die")), max_size=60), st.integers(1, 4))
def test_every_job_ends_once_whatever_happens(fates: list[str], attempts: int) -> None:
    jobs, taken = [Job(f"l{i}", "compass", "v0001") for i in range(6)], Counter[Job]()
    finished: list[Job] = []

    async def scenario(queue: JobQueue) -> None:
        await queue.put(jobs)
        await queue.close()
        group, fate = 0, iter(fates)
        while await queue.join(str(group)):
            job = await queue.take(str(group))
            assert job is not None
            taken[job] += 1
            what = next(fate, "finish")
            if what == "finish":
                finished.append(job)
                await queue.finished(job)
            else:
                if what == "fail":
                    await queue.failed(job, "an error", final=False)
                group += 1
        assert await queue.ended(-1) == len(jobs)

    failures = asyncio.run(_play(scenario, attempts).failures())
    assert sorted([*finished, *failures], key=str) == sorted(jobs, key=str)
    assert max(taken.values()) <= attempts
