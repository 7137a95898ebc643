"""Sentences that explain why a row was selected: its cluster's gap, its draw, and its near duplicates.

Key property: sentences restate numbers that the selection wrote or that were computed for the row; nothing is scored again.
They do not say how much a row helped. COMPASS, sections 3.2.2 and 3.2.3. Other methods: their selection criterion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from compass_ray.artifacts import ALL_LANGUAGES
from compass_ray.records.allocation import AllocationRecord, QuotaRecord
from compass_ray.report.nearest_rows import NearestGuidePrompt, Neighbours
from compass_ray.report.run_reader import language_name, method_name
from compass_ray.translations import mark
from compass_ray.translations import translate as _

COMPASS = "compass"
PLACEBO = "placebo"
_BY_QUOTA = (COMPASS, PLACEBO)
"""Methods that draw a quota of rows from each cluster."""
MAX_QUOTED_CHARACTERS = 70
"""Characters of a prompt quoted within a sentence."""

TEST_QUESTION_REASON = mark("It was excluded: its prompt is a test question of the language.")
_TURN_CHARACTERS, _TURNS, _PROMPT_CHARACTERS = 160, 4, 320
"""Characters of a turn, turns, and characters of a single prompt that a card shows."""
_METHOD_REASONS: Mapping[str, str] = {
    ALL_LANGUAGES: mark("The method uses the complete pool."),
    "random": mark("It was drawn at random. All {candidates} candidates had the same probability, including noise."),
    "langrank": mark(
        "It is a row of {source}, {rank} that the trained ranker put first for {target}. Score of the language: {score}."
    ),
    "langsim": mark("It is a row of {source}, {rank} most similar to {target} by typological features. Similarity: {score}."),
    "dsir": mark(
        "It was drawn by its importance weight: the likelihood of its n-grams in the guide set relative to the candidates. "
        "Log weight: {score}."
    ),
    "nearest": mark("It is among the candidates most similar to a guide prompt. Cosine: {score}."),
    "round_robin": mark(
        "A guide prompt took it in its turn: the most similar candidate that no prompt had taken. Cosine: {score}."
    ),
    "oracle": mark("It was drawn within its subject, as COMPASS draws within a cluster. Score at its draw: {score}."),
    **{
        f"quantile_{number}": mark(
            "It was drawn at random from fifth {fifth} of the candidates by distance to the nearest guide "
            "prompt; fifth 1 is the nearest. Cosine: {score}."
        )
        for number in range(1, 6)
    },
}
"""Reason for a selected row, by method other than COMPASS."""
_OTHER_REASON = mark("It was selected with a score of {score}.")


def explain_selection(
    allocation: AllocationRecord, row: Mapping[str, Any], source_language: str, cluster: int
) -> tuple[str, str]:
    """The reason in two parts: the cluster's gap and the row's draw. ``row`` is empty if it was not selected."""
    return _explain_gap(allocation, cluster), _explain_draw(allocation, row, source_language, cluster)


def describe_quota(language: str, quota: QuotaRecord) -> str:
    """Counts of one language's selection in a cluster."""
    return _(
        "{language}: {guide} guide prompts, {own} own rows, {added} added.",
        language=language_name(language),
        guide=quota.n_eval,
        own=quota.n_target,
        added=quota.selected,
    )


def describe_neighbours(near: Neighbours | None, chosen: bool) -> Iterator[str]:
    """Near duplicates of a row in its cluster, and the score penalty between them. Empty if unknown."""
    if near is None:
        return
    counts = f"{near.drawn} selected, {near.suppressed} not selected"
    yield f"Near duplicates in the same cluster (cosine > {near.tau:g}): {counts}.{_describe_penalty(near, chosen)}"
    shown = near.closest_suppressed if chosen else near.closest_drawn
    yield from (f"  cosine {each.cosine:.3f}, {each.language}: {shorten(each.prompt)}" for each in shown)


def _describe_penalty(near: Neighbours, chosen: bool) -> str:
    """How selected rows lowered the score of their near duplicates; empty if no score changed."""
    if chosen and near.delta and near.suppressed:
        those = "that 1" if near.suppressed == 1 else f"those {near.suppressed}"
        each = "" if near.suppressed == 1 else " each"
        return f" Selecting this row lowered the score of {those} by {near.delta:g}{each}."
    if not chosen and near.delta and near.drawn:
        return f" Each selected one lowered the score of this row by {near.delta:g}."
    return ""


def describe_guide_prompt(guide: NearestGuidePrompt | None) -> Iterator[str]:
    """The guide prompt nearest to a row. Empty if unknown."""
    if guide is not None:
        yield f"Nearest guide prompt (cosine {guide.cosine:.3f}): {shorten(guide.prompt)}"


