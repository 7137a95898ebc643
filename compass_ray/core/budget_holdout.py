"""The slice of rows by which budgets are compared: the same for every budget, and trained on under none.

Key property: where the target has rows of a cluster, its own are held out. Where the guide set asks for a cluster that
the target's slice lacks, rows of one other language stand in, and that language is taken out of the candidates of
every budget: were it left in, a larger budget would win by teaching the stand-ins' language instead of passing on what is
known in others. Own rows alone would be blind to the very gap that auxiliary rows close, and so favour small budgets.
The paper says that the budget should be tuned, not on what (COMPASS, section 5.2). Never made of guide or test rows.
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

    `weights` float64[h + s] are of the held own rows in order and then of the stand-ins; with them the slice follows the
    guide set. `language` is the stand-ins' one, None where none are needed or none are to be had.
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
    """Hold out round(fraction * n) own rows by cluster, and stand-ins for what the guide set asks for beyond these.

    `own_labels` int[n], `other_labels` int[m]: clusters, -1 is noise, for which nothing stands in. `other_languages`
    str[m]. `n_eval`: counts int[K + 1] of the guide set. ValueError on an empty guide set or a fraction outside [0, 1).

    >>> others = [1, 1, 1, 1], ["yo", "yo", "hi", "hi"]
    >>> found = make_budget_holdout([0, 0, 0, 0], *others, [2, 2, 0], fraction=0.5, rng=np.random.default_rng(0))
    >>> int(found.own.sum()), len(found.stand_ins), found.language
    (2, 1, 'hi')
    """
    wish = probabilities(n_eval)
    mine = as_labels(own_labels, len(wish) - 1, "own_labels")
    theirs = as_labels(other_labels, len(wish) - 1, "other_labels")
    own = split_holdout(mine, fraction, rng)
    short = (cluster_counts(mine[own], len(wish) - 1) == 0)[:-1] & (wish[:-1] > 0)
    named = np.asarray(other_languages)
    language = _language(theirs, named, np.where(short, wish[:-1], 0.0))
    quota = np.where(short, np.maximum(np.rint(wish[:-1] * own.sum()), 1), 0).astype(np.int64)
    at = np.zeros(0, np.int64) if language is None else _drawn(theirs, named == language, quota, rng)
    return BudgetHoldout(own, at, validation_weights(np.concatenate([mine[own], theirs[at]]), n_eval), language)


def _language(labels: IntArray, languages: npt.NDArray[np.str_], wish: FloatArray) -> str | None:
    """The language whose rows cover most of `wish` float64[K]; of equal ones the one with most such rows, then the first."""
    useful = (labels >= 0) & (wish[labels] > 0)
    found = []
    for name in np.unique(languages[useful]):
        of_it = labels[useful & (languages == name)]
        found.append((-float(wish[np.unique(of_it)].sum()), -len(of_it), str(name)))
    return min(found)[2] if found else None


def _drawn(labels: IntArray, allowed: BoolArray, quota: IntArray, rng: np.random.Generator) -> IntArray:
    """Positions int64[s], sorted, of up to `quota` int64[K] allowed rows of each cluster."""
    parts = [np.zeros(0, np.int64)]
    for cluster in np.flatnonzero(quota):
        rows = np.flatnonzero(allowed & (labels == cluster))
        parts.append(rng.choice(rows, size=min(int(quota[cluster]), len(rows)), replace=False))
    return np.sort(np.concatenate(parts)).astype(np.int64)
