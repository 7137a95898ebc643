"""Bound what one client counts for: a share of a window and of the compared replies; equal prompts count once.

A client is an API key, or a network without keys. So no client alone fills the window of an update, the baseline of a
version or the replies of a canary. With fewer active clients than 1 / ``drift.share_per_key`` a window does not fill. The
decision is part of the prompt's event, so a replay of the log needs no secret. Not in COMPASS, section 3.3.2.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import TypeVar

from compass_ray.config import RunConfig
from compass_ray.monitoring.language_monitor import Event, LanguageMonitorState
from compass_ray.monitoring.observations import MAX_PROMPT_CHARS
from compass_ray.monitoring.retention import FIELDS, RetentionPolicy

_T = TypeVar("_T")


@dataclass(frozen=True)
class PromptEntry:
    """The log entry of a prompt, and what decides whether it counts. Client and words are not stored."""

    event: Event
    client: str | None = None
    words: str = ""
    """From `hash_words`."""


class ClientShare:
    """Decides which prompts count for the window of their language, and which replies for the quality of their version."""

    def __init__(self, config: RunConfig, policy: RetentionPolicy) -> None:
        """Read the limits: a share of `drift.window` prompts, and of the replies that a comparison reads.

        A canary is compared once it has `update.canary_replies`, and with at most `drift.window` replies.
        """
        self.policy, self.share = policy, config.drift.share_per_key
        self.replies = min(config.update.canary_replies, config.drift.window)

    def limit(self, state: LanguageMonitorState, prompt: PromptEntry) -> Event:
        """The event to apply: the prompt itself, or without its text and marked if it does not count.

        With ``counts`` false it is not in the window, with ``judged`` false it is not in the replies of its version.
        """
        if prompt.client is None or self.share == 1.0:
            return prompt.event
        window = _last(state.window, state.size - 1)  # the oldest prompt of a complete window leaves it
        if self._is_repeated(window, prompt.words):
            return {**_without_text(prompt.event), "counts": False, "judged": False}
        event = prompt.event
        replies = _last(state.reply_quality.replies(event["version"] or ""), state.size - 1)
        clients = {_id(entry): entry.get("client") for entry in window} | {reply.id: reply.client for reply in replies}
        own = self._find_own(clients, prompt.client)
        if sum(_id(entry) in own for entry in window) >= self._max_of(state.size):
            event = {**_without_text(event), "counts": False}
        if self._is_share_full([reply.id in own for reply in replies]):
            event = {**event, "judged": False}
        return event

    def _is_repeated(self, window: Iterable[Event], words: str) -> bool:
        return any(entry.get("words") == self.policy.words_hash(_id(entry), words) for entry in window if "words" in entry)

    def _is_share_full(self, own: Sequence[bool]) -> bool:
        """Whether one more reply of a client exceeds its share, in a comparison of any number of replies; oldest first."""
        counts = list(accumulate(reversed(own), initial=0))  # of the client's replies among the last 0, 1, ...
        fewest = min(self.replies, len(counts)) - 1
        return any(counts[n] >= self._max_of(max(n + 1, self.replies)) for n in range(fewest, len(counts)))

    def _find_own(self, clients: Mapping[str, str | None], client: str) -> set[str]:
        """The ids of a client's replies among ids with their client hashes. A hash takes 3.4 us, so each id has one."""
        hashed = ((reply, stored) for reply, stored in clients.items() if stored is not None)
        return {reply for reply, stored in hashed if stored == self.policy.client_hash(reply, client)}

    def _max_of(self, size: int) -> int:
        """How many of ``size`` one client has at most."""
        return max(1, int(self.share * size))


def is_counted(prompt: Event) -> bool:
    """Whether a prompt is in the window of its language when it arrives."""
    return bool(prompt.get("counts", True))


def hash_words(prompt: str) -> str:
    """The SHA-256 of the words of a prompt: a text of any length has 64 digits, and is read once.

    >>> hash_words("Habari yako?") == hash_words("HABARI  yako"), len(hash_words("Habari " * 1000))
    (True, 64)
    """
    return hashlib.sha256(extract_words(prompt).encode("utf-8", "surrogatepass")).hexdigest()


def extract_words(prompt: str) -> str:
    """The letters, marks and digits of a prompt in one case; the prompt itself if it has none.

    Normalization makes up to 18 characters of one, so its result is cut at `MAX_PROMPT_CHARS` too.

    >>> extract_words("Habari,  yako?") == extract_words("habari yako")
    True
    """
    text = unicodedata.normalize("NFKC", prompt[:MAX_PROMPT_CHARS])[:MAX_PROMPT_CHARS].casefold()
    return "".join(character for character in text if unicodedata.category(character)[0] in "LMN") or prompt


def _id(entry: Event) -> str:
    """The id of the reply; empty in an entry of an older log."""
    return str(entry.get("id", ""))


def _without_text(event: Event) -> Event:
    return {name: value for name, value in event.items() if name not in FIELDS or name == "client"}


def _last(items: Sequence[_T], number: int) -> list[_T]:
    """The last ``number`` items of a sequence."""
    return list(islice(items, max(0, len(items) - number), None))
