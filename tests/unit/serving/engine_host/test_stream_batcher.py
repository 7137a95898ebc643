"""What is heard of a reply: order, company, the end at once, and as few wake-ups as can be."""

from __future__ import annotations

import asyncio
import threading

import pytest

from compass_ray.engine.requests import GenerationOutput, OutputDelta, TokenLogprob
from compass_ray.serving.engine_host.stream_batcher import FinalListener, StreamListener

ANSWER = GenerationOutput("abc", None, 1, 3, "length", None)
FOREVER = 3600.0


def run(*said: OutputDelta | GenerationOutput | Exception, pause: float = 0.0) -> list[OutputDelta | GenerationOutput]:
    """What is given on where another thread says all of it at once."""

    async def listen() -> list[OutputDelta | GenerationOutput]:
        pieces = StreamListener()
        thread = threading.Thread(target=lambda: [pieces.on_output(each) for each in said])
        thread.start()
        thread.join()
        return [each async for each in pieces.outputs(lambda: pause)]

    return asyncio.run(asyncio.wait_for(listen(), 10))


def test_pieces_that_wait_come_as_one_with_their_scores() -> None:
    scores = [TokenLogprob(letter, -1.0) for letter in "ab"]
    first, last = run(OutputDelta("a", (scores[0],)), OutputDelta("b", (scores[1],)), ANSWER)
    assert first == OutputDelta("ab", tuple(scores))
    assert last == ANSWER


def test_an_error_comes_after_what_was_said_before_it() -> None:
    async def listen() -> None:
        pieces = StreamListener()
        pieces.on_output(OutputDelta("a"))
        pieces.on_output(ValueError("lost"))
        parts = pieces.outputs(lambda: FOREVER)
        assert await anext(parts) == OutputDelta("a")
        with pytest.raises(ValueError, match="lost"):
            await anext(parts)

    asyncio.run(asyncio.wait_for(listen(), 10))


def test_the_first_piece_and_the_end_never_wait() -> None:
    async def listen() -> None:
        pieces = StreamListener()
        parts = pieces.outputs(lambda: FOREVER)
        pieces.on_output(OutputDelta("a"))
        assert await anext(parts) == OutputDelta("a")
        rest = asyncio.ensure_future(anext(parts))
        pieces.on_output(OutputDelta("b"))
        done, _ = await asyncio.wait([rest], timeout=0.05)
        assert not done, "the second piece waits for company"
        pieces.on_output(OutputDelta("c"))
        pieces.on_output(ANSWER)
        assert await rest == OutputDelta("bc")
        assert await anext(parts) == ANSWER

    asyncio.run(asyncio.wait_for(listen(), 10))


def test_what_came_during_a_pause_is_given_on_after_it() -> None:
    async def listen() -> None:
        pieces = StreamListener()
        parts = pieces.outputs(lambda: 0.01)
        pieces.on_output(OutputDelta("a"))
        assert await anext(parts) == OutputDelta("a")
        rest = asyncio.ensure_future(anext(parts))
        await asyncio.sleep(0)
        pieces.on_output(OutputDelta("b"))
        assert await rest == OutputDelta("b")

    asyncio.run(asyncio.wait_for(listen(), 10))


def test_a_whole_reply_hears_only_its_end() -> None:
    async def listen() -> GenerationOutput:
        whole = FinalListener()
        for each in (OutputDelta("a"), ANSWER, ValueError("too late")):
            whole.on_output(each)
        return await whole.output

    assert asyncio.run(listen()) == ANSWER


def test_a_whole_reply_fails_as_it_was_told() -> None:
    async def listen() -> GenerationOutput:
        whole = FinalListener()
        whole.on_output(ValueError("lost"))
        return await whole.output

    with pytest.raises(ValueError, match="lost"):
        asyncio.run(listen())
