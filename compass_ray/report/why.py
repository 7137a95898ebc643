"""Why a row was chosen, or was not, and what a cluster holds.

Key property: an answer restates what the selection wrote for the row and its cluster; nothing is scored
again. COMPASS, sections 3.2.2 and 3.2.3. It does not say how much a row helped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import ConfigError
from compass_ray.report.evidence import Evidence, language_name
from compass_ray.report.records import Allocation, Cluster, Quota


class UnknownRowError(ConfigError):
    """A row_id or cluster that the run does not hold."""


@dataclass(frozen=True)
class Why:
    """The answer for one row and one target language."""

    row_id: str
    language: str
    method: str
    prompt: str
    source_language: str
    chosen: bool
    cluster: int
    sentences: tuple[str, ...]
    """The reason, from the cluster's gap to the row's own draw."""
    row: Mapping[str, Any]
    """The row as the selection wrote it (tables.SELECTED); empty where it was not chosen."""
    quota: Quota | None

    def lines(self) -> list[str]:
        """The answer for a terminal: the prompt, and why."""
        state = "chosen" if self.chosen else "not chosen"
        where = f"{state} for {language_name(self.language)} by {self.method}"
        return [f"{self.row_id} ({language_name(self.source_language)}), {where}", self.prompt, *self.sentences]


@dataclass(frozen=True)
class ClusterCard:
    """One cluster and what each language's selection made of it."""

    cluster: Cluster
    quotas: Mapping[str, Quota]
    """By language of the configuration, COMPASS's selection."""

    def lines(self) -> list[str]:
        """The card for a terminal: size, subject, languages, each language's share, and examples."""
        cluster = self.cluster
        most = sorted(cluster.languages.items(), key=lambda item: (-item[1], item[0]))
        return [
            f"cluster {cluster.cluster}: {cluster.size} pool rows, mostly {cluster.subject or 'without subject'}",
            f"languages: {', '.join(f'{code} {rows}' for code, rows in most)}",
            *(quota_line(code, quota) for code, quota in self.quotas.items()),
            *(f"{example.language}: {example.prompt}" for example in cluster.examples),
        ]


def why(run: RunDir, language: str, row_id: str, method: str = "compass") -> Why:
    """Say why a pool row is in the training rows of a language, or is not.

    Raises:
        ArtifactError: the language's selection is not there.
        UnknownRowError: the pool has no such row.
    """
    evidence = Evidence(run)
    allocation, rows = evidence.allocation(method, language), evidence.selected(method, language)
    if allocation is None or rows is None:
        raise ArtifactError(
            f"there is no selection of method {method!r} for language {language!r} in {run.uri}; "
            f"run 'compass-ray adapt --run {run.uri} --languages {language}' for it first"
        )
    found = evidence.prompts([row_id]).get(row_id)
    if found is None:
        raise UnknownRowError(
            f"row_id {row_id!r} is not in the pool of {run.uri}; give one from selections/{method}/{language}/rows.parquet"
        )
    chosen = rows.filter(pc.equal(rows["row_id"], row_id)).to_pylist()
    row: dict[str, Any] = chosen[0] if chosen else {}
    cluster = row["cluster"] if row else _cluster_of(run, row_id)
    quota = next((c for c in allocation.clusters if c.cluster == cluster), None)
    return Why(
        row_id=row_id,
        language=language,
        method=method,
        prompt=found[0],
        source_language=found[1],
        chosen=bool(row),
        cluster=cluster,
        sentences=sentences(allocation, row, found[1], cluster),
        row=row,
        quota=quota,
    )


def quota_line(language: str, quota: Quota) -> str:
    """What one language's selection made of a cluster."""
    counts = f"{quota.n_eval} guide prompts, {quota.n_target} own rows, {quota.selected} added"
    return f"{language_name(language)}: {counts}."


def sentences(allocation: Allocation, row: Mapping[str, Any], source_language: str, cluster: int) -> tuple[str, str]:
    """The reason in two sentences: the cluster's gap, the row's draw; ``row`` is empty if not chosen."""
    quota = next((c for c in allocation.clusters if c.cluster == cluster), None)
    gap = _gap(allocation, cluster, quota)
    return gap, _draw(row, source_language, allocation.language, cluster, quota)


def cluster_card(run: RunDir, cluster: int) -> ClusterCard:
    """What one cluster holds and what each language's selection took from it.

    Raises:
        ArtifactError: the run has no clustering.
        UnknownRowError: it has no such cluster.
    """
    evidence = Evidence(run)
    if evidence.sweep is None:
        raise ArtifactError(f"there is no clustering in {run.uri}; run 'compass-ray adapt --run {run.uri}' first")
    found = evidence.cluster(cluster)
    if found is None:
        known = sorted(c.cluster for c in evidence.sweep.clusters)
        span = f"{known[0]} to {known[-1]}" if known else "none"
        raise UnknownRowError(f"cluster {cluster} does not exist; the clusters are {span}, and noise (-1) has no card")
    return ClusterCard(cluster=found, quotas=_quotas(evidence, run.recorded().languages, cluster))


def _quotas(evidence: Evidence, languages: tuple[str, ...], cluster: int) -> dict[str, Quota]:
    allocations = {code: evidence.allocation("compass", code) for code in languages}
    return {code: quota for code, made in allocations.items() if made for quota in made.clusters if quota.cluster == cluster}


def _cluster_of(run: RunDir, row_id: str) -> int:
    table = run.clusters.read_table("assignments.parquet", ["row_id", "cluster"])
    found = table.filter(pc.equal(table["row_id"], row_id))["cluster"].to_pylist()
    return int(found[0]) if found else -1


def _gap(allocation: Allocation, cluster: int, quota: Quota | None) -> str:
    if allocation.method != "compass":
        return f"Method {allocation.method} takes no account of clusters; the row's is {cluster}."
    if cluster < 0:
        return "The row is noise: it lies in no cluster, and noise is never sampled."
    if quota is None:
        return f"Cluster {cluster} has no place in this selection."
    place = allocation.clusters.index(quota)
    guide, before = allocation.gap.p_eval[place], allocation.gap.p_before[place]
    return (
        f"Cluster {cluster} holds {quota.n_eval} guide prompts ({guide:.1%} of them) and {quota.n_target} "
        f"rows of "
        f"{language_name(allocation.language)} ({before:.1%} of them), so it got weight "
        f"{quota.weight:.3f} and a quota "
        f"of {quota.quota} of the {allocation.budget} rows to add."
    )


def _draw(row: Mapping[str, Any], source: str, language: str, cluster: int, quota: Quota | None) -> str:
    if row:
        return "It is one of the language's own rows, all of which are used." if row["role"] == "target" else _drawn(row)
    if source == language:
        return "It is one of the language's own rows that the bias simulation removed."
    if cluster < 0 or quota is None or not quota.weight:
        return "It was not chosen: nothing is drawn from a cluster without weight."
    return f"It was a candidate and was not drawn: {quota.selected} of {quota.n_aux} in its cluster were."


def _drawn(row: Mapping[str, Any]) -> str:
    scores = {
        "prototype score": row["proto"],
        "boundary score": row["boundary"],
        "score at its draw": row["score"],
    }
    shown = [f"{name} {value:.3f}" for name, value in scores.items() if value is not None]
    near = "" if row["neighbours"] is None else f"; {row['neighbours']} of its near neighbours were drawn before it"
    told = f", with {', '.join(shown)}" if shown else ""
    return f"It was drawn, number {row['order'] + 1} in the order of drawing{told}{near}."
