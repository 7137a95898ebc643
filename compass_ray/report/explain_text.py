"""The reason for a row in words: its cluster's gap, its draw, and what lies near it.

Key property: a sentence restates numbers that the selection wrote or that were found for the row; nothing is scored
again. COMPASS, sections 3.2.2 and 3.2.3; of the other methods, what they go by. It does not say how much a row helped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compass_ray.artifacts import ALL_LANGUAGES
from compass_ray.records.allocation import AllocationRecord, QuotaRecord
from compass_ray.report.nearest_rows import NearestGuidePrompt, Neighbours
from compass_ray.report.run_reader import METHODS, language_name

COMPASS = "compass"
MAX_QUOTED_CHARACTERS = 70
"""Characters of a prompt quoted within a sentence."""

TEST_QUESTION_REASON = "It could not be chosen: its prompt is a test question of the language."
_METHOD_REASONS: Mapping[str, str] = {
    ALL_LANGUAGES: "The method takes the whole pool.",
    "random": "It was drawn by chance, all {candidates} candidates alike, noise included.",
    "langrank": "It is a row of {source}, {place} that the trained ranker put first for {target}; the language's score {score}.",
    "langsim": "It is a row of {source}, {place} most like {target} by their features; similarity {score}.",
    "dsir": "It was drawn by its importance weight, how much likelier its n-grams are in the guide set than among the "
    "candidates; log weight {score}.",
    "nearest": "It is among the candidates most similar to a guide prompt; cosine {score}.",
}
"""Why a method other than COMPASS added a row."""


def explain_selection(
    allocation: AllocationRecord, row: Mapping[str, Any], source_language: str, cluster: int
) -> tuple[str, str]:
    """The reason in two sentences: the cluster's gap, the row's draw; ``row`` is empty if not chosen."""
    return _explain_gap(allocation, cluster), _explain_draw(allocation, row, source_language, cluster)


def describe_quota(language: str, quota: QuotaRecord) -> str:
    """What one language's selection made of a cluster."""
    counts = f"{quota.n_eval} guide prompts, {quota.n_target} own rows, {quota.selected} added"
    return f"{language_name(language)}: {counts}."


def describe_neighbours(near: Neighbours | None, chosen: bool) -> Iterator[str]:
    """What the draw of a row held back in its cluster, or what was drawn beside one that was not; none if not known."""
    if near is None:
        return
    near_it = f"Near duplicates of it (cosine above {near.tau:g}) among its cluster's candidates: "
    if chosen:
        cost = f", each of which its draw cost {near.delta:g} of its score" if near.delta and near.suppressed else ""
        yield f"{near_it}{near.suppressed} not drawn{cost}; {near.drawn} drawn."
    else:
        cost = f", each of which cost it {near.delta:g} of its score" if near.delta and near.drawn else ""
        yield f"{near_it}{near.drawn} drawn{cost}; {near.suppressed} not drawn."
    shown = near.closest_suppressed if chosen else near.closest_drawn
    yield from (f"  cosine {each.cosine:.3f}, {each.language}: {shorten(each.prompt)}" for each in shown)


def describe_guide_prompt(guide: NearestGuidePrompt | None) -> Iterator[str]:
    """The guide prompt nearest to a row; none if not known."""
    if guide is not None:
        yield f"The guide prompt nearest to it (cosine {guide.cosine:.3f}): {shorten(guide.prompt)}"


def shorten(prompt: str, longest: int = MAX_QUOTED_CHARACTERS) -> str:
    """A prompt on one line, cut to ``longest`` characters.

    >>> shorten("one\\ntwo", 6), shorten("one")
    ('one...', 'one')
    """
    line = " ".join(prompt.split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def _explain_gap(allocation: AllocationRecord, cluster: int) -> str:
    quota, shares = allocation.quota(cluster), allocation.shares(cluster)
    if allocation.method != COMPASS:
        return f"Method {allocation.method} takes no account of clusters; the row's is {cluster}."
    if cluster < 0:
        return "The row is noise: it lies in no cluster, and noise is never sampled."
    if quota is None or shares is None:
        return f"Cluster {cluster} has no place in this selection."
    return (
        f"Cluster {cluster} holds {quota.n_eval} guide prompts ({shares.guide:.1%} of them) and {quota.n_target} rows of "
        f"{language_name(allocation.language)} ({shares.own:.1%} of them), so it got weight {quota.weight:.3g} and a quota "
        f"of {quota.quota} of the {allocation.budget} rows to add."
    )


def _explain_draw(allocation: AllocationRecord, row: Mapping[str, Any], source: str, cluster: int) -> str:
    if row and allocation.method == ALL_LANGUAGES:
        return _explain_added(allocation, row)
    if row:
        return (
            "It is one of the language's own rows, all of which are used."
            if row["role"] == "target"
            else _explain_added(allocation, row)
        )
    if source == allocation.language:
        return "It is one of the language's own rows that the bias simulation removed."
    if allocation.method != COMPASS:
        return _explain_omission(allocation)
    quota = allocation.quota(cluster)
    if cluster < 0 or quota is None or not quota.weight:
        return "It was not chosen: nothing is drawn from a cluster without weight."
    return f"It was a candidate and was not drawn: {quota.selected} of {quota.n_aux} in its cluster were."


def _explain_omission(allocation: AllocationRecord) -> str:
    """Why another method left a row out, as far as its counts say."""
    if allocation.method == ALL_LANGUAGES:
        return "It was left out: it is a test question of a target language, or the bias simulation of its own removed it."
    added = sum(each.selected for each in allocation.clusters) + allocation.noise.selected
    name = METHODS.get(allocation.method, allocation.method)
    return f"It was not chosen: {name} added {added} of {_count_candidates(allocation)} candidates."


def _count_candidates(allocation: AllocationRecord) -> int:
    return sum(each.n_aux for each in allocation.clusters) + allocation.noise.auxiliary


def _explain_added(allocation: AllocationRecord, row: Mapping[str, Any]) -> str:
    if allocation.method == COMPASS:
        return _describe_draw(allocation.quota(row["cluster"]), row)
    ground = _METHOD_REASONS.get(allocation.method, "It was chosen with a score of {score}.")
    return ground.format(
        candidates=_count_candidates(allocation),
        source=language_name(row["language"]),
        place=_describe_rank(allocation.transfer.languages, row["language"]),
        target=language_name(allocation.language),
        score="unknown" if row["score"] is None else f"{row['score']:.4g}",
    )


def _describe_rank(languages: Sequence[str], language: str) -> str:
    """Which of the transfer languages one is."""
    if language not in languages:
        return "one of the languages"
    return f"number {languages.index(language) + 1} of the {len(languages)} languages"


def _describe_draw(quota: QuotaRecord | None, row: Mapping[str, Any]) -> str:
    scores = {"prototype score": row["proto"], "boundary score": row["boundary"], "score at its draw": row["score"]}
    shown = [f"{name} {value:.3f}" for name, value in scores.items() if value is not None]
    of = f" of {quota.selected}" if quota else ""
    near = "" if row["neighbours"] is None else f"; {row['neighbours']} of its near neighbours were drawn before it"
    told = f", with {', '.join(shown)}" if shown else ""
    return f"It was drawn, number {row['order'] + 1}{of} in its cluster's order of drawing{told}{near}."
