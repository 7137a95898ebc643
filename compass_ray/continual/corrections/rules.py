"""Rules that refuse or hold corrections: language, length, and signs of data poisoning.

`check_language` and `check_length_and_letters` look at single texts. `find_suspicious` counts over all corrections of a
language, so the order of arrival does not matter; suspicious corrections are held for review, never dropped. Pure.
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
from compass_ray.texts import is_blank, visible_length


def check_language(
    pairs: Sequence[CorrectionPair],
    identifier: Identifier,
    config: IdentifierConfig,
    known: Sequence[str],
    unidentified: Collection[str] = (),
) -> dict[str, RuleFinding]:
    """Findings against the language of each pair, by its id.

    ``known`` are the run's languages. Pairs in ``unidentified`` languages, which the identifier does not know, are held.
    """
    found = {
        pair.id: RuleFinding(CorrectionState.HELD, f"the identifier does not know {pair.language}, so its language is unchecked")
        for pair in pairs
        if pair.language in unidentified
    }
    pairs = [pair for pair in pairs if pair.id not in found]
    for part in ("correction", "prompt"):
        texts = [extract_prose(getattr(pair, part)) for pair in pairs]
        for pair, text, prediction in zip(pairs, texts, identifier.identify(texts, known), strict=True):
            finding = _language_finding(f"the {part}", text, prediction, pair.language, config)
            before = found.get(pair.id)
            if finding and (before is None or before.state is CorrectionState.HELD):
                found[pair.id] = finding if before is None or finding.state is CorrectionState.REFUSED else before
    return found


def _language_finding(
    name: str, text: str, prediction: LanguagePrediction, language: str, config: IdentifierConfig
) -> RuleFinding | None:
    if is_short(text, config):
        return RuleFinding(CorrectionState.HELD, f"{name} is too short to identify its language")
    decision = decide_language(text, prediction, config)
    if decision.language == language:
        return None
    is_foreign = prediction.language is None and prediction.confidence >= min_confidence(language, config)
    sure = decision.language is not None or is_foreign
    return RuleFinding(
        CorrectionState.REFUSED if sure else CorrectionState.HELD, f"{name} is not identified as {language}: {decision.reason}"
    )


MIN_PROMPT_CHARACTERS = 3
"""Minimum characters with a glyph in a prompt."""
MAX_CHARACTERS_PER_TOKEN = 4
"""Upper bound of characters per token: a longer text would certainly be truncated."""


def row_id(pair: CorrectionPair) -> str:
    """The id of the correction as a training row: like a pool row, a hash of language, source, prompt and response."""
    return content_hash(pair.language, "traffic", pair.prompt, pair.correction.strip())


def check_length_and_letters(pair: CorrectionPair, max_tokens: int) -> str | None:
    """Why the texts cannot be a row of at most ``max_tokens``, None if they can."""
    correction, limit = pair.correction.strip(), MAX_CHARACTERS_PER_TOKEN * max_tokens
    size = len(pair.prompt) + len(correction)
    if is_blank(correction):
        return "the correction is empty"
    if visible_length(pair.prompt) < MIN_PROMPT_CHARACTERS:
        return f"the prompt has fewer than {MIN_PROMPT_CHARACTERS} visible characters"
    if len(pair.correction) >= MAX_CORRECTION_CHARS or len(pair.prompt) >= MAX_PROMPT_CHARS:
        return f"it was truncated (limits: correction {MAX_CORRECTION_CHARS} characters, prompt {MAX_PROMPT_CHARS})"
    if size > limit:
        return f"prompt and correction have {size} characters; {max_tokens} tokens hold at most {limit}"
    if prompt_key(correction) == prompt_key(pair.prompt):
        return "the correction equals the prompt"
    return None


MIN_REFUSED = 5
"""Refused corrections of a key before its other corrections are held: single mistakes do not count."""
MAX_REFUSED_SHARE = 0.5
MIN_PROMPTS_SAME_ANSWER = 3
"""Number of different prompts with the same correction from which on it is held."""


def find_suspicious(candidates: Sequence[CorrectionPair], refused: Collection[CorrectionPair]) -> dict[str, RuleFinding]:
    """Findings that hold corrections, by their id.

    Args:
        candidates: corrections that no rule refused.
        refused: corrections that were refused because of their texts.
    """
    reasons = {
        **_from_conversation(candidates),
        **_same_answer_many_prompts(candidates),
        **_many_answers_same_prompt(candidates),
        **_from_refused_keys(candidates, refused),
    }
    return {name: RuleFinding(CorrectionState.HELD, reason) for name, reason in reasons.items()}


def _from_conversation(candidates: Sequence[CorrectionPair]) -> dict[str, str]:
    reason = "the prompt was not the complete request (earlier turns, instructions or a text to continue)"
    return {pair.id: reason for pair in candidates if not pair.is_single_turn}


def _from_refused_keys(candidates: Sequence[CorrectionPair], refused: Collection[CorrectionPair]) -> dict[str, str]:
    bad_count, good_count = Counter(pair.key for pair in refused), Counter(pair.key for pair in candidates)
    bad = {key for key, n in bad_count.items() if n >= MIN_REFUSED and n > MAX_REFUSED_SHARE * (n + good_count[key])}
    return {
        pair.id: f"{bad_count[pair.key]} of {bad_count[pair.key] + good_count[pair.key]} corrections of its key were refused"
        for pair in candidates
        if pair.key in bad
    }


def _same_answer_many_prompts(candidates: Sequence[CorrectionPair]) -> dict[str, str]:
    answered: dict[str, set[str]] = defaultdict(set)
    for pair in candidates:
        answered[prompt_key(pair.correction)].add(prompt_key(pair.prompt))
    counts = {pair.id: len(answered[prompt_key(pair.correction)]) for pair in candidates}
    return {
        name: f"the same correction answers {n} different prompts" for name, n in counts.items() if n >= MIN_PROMPTS_SAME_ANSWER
    }


def _many_answers_same_prompt(candidates: Sequence[CorrectionPair]) -> dict[str, str]:
    given: dict[str, set[str]] = defaultdict(set)
    for pair in candidates:
        given[prompt_key(pair.prompt)].add(prompt_key(pair.correction))
    counts = {pair.id: len(given[prompt_key(pair.prompt)]) for pair in candidates}
    return {name: f"its prompt has {n} different corrections" for name, n in counts.items() if n > 1}
