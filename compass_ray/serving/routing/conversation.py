"""The language of recent conversations, kept for a limited time.

It stores a language under a keyed hash of the conversation id, and no id or text. The key is random per process, so entries
cannot be linked to a conversation. Number and age of entries are limited. Each replica has its own memory; a client that sends
its earlier turns does not depend on it. COMPASS, section 3.2.5.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable


class ConversationMemory:
    """The languages of the most recent conversations. Not thread-safe."""

    def __init__(self, clock: Callable[[], float], *, max_conversations: int = 100_000, ttl_s: float = 3_600.0) -> None:
        """Keep at most ``max_conversations``, each for ``ttl_s`` seconds of the clock after its last turn.

        Raises:
            ValueError: a limit is not above 0.
        """
        if max_conversations <= 0 or ttl_s <= 0:
            raise ValueError(f"max_conversations is {max_conversations} and ttl_s is {ttl_s}. Expected both above 0.")
        self.clock, self.max_conversations, self.ttl_s = clock, max_conversations, ttl_s
        self._secret = secrets.token_bytes(32)
        self._entries: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        """Number of stored conversations."""
        self._expire()
        return len(self._entries)

    def recall(self, conversation: str) -> str | None:
        """The conversation's language, or None if unknown."""
        self._expire()
        entry = self._entries.get(self._key(conversation))
        return entry[0] if entry else None

    def remember(self, conversation: str, language: str) -> None:
        """Store the language of a conversation's turn. Evicts the least recently used conversation if full."""
        key = self._key(conversation)
        self._entries[key] = language, self.clock()
        self._entries.move_to_end(key)
        self._expire()
        if len(self._entries) > self.max_conversations:
            self._entries.popitem(last=False)

    def _expire(self) -> None:
        oldest = self.clock() - self.ttl_s
        while self._entries and next(iter(self._entries.values()))[1] <= oldest:
            self._entries.popitem(last=False)

    def _key(self, conversation: str) -> bytes:
        return hashlib.blake2b(conversation.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=16).digest()
