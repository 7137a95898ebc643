"""What is heard of a reply: order, company, the end at once, and as few wake-ups as can be."""

from __future__ import annotations

import asyncio
import threading

import pytest

from compass_ray.models.orders import Answer, Piece, TokenScore
from compass_ray.serving.adapters.hearing import Pieces, Whole

ANSWER = Answer("abc", None, 1, 3, "length", None)
FOREVER = 3600.0


def run(*said: Piece | Answer | Exception, pause: float = 0.0) -> list[Piece | Answer]:
    """What is given on where another thread says all of it at once."""

    async def listen() -> list[Piece | Answer]:
        pieces = Pieces()
        thread = threading.Thread(target=lambda: [pieces.hear(each) for each in said])
        thread.start()
        thread.join()
        return [each async for each in pieces.parts(lambda: pause)]

    return asyncio.run(asyncio.wait_for(listen(), 10))


def test_pieces_that_wait_come_as_one_with_their_scores() -> None:
    scores = [TokenScore(letter, -1.0) for letter in "ab"]
    first, last = run(Piece("a", (scores[0],)), Piece("b", (scores[1],)), ANSWER)
    assert first == Piece("ab", tuple(scores))
    assert last == ANSWER


def test_an_error_comes_after_what_was_said_before_it() -> None:
    async def listen() -> None:
        pieces = Pieces()
        pieces.hear(Piece("a"))
        pieces.hear(ValueError("lost"))
        parts = pieces.parts(lambda: FOREVER)
        assert await anext(parts) == Piece("a")
        with pytest.raises(ValueError, match="lost"):
            await anext(parts)

    asyncio.run(asyncio.wait_for(listen(), 10))


def test_the_first_piece_and_the_end_never_wait() -> None:
    async def listen() -> None:
        pieces = Pieces()
        parts = pieces.parts(lambda: FOREVER)
        pieces.hear(Piece("a"))
        assert await anext(parts) == Piece("a")
        rest = asyncio.ensure_future(anext(parts))
        pieces.hear(Piece("b"))
        done, _ = await asyncio.wait([rest], timeout=0.05)
        assert not done, "the second piece waits for company"
        pieces.hear(Piece("c"))
        pieces.hear(ANSWER)
        assert await rest == Piece("bc")
        assert await anext(parts) == ANSWER

    asyncio.run(asyncio.wait_for(listen(), 10))


def test_what_came_during_a_pause_is_given_on_after_it() -> None:
    async def listen() -> None:
        pieces = Pieces()
        parts = pieces.parts(lambda: 0.01)
        pieces.hear(Piece("a"))
        assert await anext(parts) == Piece("a")
        rest = asyncio.ensure_future(anext(parts))
        await asyncio.sleep(0)
        pieces.hear(Piece("b"))
        assert await rest == Piece("b")

    asyncio.run(asyncio.wait_for(listen(), 10))


def test_a_whole_reply_hears_only_its_end() -> None:
    async def listen() -> Answer:
        whole = Whole()
        for each in (Piece("a"), ANSWER, ValueError("too late")):
            whole.hear(each)
        return await whole.answer

    assert asyncio.run(listen()) == ANSWER


def test_a_whole_reply_fails_as_it_was_told() -> None:
    async def listen() -> Answer:
        whole = Whole()
        whole.hear(ValueError("lost"))
        return await whole.answer

    with pytest.raises(ValueError, match="lost"):
        asyncio.run(listen())
