"""Holdout rows that compare budgets: the same rows for every budget, and no trial trains on them.

Own rows of the target are held out by cluster. If the guide set needs a cluster without held-out own rows, rows of one
other language stand in. That language is removed from the candidates of every budget: otherwise a larger budget would win
by training the language of the stand-ins, not by transfer. Own rows alone would not measure the gap that auxiliary rows
close, and so would favour small budgets. The paper asks for a tuned budget and does not say on which rows (COMPASS,
section 5.2). Guide and test rows are never used.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import BoolArray, FloatArray, IntArray, as_labels
from compass_ray.core.distribution import cluster_counts, probabilities
from compass_ray.core.validation_split import split_holdout, validation_weights


@dataclass(frozen=True)
class BudgetHoldout:
    """Rows held out: `own` bool[n] of the target's, `stand_ins` int64[s] among the others, and weights of mean 1.

    `weights` float64[h + s] belong to the held-out own rows in order and then to the stand-ins; the weighted rows follow
    the guide set's distribution. `language` is that of the stand-ins; None if there are none.
    """

    own: BoolArray
    stand_ins: IntArray
    weights: FloatArray
    language: str | None


def make_budget_holdout(
    own_labels: npt.ArrayLike,
    other_labels: npt.ArrayLike,
    other_languages: npt.ArrayLike,
    n_eval: npt.ArrayLike,
    *,
    fraction: float,
    rng: np.random.Generator,
) -> BudgetHoldout:
    """Hold out round(fraction * n) own rows by cluster, and stand-ins for clusters of the guide set without such rows.

    `own_labels` int[n], `other_labels` int[m]: clusters; -1 is noise, which has no stand-ins. `other_languages`
    str[m]. `n_eval`: counts int[K + 1] of the guide set. ValueError on an empty guide set or a fraction outside [0, 1).

    >>> others = [1, 1, 1, 1], ["yo", "yo", "hi", "hi"]
    >>> found = make_budget_holdout([0, 0, 0, 0], *others, [2, 2, 0], fraction=0.5, rng=np.random.default_rng(0))
    >>> int(found.own.sum()), len(found.stand_ins), found.language
    (2, 1, 'hi')
    """
    p_eval = probabilities(n_eval)
    own_clusters = as_labels(own_labels, len(p_eval) - 1, "own_labels")
    other_clusters = as_labels(other_labels, len(p_eval) - 1, "other_labels")
    own = split_holdout(own_clusters, fraction, rng)
    uncovered = (cluster_counts(own_clusters[own], len(p_eval) - 1) == 0)[:-1] & (p_eval[:-1] > 0)
    languages = np.asarray(other_languages)
    language = _stand_in_language(other_clusters, languages, np.where(uncovered, p_eval[:-1], 0.0))
    quota = np.where(uncovered, np.maximum(np.rint(p_eval[:-1] * own.sum()), 1), 0).astype(np.int64)
    at = np.zeros(0, np.int64) if language is None else _draw_stand_ins(other_clusters, languages == language, quota, rng)
    weights = validation_weights(np.concatenate([own_clusters[own], other_clusters[at]]), n_eval)
    return BudgetHoldout(own, at, weights, language)


def _stand_in_language(labels: IntArray, languages: npt.NDArray[np.str_], needed: FloatArray) -> str | None:
    """The language with rows that cover most of `needed` float64[K]; ties go to most such rows, then to the first name."""
    useful = (labels >= 0) & (needed[labels] > 0)
    ranked = []
    for name in np.unique(languages[useful]):
        clusters = labels[useful & (languages == name)]
        ranked.append((-float(needed[np.unique(clusters)].sum()), -len(clusters), str(name)))
    return min(ranked)[2] if ranked else None


def _draw_stand_ins(labels: IntArray, allowed: BoolArray, quota: IntArray, rng: np.random.Generator) -> IntArray:
    """Positions int64[s], sorted, of up to `quota` int64[K] allowed rows of each cluster."""
    parts = [np.zeros(0, np.int64)]
    for cluster in np.flatnonzero(quota):
        rows = np.flatnonzero(allowed & (labels == cluster))
        parts.append(rng.choice(rows, size=min(int(quota[cluster]), len(rows)), replace=False))
    return np.sort(np.concatenate(parts)).astype(np.int64)
