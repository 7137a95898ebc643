"""Output transfer: order, batching of deltas, and an immediate end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from compass_ray.engine.requests import GenerationOutput, OutputDelta, TokenLogprob
from compass_ray.serving.engine_host.stream_batcher import FinalListener, StreamListener

ANSWER = GenerationOutput("abc", None, 1, 3, "length", None)
FOREVER = 3600.0


def run(*outputs_emitted: OutputDelta | GenerationOutput | Exception, pause: float = 0.0) -> list[OutputDelta | GenerationOutput]:
    """The outputs received when another thread emits all at once."""

    async def listen() -> list[OutputDelta | GenerationOutput]:
        listener = StreamListener()
        thread = threading.Thread(target=lambda: [listener.on_output(each) for each in outputs_emitted])
        thread.start()
        thread.join()
        return [each async for each in listener.outputs(lambda: pause)]

    return asyncio.run(asyncio.wait_for(listen(), 10))


def test_pending_deltas_are_merged_with_their_logprobs() -> None:
    scores = [TokenLogprob(ord(letter), letter, letter.encode(), -1.0) for letter in "ab"]
    first, last = run(OutputDelta("a", (scores[0],)), OutputDelta("b", (scores[1],)), ANSWER)
    assert first == OutputDelta("ab", tuple(scores))
    assert last == ANSWER


def test_an_error_arrives_after_the_earlier_deltas() -> None:
    async def listen() -> None:
        listener = StreamListener()
        listener.on_output(OutputDelta("a"))
        listener.on_output(ValueError("lost"))
        outputs = listener.outputs(lambda: FOREVER)
        assert await anext(outputs) == OutputDelta("a")
        with pytest.raises(ValueError, match="lost"):
            await anext(outputs)

    asyncio.run(asyncio.wait_for(listen(), 10))


def test_the_first_delta_and_the_end_are_not_delayed() -> None:
    async def listen() -> None:
        listener = StreamListener()
        outputs = listener.outputs(lambda: FOREVER)
        listener.on_output(OutputDelta("a"))
        assert await anext(outputs) == OutputDelta("a")
        rest = asyncio.ensure_future(anext(outputs))
        listener.on_output(OutputDelta("b"))
        done, _ = await asyncio.wait([rest], timeout=0.05)
        assert not done, "the second delta is batched"
        listener.on_output(OutputDelta("c"))
        listener.on_output(ANSWER)
        assert await rest == OutputDelta("bc")
        assert await anext(outputs) == ANSWER

    asyncio.run(asyncio.wait_for(listen(), 10))


def test_deltas_that_arrive_during_a_pause_are_forwarded_after_it() -> None:
    async def listen() -> None:
        listener = StreamListener()
        outputs = listener.outputs(lambda: 0.01)
        listener.on_output(OutputDelta("a"))
        assert await anext(outputs) == OutputDelta("a")
        rest = asyncio.ensure_future(anext(outputs))
        await asyncio.sleep(0)
        listener.on_output(OutputDelta("b"))
        assert await rest == OutputDelta("b")

    asyncio.run(asyncio.wait_for(listen(), 10))


def test_a_final_listener_gets_only_the_complete_response() -> None:
    async def listen() -> GenerationOutput:
        listener = FinalListener()
        for each in (OutputDelta("a"), ANSWER, ValueError("too late")):
            listener.on_output(each)
        return await listener.output

    assert asyncio.run(listen()) == ANSWER


def test_a_final_listener_raises_the_error() -> None:
    async def listen() -> GenerationOutput:
        listener = FinalListener()
        listener.on_output(ValueError("lost"))
        return await listener.output

    with pytest.raises(ValueError, match="lost"):
        asyncio.run(listen())
