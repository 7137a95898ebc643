"""Description of one cluster: its rows, the nearest cluster, and its role in every language's gap.

Key property: it shows what the clustering and the selections wrote. Noise (-1) is shown like a cluster. The subject is the most
common subject of the cluster's rows. COMPASS, sections 3.2.1 and 3.2.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.artifacts import SHARED, ArtifactError, RunDir
from compass_ray.config import ConfigError
from compass_ray.core.array_checks import unit_rows
from compass_ray.records.allocation import ClusterShares, QuotaRecord
from compass_ray.records.clustering import ClusterRecord, SweepRecord
from compass_ray.report.explain import UnknownRowError
from compass_ray.report.explain_text import COMPASS, describe_quota, shorten
from compass_ray.report.run_reader import RunReader, language_name

NOISE = -1


@dataclass(frozen=True)
class NearestCluster:
    """The other cluster with the nearest centroid, and the cosine distance in [0, 2]."""

    cluster: int
    subject: str | None
    distance: float


@dataclass(frozen=True)
class ClusterCard:
    """One cluster, and what each language's selection took from it."""

    cluster: ClusterRecord
    pool_share: float
    """Share of the pool's rows, in [0, 1]."""
    coarse_with: tuple[int, ...]
    """Other clusters in the same coarse cluster, which monitoring uses."""
    nearest: NearestCluster | None
    """None for noise, and if there is only one cluster."""
    method: str
    """Selection method of ``quotas`` and ``shares``, which are by language."""
    quotas: Mapping[str, QuotaRecord]
    shares: Mapping[str, ClusterShares]

    def lines(self) -> list[str]:
        """Lines for a terminal: size, nearest cluster, languages, each language's gap, and examples."""
        most = sorted(self.cluster.languages.items(), key=lambda item: (-item[1], item[0]))
        return [
            *self._head(),
            f"languages: {', '.join(f'{code} {rows}' for code, rows in most) or 'none'}",
            *(_describe_language(code, quota, self.shares.get(code)) for code, quota in self.quotas.items()),
            *(["most central rows:"] if self.cluster.examples else []),
            *(f"  {each.row_id} {each.language}: {shorten(each.prompt)}" for each in self.cluster.examples),
        ]

    def _head(self) -> list[str]:
        size = f"{self.cluster.size} pool rows ({self.pool_share:.1%} of the pool)"
        if self.cluster.cluster == NOISE:
            return [f"noise ({NOISE}): {size} in no cluster; COMPASS never selects them"]
        head = [f"cluster {self.cluster.cluster}: {size}, {_describe_subject(self.cluster.subject)}"]
        if self.cluster.coarse is not None:
            others = f"with {', '.join(map(str, self.coarse_with))}" if self.coarse_with else "alone"
            head.append(f"coarse cluster {self.cluster.coarse}, {others}")
        if self.nearest:
            near = self.nearest
            distance = f"cosine distance {near.distance:.3f} between centroids"
            head.append(f"nearest other cluster: {near.cluster}, {distance}, {_describe_subject(near.subject)}")
        return head


def build_cluster_card(run: RunDir, cluster: int, method: str = COMPASS, language: str = SHARED) -> ClusterCard:
    """Describe one cluster, or noise for -1, and what each language's selection took from it.

    ``language`` chooses the clustering if each language has its own.

    Raises:
        ArtifactError: the run has no clustering.
        UnknownRowError: the cluster does not exist.
        ConfigError: no language has a selection of the method. A missing COMPASS selection is allowed.
    """
    reader, sweep = RunReader(run), _sweep(run, language)
    rows = reader.clusters(language).map_table("assignments.arrow").select(["language", "cluster"])
    noise = rows.filter(pc.equal(rows["cluster"], NOISE))["language"]
    found = reader.cluster(language, cluster) if cluster != NOISE else _noise(noise)
    if found is None:
        known = sorted(c.cluster for c in sweep.clusters)
        span = f"{known[0]} to {known[-1]}" if known else "none"
        raise UnknownRowError(f"cluster {cluster} does not exist; existing clusters: {span}; noise: {NOISE}")
    _check_method(run, method)
    sharing = [code for code in run.read_config().languages if reader.clusters(code).name == reader.clusters(language).name]
    quotas, shares = _quotas_and_shares(reader, sharing, method, cluster)
    return ClusterCard(
        cluster=found,
        pool_share=found.size / max(rows.num_rows, 1),
        coarse_with=_coarse_with(sweep, found),
        nearest=_nearest(reader, language, found),
        method=method,
        quotas=quotas,
        shares=shares,
    )


def _sweep(run: RunDir, language: str) -> SweepRecord:
    found = RunReader(run).sweep(language)
    if found is not None:
        return found
    known = run.read_config().languages if run.read_config_bytes() is not None else ()
    own = [code for code in known if RunReader(run).sweep(code)]
    if own:
        raise ConfigError(f"each language has its own clusters in this run; add the language, for example --cluster {own[0]}:0")
    raise ArtifactError(f"{run.shown_uri} has no clustering; run 'compass-ray adapt --run {run.shown_uri}' first")


def _check_method(run: RunDir, method: str) -> None:
    existing = sorted({name for code in run.read_config().languages for name in run.selection_names(code)})
    if method not in (COMPASS, *existing):
        raise ConfigError(
            f"{run.shown_uri} has no selection of method {method!r}; existing methods: {', '.join(existing) or 'none'}"
        )


def _noise(languages: pa.ChunkedArray) -> ClusterRecord:
    counts = languages.value_counts().to_pylist()
    return ClusterRecord(cluster=NOISE, size=len(languages), languages={each["values"]: each["counts"] for each in counts})


def _quotas_and_shares(
    reader: RunReader, languages: Sequence[str], method: str, cluster: int
) -> tuple[dict[str, QuotaRecord], dict[str, ClusterShares]]:
    sharing = [code for code in languages if reader.clusters(code, method).name == reader.clusters(code).name]
    allocations = {code: allocation for code in sharing if (allocation := reader.allocation(method, code))}
    quotas = {code: quota for code, allocation in allocations.items() if (quota := allocation.quota(cluster))}
    return quotas, {code: shares for code, allocation in allocations.items() if (shares := allocation.shares(cluster))}


def _coarse_with(sweep: SweepRecord, found: ClusterRecord) -> tuple[int, ...]:
    if found.coarse is None:
        return ()
    return tuple(c.cluster for c in sweep.clusters if c.coarse == found.coarse and c.cluster != found.cluster)


def _nearest(reader: RunReader, language: str, found: ClusterRecord) -> NearestCluster | None:
    clusters = reader.clusters(language)
    centroids = unit_rows(clusters.read_array("centroids.npy")) if clusters.exists("centroids.npy") else np.zeros((0, 0))
    if found.cluster == NOISE or len(centroids) < 2:
        return None
    distance = 1.0 - centroids @ centroids[found.cluster]
    distance[found.cluster] = np.inf
    nearest = int(np.argmin(distance))
    other = reader.cluster(language, nearest)
    return NearestCluster(nearest, other.subject if other else None, float(distance[nearest]))


def _describe_subject(subject: str | None) -> str:
    return f"mostly {subject}" if subject else "without a subject"


def _describe_language(language: str, quota: QuotaRecord, shares: ClusterShares | None) -> str:
    if shares is None:
        return describe_quota(language, quota)
    return (
        f"{language_name(language)}: {quota.n_eval} guide prompts ({shares.guide:.1%}), {quota.n_target} own rows "
        f"({shares.own:.1%}), {quota.selected} added; {shares.trained:.1%} of the training rows."
    )
