"""Whether prompt and correction are in the language that they would be trained for.

Key property: the router's own rule and thresholds, so a text is in a language here as it is for a route. What is surely in
another language is refused; what is too short, or not identified with confidence, waits for a person. Not here: who identifies.
"""

from __future__ import annotations

from collections.abc import Sequence

from compass_ray.config import IdentifierConfig
from compass_ray.continual.labelled.verdicts import Finding, State
from compass_ray.models.language_id import Identified
from compass_ray.serving.monitoring.corrections import Pair
from compass_ray.serving.routing.detection import Identifier, is_short, judge, threshold
from compass_ray.serving.routing.scripts import prose


def foreign(pairs: Sequence[Pair], identifier: Identifier, config: IdentifierConfig, known: Sequence[str]) -> dict[str, Finding]:
    """What speaks against the language of each pair, by its id; ``known`` are the run's languages."""
    found: dict[str, Finding] = {}
    for part in ("correction", "prompt"):
        texts = [prose(getattr(pair, part)) for pair in pairs]
        for pair, text, said in zip(pairs, texts, identifier.identify(texts, known), strict=True):
            finding = _finding(f"the {part}", text, said, pair.language, config)
            before = found.get(pair.id)
            if finding and (before is None or before.state is State.HELD):
                found[pair.id] = finding if before is None or finding.state is State.REFUSED else before
    return found


def _finding(name: str, text: str, said: Identified, language: str, config: IdentifierConfig) -> Finding | None:
    if is_short(text, config):
        return Finding(State.HELD, f"{name} is too short to tell its language")
    belief = judge(text, said, config)
    if belief.language == language:
        return None
    sure = belief.language is not None or (said.language is None and said.confidence >= threshold(language, config))
    return Finding(State.REFUSED if sure else State.HELD, f"{name} is not known to be {language}: {belief.reason}")
