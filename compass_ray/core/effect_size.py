"""Size of a difference: as a share of the best possible gain, by language, against noise, and what a test can detect."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import as_scores
from compass_ray.core.bootstrap import Interval
from compass_ray.core.crossed_interval import crossed_variance, language_means


@dataclass(frozen=True)
class Wins:
    """Languages in which a difference is above 0, below 0, and 0."""

    above: int
    below: int
    equal: int


def count_wins(differences: npt.ArrayLike) -> Wins:
    """Wins by language of differences float64[n]; ValueError on NaN.

    >>> count_wins([0.1, -0.2, 0.0, 0.3])
    Wins(above=2, below=1, equal=1)
    """
    values = as_scores(differences, np.size(differences), "differences")
    above, below = int((values > 0).sum()), int((values < 0).sum())
    return Wins(above, below, len(values) - above - below)


def share_of_gain(gain: npt.ArrayLike, possible: npt.ArrayLike, family: npt.ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The mean of `gain` as a share of the mean of `possible`, both float64[L, S, I] as in `crossed_interval`.

    The interval is Fieller's, which also holds for a small denominator. It is unbounded if `possible` is not clearly different
    from 0. For example `gain` is method - target, and `possible` is oracle - target.

    >>> gain = np.array([[[0.1]], [[0.2]], [[0.15]]])
    >>> found = share_of_gain(gain, 2 * gain, [0])
    >>> round(found.mean, 6), round(found.low, 6), round(found.high, 6)
    (0.5, 0.5, 0.5)
    """
    from scipy.stats import t

    variance = crossed_variance([gain, possible], family)
    (aa, ab), (_, bb) = variance.total * t.ppf((1 + confidence) / 2, variance.languages - 1) ** 2
    a, b = (float(language_means(each, family).mean()) for each in (gain, possible))
    ratio = a / b if b else float("nan")
    square = float(b * b - bb)
    if square <= 0.0:
        return Interval(ratio, -float("inf"), float("inf"))
    half = float(np.sqrt(max((a * b - ab) ** 2 - square * (a * a - aa), 0.0)))
    middle = float(a * b - ab)
    return Interval(ratio, (middle - half) / square, (middle + half) / square)


def signal_to_noise(scores: npt.ArrayLike) -> float:
    """Largest difference between the means of two methods, over the standard deviation of one method's repeated runs.

    `scores` float64[m, r] are m methods with r seeds each; see Heineman et al., "Signal and Noise" (2025). ValueError on fewer
    than two methods or seeds.

    >>> round(signal_to_noise([[0.0, 0.2], [1.0, 1.2]]), 3)
    7.071
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"scores have shape {values.shape}; expected at least two methods and two seeds, (methods, seeds).")
    noise = float(np.sqrt(values.var(axis=1, ddof=1).mean()))
    signal = float(np.ptp(values.mean(axis=1)))
    return signal / noise if noise else float("inf")


def least_detectable_difference(
    deviation: float, languages: int, *, power: float = 0.8, level: float = 0.05, tests: int = 1
) -> float:
    """Mean difference that a two-sided paired t-test over languages finds with probability `power`.

    `deviation` is the standard deviation of the difference between languages, and the result has its unit. The level is divided
    by `tests`, the first step of Holm's correction. ValueError on fewer than two languages.

    >>> round(least_detectable_difference(1.0, 12), 3)
    0.889
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    if languages < 2 or deviation < 0.0 or tests < 1:
        raise ValueError(
            f"{languages} languages, deviation {deviation}, {tests} tests; expected 2 or more, 0 or more, 1 or more."
        )
    critical = float(t.ppf(1 - level / tests / 2, languages - 1))

    def missing(noncentrality: float) -> float:
        # The other tail adds under 1e-5 at any useful power.
        return float(nct.sf(critical, languages - 1, noncentrality)) - power

    return float(brentq(missing, 0.0, 2.0 * critical + 10.0)) * deviation / float(np.sqrt(languages))
