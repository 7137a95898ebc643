"""Which language each conversation is in, for a while.

Key property: it keeps a language under a keyed hash of the conversation's name and nothing else, neither the name nor any
text; the key is drawn anew in every process, so what is kept can be tied to nobody. Bounded in number and in time. Each
replica has its own, so a client that sends its earlier turns along depends on none of them. COMPASS, section 3.2.5.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable


class ConversationMemory:
    """The languages of the conversations seen last. For one thread."""

    def __init__(self, clock: Callable[[], float], *, most: int = 100_000, seconds: float = 3_600.0) -> None:
        """Remember at most ``most`` conversations, each until ``seconds`` of the clock after its last turn.

        Raises:
            ValueError: ``most`` or ``seconds`` is not above 0.
        """
        if most <= 0 or seconds <= 0:
            raise ValueError(f"most is {most}, seconds {seconds}; expected both above 0")
        self.clock, self.most, self.seconds = clock, most, seconds
        self._secret = secrets.token_bytes(32)
        self._kept: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        """Conversations kept now."""
        self._expire()
        return len(self._kept)

    def recall(self, conversation: str) -> str | None:
        """The conversation's language, where it is known."""
        self._expire()
        kept = self._kept.get(self._key(conversation))
        return kept[0] if kept else None

    def remember(self, conversation: str, language: str) -> None:
        """Keep the language of a conversation's turn; the conversation that has been silent longest makes room."""
        key = self._key(conversation)
        self._kept[key] = language, self.clock()
        self._kept.move_to_end(key)
        self._expire()
        if len(self._kept) > self.most:
            self._kept.popitem(last=False)

    def _expire(self) -> None:
        before = self.clock() - self.seconds
        while self._kept and next(iter(self._kept.values()))[1] <= before:
            self._kept.popitem(last=False)

    def _key(self, conversation: str) -> bytes:
        return hashlib.blake2b(conversation.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=16).digest()
