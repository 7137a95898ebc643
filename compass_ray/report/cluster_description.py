"""Description of a cluster in a few words, for plots and tables."""

from __future__ import annotations

from compass_ray.records.allocation import AllocationRecord
from compass_ray.records.clustering import ClusterRecord, SweepRecord
from compass_ray.report.style import printable_label
from compass_ray.translations import translate as _


def cluster_names(allocation: AllocationRecord, sweep: SweepRecord | None) -> list[str]:
    """Display name of each cluster with its number: its most common subject, or the start of its most central prompt.

    The number alone, if the plots' font can draw neither.
    """
    known = {each.cluster: each for each in sweep.clusters} if sweep else {}
    return [_describe(each.cluster, known.get(each.cluster)) for each in allocation.clusters]


def _describe(number: int, cluster: ClusterRecord | None) -> str:
    texts = [cluster.subject, *(each.prompt.strip().split("\n")[0] for each in cluster.examples)] if cluster else []
    label = next((found for text in texts if (found := printable_label(text, ""))), "")
    return f"{label} ({number})" if label else _("cluster {number}", number=number)
