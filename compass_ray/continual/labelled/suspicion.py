"""What looks like poison, or out of place, among corrections that each look sound: it is held for a person, never dropped.

Key property: counted over all corrections of a language together, so no order of arrival hides it. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from compass_ray.continual.labelled.verdicts import Finding, State
from compass_ray.serving.monitoring.corrections import Pair
from compass_ray.sources.guides import prompt_key

LEAST_REFUSED = 5
"""Refused corrections of a key before its others are held: one slip makes nobody suspect."""
MOSTLY = 0.5
ALIKE = 3
"""Different prompts that one correction may not answer."""


def suspicious(sound: Sequence[Pair], blamed: Collection[Pair]) -> dict[str, Finding]:
    """Why corrections are held, by their id.

    Args:
        sound: corrections that no rule refused.
        blamed: those that were refused for what their client wrote.
    """
    reasons = {**_torn_out(sound), **_alike(sound), **_conflicting(sound), **_of_bad_keys(sound, blamed)}
    return {name: Finding(State.HELD, reason) for name, reason in reasons.items()}


def _torn_out(sound: Sequence[Pair]) -> dict[str, str]:
    reason = "the reply answered a conversation, instructions or a text to continue, of which the prompt is a part"
    return {pair.id: reason for pair in sound if not pair.alone}


def _of_bad_keys(sound: Sequence[Pair], blamed: Collection[Pair]) -> dict[str, str]:
    refused, passed = Counter(pair.key for pair in blamed), Counter(pair.key for pair in sound)
    bad = {key for key, n in refused.items() if n >= LEAST_REFUSED and n > MOSTLY * (n + passed[key])}
    return {
        pair.id: f"{refused[pair.key]} of {refused[pair.key] + passed[pair.key]} corrections by its key were refused"
        for pair in sound
        if pair.key in bad
    }


def _alike(sound: Sequence[Pair]) -> dict[str, str]:
    answered: dict[str, set[str]] = defaultdict(set)
    for pair in sound:
        answered[prompt_key(pair.correction)].add(prompt_key(pair.prompt))
    counts = {pair.id: len(answered[prompt_key(pair.correction)]) for pair in sound}
    return {name: f"the same correction was given for {n} different prompts" for name, n in counts.items() if n >= ALIKE}


def _conflicting(sound: Sequence[Pair]) -> dict[str, str]:
    given: dict[str, set[str]] = defaultdict(set)
    for pair in sound:
        given[prompt_key(pair.prompt)].add(prompt_key(pair.correction))
    counts = {pair.id: len(given[prompt_key(pair.prompt)]) for pair in sound}
    return {name: f"its prompt has {n} different corrections" for name, n in counts.items() if n > 1}
