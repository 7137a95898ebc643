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
from compass_ray.report.run_reader import METHODS, language_name

COMPASS = "compass"
PLACEBO = "placebo"
_BY_QUOTA = (COMPASS, PLACEBO)
"""Methods that draw a quota of rows from each cluster."""
MAX_QUOTED_CHARACTERS = 70
"""Characters of a prompt quoted within a sentence."""

TEST_QUESTION_REASON = "It was excluded: its prompt is a test question of the language."
_METHOD_REASONS: Mapping[str, str] = {
    ALL_LANGUAGES: "The method uses the complete pool.",
    "random": "It was drawn at random. All {candidates} candidates had the same probability, including noise.",
    "langrank": "It is a row of {source}, {rank} that the trained ranker put first for {target}. Score of the language: {score}.",
    "langsim": "It is a row of {source}, {rank} most similar to {target} by typological features. Similarity: {score}.",
    "dsir": "It was drawn by its importance weight: the likelihood of its n-grams in the guide set relative to the candidates. "
    "Log weight: {score}.",
    "nearest": "It is among the candidates most similar to a guide prompt. Cosine: {score}.",
    "round_robin": "A guide prompt took it in its turn: the most similar candidate that no prompt had taken. Cosine: {score}.",
    "oracle": "It was drawn within its subject, as COMPASS draws within a cluster. Score at its draw: {score}.",
    **{
        f"quantile_{number}": f"It was drawn at random from fifth {number} of the candidates by distance to the nearest guide "
        "prompt; fifth 1 is the nearest. Cosine: {score}."
        for number in range(1, 6)
    },
}
"""Reason for a selected row, by method other than COMPASS."""


def explain_selection(
    allocation: AllocationRecord, row: Mapping[str, Any], source_language: str, cluster: int
) -> tuple[str, str]:
    """The reason in two parts: the cluster's gap and the row's draw. ``row`` is empty if it was not selected."""
    return _explain_gap(allocation, cluster), _explain_draw(allocation, row, source_language, cluster)


def describe_quota(language: str, quota: QuotaRecord) -> str:
    """Counts of one language's selection in a cluster."""
    counts = f"{quota.n_eval} guide prompts, {quota.n_target} own rows, {quota.selected} added"
    return f"{language_name(language)}: {counts}."


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


def _explain_gap(allocation: AllocationRecord, cluster: int) -> str:
    quota, shares = allocation.quota(cluster), allocation.shares(cluster)
    if allocation.method not in _BY_QUOTA:
        return f"Method {allocation.method} does not use clusters. The row is in cluster {cluster}."
    if cluster < 0:
        return f"The row is noise: it is in no cluster. {METHODS[allocation.method]} never selects noise."
    if quota is None or shares is None:
        return f"This selection has no cluster {cluster}."
    if allocation.method == PLACEBO:
        return (
            f"Cluster {cluster} has the quota {quota.quota} of the {allocation.budget} rows to add, by a random permutation of "
            f"the quotas of COMPASS. Its gap has no influence."
        )
    return (
        f"Cluster {cluster} has {quota.n_eval} guide prompts ({shares.guide:.1%} of all) and {quota.n_target} rows of "
        f"{language_name(allocation.language)} ({shares.own:.1%} of all). Its weight is {quota.weight:.3g}, and its quota is "
        f"{quota.quota} of the {allocation.budget} rows to add."
    )


def _explain_draw(allocation: AllocationRecord, row: Mapping[str, Any], source: str, cluster: int) -> str:
    if row and allocation.method == ALL_LANGUAGES:
        return _explain_added(allocation, row)
    if row:
        return (
            "It is one of the language's own rows. All of them are used."
            if row["role"] == "target"
            else _explain_added(allocation, row)
        )
    if source == allocation.language:
        return "It is one of the language's own rows that the bias simulation removed."
    if allocation.method not in _BY_QUOTA:
        return _explain_omission(allocation)
    quota = allocation.quota(cluster)
    if cluster < 0 or quota is None or not (quota.quota if allocation.method == PLACEBO else quota.weight):
        return f"It was not selected: its cluster has {'quota' if allocation.method == PLACEBO else 'weight'} 0."
    return f"It was a candidate but was not selected: {quota.selected} of {quota.n_aux} candidates in its cluster were."


def _explain_omission(allocation: AllocationRecord) -> str:
    """Why another method did not select a row, as far as its counts show."""
    if allocation.method == ALL_LANGUAGES:
        return "It was left out: it is a test question of a target language, or the bias simulation of its language removed it."
    added = sum(each.selected for each in allocation.clusters) + allocation.noise.selected
    name = METHODS.get(allocation.method, allocation.method)
    return f"It was not selected: {name} added {added} of {_count_candidates(allocation)} candidates."


def _count_candidates(allocation: AllocationRecord) -> int:
    return sum(each.n_aux for each in allocation.clusters) + allocation.noise.auxiliary


def _explain_added(allocation: AllocationRecord, row: Mapping[str, Any]) -> str:
    if allocation.method in _BY_QUOTA:
        return _describe_draw(allocation.quota(row["cluster"]), row)
    template = _METHOD_REASONS.get(allocation.method, "It was selected with a score of {score}.")
    return template.format(
        candidates=_count_candidates(allocation),
        source=language_name(row["language"]),
        rank=_describe_rank(allocation.transfer.languages, row["language"]),
        target=language_name(allocation.language),
        score="unknown" if row["score"] is None else f"{row['score']:.4g}",
    )


def _describe_rank(languages: Sequence[str], language: str) -> str:
    """Rank of a language among the transfer languages."""
    if language not in languages:
        return "one of the languages"
    return f"number {languages.index(language) + 1} of the {len(languages)} languages"


def _describe_draw(quota: QuotaRecord | None, row: Mapping[str, Any]) -> str:
    scores = {"prototype score": row["proto"], "boundary score": row["boundary"], "score at its draw": row["score"]}
    shown = [f"{name} {value:.3f}" for name, value in scores.items() if value is not None]
    total = f" of {quota.selected}" if quota else ""
    with_scores = f", with {', '.join(shown)}" if shown else ""
    near = "" if row["neighbours"] is None else f" Near duplicates selected before it: {row['neighbours']}."
    return f"It was selected as number {row['order'] + 1}{total} in its cluster{with_scores}.{near}"
