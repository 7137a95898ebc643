"""Whether a prompt and its correction are rows to train on, by their length and their letters alone. Pure."""

from __future__ import annotations

from compass_ray.artifacts import content_hash
from compass_ray.serving.monitoring.corrections import MAX_CORRECTION_CHARS, CorrectionPair
from compass_ray.serving.monitoring.observations import MAX_PROMPT_CHARS
from compass_ray.sources.guides import prompt_key

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