def format_turns(messages: Iterable[Mapping[str, str]]) -> str:
    """A conversation to read: each turn after its role.

    >>> print(format_turns([{"role": "user", "content": "Habari?"}, {"role": "assistant", "content": "Nzuri."}]))
    user: Habari?
    assistant: Nzuri.
    """
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def shorten(prompt: str, longest: int = MAX_QUOTED_CHARACTERS) -> str:
    """A prompt on one line, cut to ``longest`` characters.

    >>> shorten("one\\ntwo", 6), shorten("one")
    ('one...', 'one')
    """
    line = " ".join(prompt.split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def shorten_turns(text: str) -> str:
    """A prompt or the turns of `format_turns`, with its line breaks, short enough for a card. What is cut is counted.

    >>> shorten_turns("user: one\\nassistant: two"), shorten_turns("x" * 400)[-22:]
    ('user: one\\nassistant: two', 'xxx… (+80 characters)')
    """
    lines = text.splitlines() or [""]
    if len(lines) == 1:
        return _cut(text, _PROMPT_CHARACTERS)
    shown, rest = [_cut(line, _TURN_CHARACTERS) for line in lines[:_TURNS]], len(lines) - _TURNS
    return "\n".join([*shown, *([_("… (+{count} lines)", count=rest)] if rest > 0 else [])])


def _cut(text: str, longest: int) -> str:
    rest = len(text) - longest
    return text[:longest] + _("… (+{count} characters)", count=rest) if rest > 0 else text


def _explain_gap(allocation: AllocationRecord, cluster: int) -> str:
    quota, shares = allocation.quota(cluster), allocation.shares(cluster)
    if allocation.method not in _BY_QUOTA:
        return _(
            "{method} does not use clusters. The row is in cluster {cluster}.",
            method=method_name(allocation.method),
            cluster=cluster,
        )
    if cluster < 0:
        return _("The row is noise: it is in no cluster. {method} never selects noise.", method=method_name(allocation.method))
    if quota is None or shares is None:
        return _("This selection has no cluster {cluster}.", cluster=cluster)
    if allocation.method == PLACEBO:
        return _(
            "Cluster {cluster} has the quota {quota} of the {budget} rows to add, by a random permutation of "
            "the quotas of COMPASS. Its gap has no influence.",
            cluster=cluster,
            quota=quota.quota,
            budget=allocation.budget,
        )
    return _(
        "Cluster {cluster} has {guide} guide prompts ({guide_share} of all) and {own} rows of {language} ({own_share} of all). "
        "Its weight is {weight}, and its quota is {quota} of the {budget} rows to add.",
        cluster=cluster,
        guide=quota.n_eval,
        guide_share=f"{shares.guide:.1%}",
        own=quota.n_target,
        language=language_name(allocation.language),
        own_share=f"{shares.own:.1%}",
        weight=f"{quota.weight:.3g}",
        quota=quota.quota,
        budget=allocation.budget,
    )


def _explain_draw(allocation: AllocationRecord, row: Mapping[str, Any], source: str, cluster: int) -> str:
    if row and allocation.method == ALL_LANGUAGES:
        return _explain_added(allocation, row)
    if row:
        return (
            _("It is one of the language's own rows. All of them are used.")
            if row["role"] == "target"
            else _explain_added(allocation, row)
        )
    if source == allocation.language:
        return _("It is one of the language's own rows that the bias simulation removed.")
    if allocation.method not in _BY_QUOTA:
        return _explain_omission(allocation)
    quota = allocation.quota(cluster)
    if cluster < 0 or quota is None or not (quota.quota if allocation.method == PLACEBO else quota.weight):
        if allocation.method == PLACEBO:
            return _("It was not selected: its cluster has quota 0.")
        return _("It was not selected: its cluster has weight 0.")
    return _(
        "It was a candidate but was not selected: {selected} of {count} candidates in its cluster were.",
        selected=quota.selected,
        count=quota.n_aux,
    )


def _explain_omission(allocation: AllocationRecord) -> str:
    """Why another method did not select a row, as far as its counts show."""
    if allocation.method == ALL_LANGUAGES:
        return _(
            "It was left out: it is a test question of a target language, or the bias simulation of its language removed it."
        )
    added = sum(each.selected for each in allocation.clusters) + allocation.noise.selected
    return _(
        "It was not selected: {method} added {added} of {count} candidates.",
        method=method_name(allocation.method),
        added=added,
        count=_count_candidates(allocation),
    )


def _count_candidates(allocation: AllocationRecord) -> int:
    return sum(each.n_aux for each in allocation.clusters) + allocation.noise.auxiliary


def _explain_added(allocation: AllocationRecord, row: Mapping[str, Any]) -> str:
    if allocation.method in _BY_QUOTA:
        return _describe_draw(allocation.quota(row["cluster"]), row)
    template = _METHOD_REASONS.get(allocation.method, _OTHER_REASON)
    return _(
        template,
        candidates=_count_candidates(allocation),
        source=language_name(row["language"]),
        rank=_describe_rank(allocation.transfer.languages, row["language"]),
        target=language_name(allocation.language),
        score=_("unknown") if row["score"] is None else f"{row['score']:.4g}",
        fifth=allocation.method[-1],
    )


def _describe_rank(languages: Sequence[str], language: str) -> str:
    """Rank of a language among the transfer languages."""
    if language not in languages:
        return _("one of the languages")
    return _("number {rank} of the {count} languages", rank=languages.index(language) + 1, count=len(languages))


def _describe_draw(quota: QuotaRecord | None, row: Mapping[str, Any]) -> str:
    scores = {_("prototype score"): row["proto"], _("boundary score"): row["boundary"], _("score at its draw"): row["score"]}
    shown = [f"{name} {value:.3f}" for name, value in scores.items() if value is not None]
    number = row["order"] + 1
    found = (
        _("It was selected as number {number} of {count} in its cluster.", number=number, count=quota.selected)
        if quota
        else _("It was selected as number {number} in its cluster.", number=number)
    )
    with_scores = _("Scores: {scores}.", scores=", ".join(shown)) if shown else ""
    known = row["neighbours"] is not None
    near = _("Near duplicates selected before it: {count}.", count=row["neighbours"]) if known else ""
    return " ".join(filter(None, (found, with_scores, near)))
