"""What looks like poison, or out of place, among corrections that each look sound: it is held for a person, never dropped.

Key property: counted over all corrections of a language together, so no order of arrival hides it. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from compass_ray.artifacts import content_hash
from compass_ray.config import IdentifierConfig
from compass_ray.continual.corrections.verdicts import CorrectionState, RuleFinding
from compass_ray.models.language_id import LanguagePrediction
from compass_ray.monitoring.corrections import MAX_CORRECTION_CHARS, CorrectionPair
from compass_ray.monitoring.observations import MAX_PROMPT_CHARS
from compass_ray.serving.routing.language_decision import Identifier, decide_language, is_short, min_confidence
from compass_ray.serving.routing.scripts import extract_prose
from compass_ray.sources.guides import prompt_key


def check_language(
    pairs: Sequence[CorrectionPair], identifier: Identifier, config: IdentifierConfig, known: Sequence[str]
) -> dict[str, RuleFinding]:
    """What speaks against the language of each pair, by its id; ``known`` are the run's languages."""
    found: dict[str, RuleFinding] = {}
    for part in ("correction", "prompt"):
        texts = [extract_prose(getattr(pair, part)) for pair in pairs]
        for pair, text, said in zip(pairs, texts, identifier.identify(texts, known), strict=True):
            finding = _language_finding(f"the {part}", text, said, pair.language, config)
            before = found.get(pair.id)
            if finding and (before is None or before.state is CorrectionState.HELD):
                found[pair.id] = finding if before is None or finding.state is CorrectionState.REFUSED else before
    return found


def _language_finding(
    name: str, text: str, said: LanguagePrediction, language: str, config: IdentifierConfig
) -> RuleFinding | None:
    if is_short(text, config):
        return RuleFinding(CorrectionState.HELD, f"{name} is too short to tell its language")
    belief = decide_language(text, said, config)
    if belief.language == language:
        return None
    sure = belief.language is not None or (said.language is None and said.confidence >= min_confidence(language, config))
    return RuleFinding(
        CorrectionState.REFUSED if sure else CorrectionState.HELD, f"{name} is not known to be {language}: {belief.reason}"
    )


MIN_PROMPT_CHARACTERS = 3
"""Characters below which a prompt asks nothing."""
MAX_CHARACTERS_PER_TOKEN = 4
"""What a token of a long text holds at the most: beyond that a row is sure to be cut."""


def row_id(pair: CorrectionPair) -> str:
    """What the row is called once it joins, as a pool row is: by language, source, prompt and response."""
    return content_hash(pair.language, "traffic", pair.prompt, pair.correction.strip())


def check_length_and_letters(pair: CorrectionPair, max_tokens: int) -> str | None:
    """Why the texts are no row of at most ``max_tokens``, None where they are."""
    correction, most = pair.correction.strip(), MAX_CHARACTERS_PER_TOKEN * max_tokens
    size = len(pair.prompt) + len(correction)
    if not correction:
        return "the correction is empty"
    if len(pair.prompt.strip()) < MIN_PROMPT_CHARACTERS:
        return f"the prompt has fewer than {MIN_PROMPT_CHARACTERS} characters"
    if len(pair.correction) >= MAX_CORRECTION_CHARS or len(pair.prompt) >= MAX_PROMPT_CHARS:
        return f"it was cut: of a correction {MAX_CORRECTION_CHARS} characters are kept, of a prompt {MAX_PROMPT_CHARS}"
    if size > most:
        return f"prompt and correction have {size} characters, and {max_tokens} tokens hold {most} at the most"
    if prompt_key(correction) == prompt_key(pair.prompt):
        return "the correction is the prompt itself"
    return None


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
