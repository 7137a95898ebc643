"""Whether prompt and correction are in the language that they would be trained for.

Key property: the router's own rule and thresholds, so a text is in a language here as it is for a route. What is surely in
another language is refused; what is too short, or not identified with confidence, waits for a person. Not here: who identifies.
"""

from __future__ import annotations

from collections.abc import Sequence

from compass_ray.config import IdentifierConfig
from compass_ray.continual.labelled.verdicts import CorrectionState, RuleFinding
from compass_ray.models.language_id import LanguagePrediction
from compass_ray.serving.monitoring.corrections import CorrectionPair
from compass_ray.serving.routing.detection import Identifier, decide_language, is_short, min_confidence
from compass_ray.serving.routing.scripts import extract_prose


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
