"""Pseudo-subjects: a subject for rows that carry none, so that bias simulation can thin them too.

A row takes the subject of the guide prompts nearest to it in its own cluster; a row too far from any keeps
none, and so is never thinned. COMPASS, section 4.3.1 thins by subject and does not say how a pool without
subjects gets one.
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
    """Subject of each row, None where there is none near enough.

    Args:
        rows: unit rows (n, d).
        row_labels: cluster of each row, int[n], -1 for noise.
        guide: unit rows (m, d) of the guide prompts.
        guide_labels: cluster of each guide prompt, int[m].
        guide_subjects: subject of each guide prompt.
        n_clusters: K.
        similarity: lowest cosine at which a guide prompt counts as near.

    >>> e = np.eye(2, dtype=np.float32)
    >>> pseudo_subjects(e, [0, 0], e[:1], [0], ["law"], 1)
    ['law', None]
    """
    own, theirs = as_labels(row_labels, n_clusters), as_labels(guide_labels, n_clusters)
    found: list[str | None] = [None] * len(own)
    for k in np.intersect1d(own[own >= 0], theirs[theirs >= 0]):
        members, near = np.flatnonzero(own == k), np.flatnonzero(theirs == k)
        cosine = rows[members] @ guide[near].T
        for member, row in zip(members, cosine, strict=True):
            found[member] = _vote(row, [guide_subjects[i] for i in near.tolist()], similarity)
    return found


def _vote(cosine: npt.NDArray[np.float32], subjects: Sequence[str | None], similarity: float) -> str | None:
    nearest = np.argsort(-cosine, kind="stable")[:NEAREST]
    votes = Counter(s for i in nearest if cosine[i] >= similarity and (s := subjects[int(i)]) is not None)
    return votes.most_common(1)[0][0] if votes else None
