"""Pseudo-subjects: subjects for rows without one, so that bias simulation can thin them too.

A row gets the majority subject of the nearest guide prompts in its cluster. A row without a near guide prompt gets none
and is never thinned. COMPASS, section 4.3.1 thins by subject and does not say how a pool without subjects gets them.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import as_labels

NEAREST = 3
SIMILARITY = 0.5


def pseudo_subjects(
    rows: npt.NDArray[np.float32],
    row_labels: npt.ArrayLike,
    guide: npt.NDArray[np.float32],
    guide_labels: npt.ArrayLike,
    guide_subjects: Sequence[str | None],
    n_clusters: int,
    *,
    similarity: float = SIMILARITY,
) -> list[str | None]:
    """Subject of each row; None if no guide prompt is near enough.

    Args:
        rows: unit rows (n, d).
        row_labels: cluster of each row, int[n], -1 for noise.
        guide: unit rows (m, d) of the guide prompts.
        guide_labels: cluster of each guide prompt, int[m].
        guide_subjects: subject of each guide prompt.
        n_clusters: K.
        similarity: minimum cosine of a near guide prompt.

    >>> e = np.eye(2, dtype=np.float32)
    >>> pseudo_subjects(e, [0, 0], e[:1], [0], ["law"], 1)
    ['law', None]
    """
    row_clusters, guide_clusters = as_labels(row_labels, n_clusters), as_labels(guide_labels, n_clusters)
    found: list[str | None] = [None] * len(row_clusters)
    for k in np.intersect1d(row_clusters[row_clusters >= 0], guide_clusters[guide_clusters >= 0]):
        members, near = np.flatnonzero(row_clusters == k), np.flatnonzero(guide_clusters == k)
        cosine = rows[members] @ guide[near].T
        for member, row in zip(members, cosine, strict=True):
            found[member] = _vote(row, [guide_subjects[i] for i in near.tolist()], similarity)
    return found


def _vote(cosine: npt.NDArray[np.float32], subjects: Sequence[str | None], similarity: float) -> str | None:
    nearest = np.argsort(-cosine, kind="stable")[:NEAREST]
    votes = Counter(s for i in nearest if cosine[i] >= similarity and (s := subjects[int(i)]) is not None)
    return votes.most_common(1)[0][0] if votes else None
