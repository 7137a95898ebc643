"""What looks like poison, or out of place, among corrections that each look sound: it is held for a person, never dropped.

Key property: counted over all corrections of a language together, so no order of arrival hides it. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from compass_ray.continual.labelled.verdicts import CorrectionState, RuleFinding
from compass_ray.serving.monitoring.corrections import CorrectionPair
from compass_ray.sources.guides import prompt_key

MIN_REFUSED = 5
"""Refused corrections of a key before its others are held: one slip makes nobody suspect."""
MAX_REFUSED_SHARE = 0.5
MIN_PROMPTS_SAME_ANSWER = 3
"""Different prompts that one correction may not answer."""


def find_suspicious(sound: Sequence[CorrectionPair], blamed: Collection[CorrectionPair]) -> dict[str, RuleFinding]:
    """Why corrections are held, by their id.

    Args:
        sound: corrections that no rule refused.
        blamed: those that were refused for what their client wrote.
    """
    reasons = {
        **_from_conversation(sound),
        **_same_answer_many_prompts(sound),
        **_many_answers_same_prompt(sound),
        **_from_refused_keys(sound, blamed),
    }
    return {name: RuleFinding(CorrectionState.HELD, reason) for name, reason in reasons.items()}


def _from_conversation(sound: Sequence[CorrectionPair]) -> dict[str, str]:
    reason = "the reply answered a conversation, instructions or a text to continue, of which the prompt is a part"
    return {pair.id: reason for pair in sound if not pair.is_single_turn}


def _from_refused_keys(sound: Sequence[CorrectionPair], blamed: Collection[CorrectionPair]) -> dict[str, str]:
    refused, passed = Counter(pair.key for pair in blamed), Counter(pair.key for pair in sound)
    bad = {key for key, n in refused.items() if n >= MIN_REFUSED and n > MAX_REFUSED_SHARE * (n + passed[key])}
    return {
        pair.id: f"{refused[pair.key]} of {refused[pair.key] + passed[pair.key]} corrections by its key were refused"
        for pair in sound
        if pair.key in bad
    }


def _same_answer_many_prompts(sound: Sequence[CorrectionPair]) -> dict[str, str]:
    answered: dict[str, set[str]] = defaultdict(set)
    for pair in sound:
        answered[prompt_key(pair.correction)].add(prompt_key(pair.prompt))
    counts = {pair.id: len(answered[prompt_key(pair.correction)]) for pair in sound}
    return {
        name: f"the same correction was given for {n} different prompts"
        for name, n in counts.items()
        if n >= MIN_PROMPTS_SAME_ANSWER
    }


def _many_answers_same_prompt(sound: Sequence[CorrectionPair]) -> dict[str, str]:
    given: dict[str, set[str]] = defaultdict(set)
    for pair in sound:
        given[prompt_key(pair.prompt)].add(prompt_key(pair.correction))
    counts = {pair.id: len(given[prompt_key(pair.prompt)]) for pair in sound}
    return {name: f"its prompt has {n} different corrections" for name, n in counts.items() if n > 1}
