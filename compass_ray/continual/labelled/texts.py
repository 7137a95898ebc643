"""Whether a prompt and its correction are rows to train on, by their length and their letters alone. Pure."""

from __future__ import annotations

from compass_ray.artifacts import content_hash
from compass_ray.serving.monitoring.corrections import LONGEST, Pair
from compass_ray.serving.monitoring.observations import LONGEST_PROMPT
from compass_ray.sources.guides import prompt_key

SHORTEST = 3
"""Characters below which a prompt asks nothing."""
CHARACTERS_PER_TOKEN = 4
"""What a token of a long text holds at the most: beyond that a row is sure to be cut."""


def row_id(pair: Pair) -> str:
    """What the row is called once it joins, as a pool row is: by language, source, prompt and response."""
    return content_hash(pair.language, "traffic", pair.prompt, pair.correction.strip())


def unfit(pair: Pair, max_tokens: int) -> str | None:
    """Why the texts are no row of at most ``max_tokens``, None where they are."""
    correction, most = pair.correction.strip(), CHARACTERS_PER_TOKEN * max_tokens
    size = len(pair.prompt) + len(correction)
    if not correction:
        return "the correction is empty"
    if len(pair.prompt.strip()) < SHORTEST:
        return f"the prompt has fewer than {SHORTEST} characters"
    if len(pair.correction) >= LONGEST or len(pair.prompt) >= LONGEST_PROMPT:
        return f"it was cut: of a correction {LONGEST} characters are kept, of a prompt {LONGEST_PROMPT}"
    if size > most:
        return f"prompt and correction have {size} characters, and {max_tokens} tokens hold {most} at the most"
    if prompt_key(correction) == prompt_key(pair.prompt):
        return "the correction is the prompt itself"
    return None
