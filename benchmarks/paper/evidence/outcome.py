"""The outcome in words, written from the intervals: a win, a loss and "no difference at this size" are as easy to print."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.paper.evidence.analysis import Analysis, Claim, Contrast, Harm
from benchmarks.paper.evidence.protocol import is_evaluation
from compass_ray.core.bootstrap import Interval

NAMES = {
    "bits_per_byte": "bits per byte",
    "probability": "normalised probability",
    "accuracy_by_bytes": "accuracy by bytes",
    "accuracy_by_characters": "accuracy by characters",
    "accuracy_by_sum": "accuracy by sum",
    "brier": "Brier score",
    "text": "bits per byte of plain text",
}
_IN_POINTS = frozenset({"probability", "accuracy_by_bytes", "accuracy_by_characters", "accuracy_by_sum"})


def format_value(value: float, measure: str, *, sign: bool = True) -> str:
    """A value in points (hundredths) for probabilities and accuracies, else in its own unit.

    >>> format_value(0.0123, "probability"), format_value(-0.0123, "bits_per_byte")
    ('+1.23', '\N{MINUS SIGN}0.012')
    """
    if not np.isfinite(value):
        return "\N{MINUS SIGN}∞" if value < 0 else "∞" if value > 0 else "–"
    text = f"{100 * value:+.2f}" if measure in _IN_POINTS else f"{value:+.3f}"
    return (text if sign else text.lstrip("+")).replace("-", "\N{MINUS SIGN}")


def format_interval(interval: Interval | None, measure: str) -> str:
    """The ends of an interval, as ``[+0.10, +0.52]``; a dash for none."""
    if interval is None:
        return "–"
    return f"[{format_value(interval.low, measure)}, {format_value(interval.high, measure)}]"


def format_share(interval: Interval | None) -> str:
    """A share in percent with its interval; ``not bounded`` if the oracle is not clearly better, ``none`` if it is not better."""
    if interval is None:
        return "–"
    if not np.isfinite(interval.mean):
        return "none: the oracle gains nothing"
    if not np.isfinite(interval.low):
        return f"{_percent(interval.mean)}% (not bounded)"
    return f"{_percent(interval.mean)}% [{_percent(interval.low)}, {_percent(interval.high)}]"


def _percent(share: float) -> str:
    return str(round(100 * share)).replace("-", "\N{MINUS SIGN}")


def describe_outcome(analysis: Analysis) -> Iterator[str]:
    """Sentences about each claim, in the order of the protocol."""
    level = analysis.scores.protocol.claims.level
    if not is_evaluation(analysis.scores.attempt):
        yield "These are development languages: settings are chosen on them, and nothing is claimed from them."
    if not analysis.claims:
        yield "No claim of the protocol is measured yet."
    if analysis.least_p > level:
        counted = len(analysis.scores.languages) - len(analysis.excluded)
        yield (
            f"No claim can pass the corrected test in {counted} language{'s' if counted > 1 else ''}: the least corrected "
            f"p-value there is {analysis.least_p:.3g}, above {level:g}."
        )
    for claim in analysis.claims:
        yield describe_claim(claim, level)


def describe_claim(claim: Claim, level: float) -> str:
    """One sentence with the verdict, and one with the differences that remain possible.

    A claim needs both primary measures; otherwise the sentence says what the intervals leave open.
    """
    verdict, pair = claim.verdict(level), f"{claim.method} and {claim.against}"
    numbers = "; ".join(_describe_contrast(each, claim.corrected[name]) for name, each in claim.contrasts.items())
    if verdict == "no difference":
        ranges = " and ".join(
            f"{format_interval(each.interval, name)} in {_unit(name)}" for name, each in claim.contrasts.items() if each.interval
        )
        open_ = f" Gains in {ranges} remain possible." if ranges else ""
        return f"No difference at this size between {pair}: {numbers}.{open_}"
    if verdict == "one language":
        return f"One language gives no interval over languages, so nothing is said of {pair}: {numbers}."
    if verdict == "one measure":
        [sure] = [name for name, each in claim.contrasts.items() if each.interval and not _includes_zero(each.interval)]
        return f"Only the interval of {NAMES[sure]} excludes 0 between {pair}, so nothing is claimed: {numbers}."
    if verdict == "no agreement":
        return f"The two measures disagree on which of {pair} is better, so nothing is claimed: {numbers}."
    if verdict == "not established":
        better = "better" if claim.contrasts["probability"].mean > 0 else "worse"
        return (
            f"{claim.method} is {better} than {claim.against} by both intervals, but not by the corrected test, so nothing is "
            f"claimed: {numbers}."
        )
    return f"{claim.method} is {verdict} than {claim.against}: {numbers}."


def _includes_zero(interval: Interval) -> bool:
    return interval.low <= 0.0 <= interval.high


def describe_harm(harm: Harm) -> str:
    """Whether a loss above the margin on other subjects is excluded."""
    each = harm.contrast
    found = "is excluded" if harm.is_excluded else "is not excluded"
    return (
        f"{each.a} against {each.b} on subjects that were not thinned, {_unit(each.measure)}: "
        f"{format_value(each.mean, each.measure)} {format_interval(each.interval, each.measure)}. A loss of more than "
        f"{format_value(harm.margin, each.measure, sign=False)} {found}."
    )


def describe_go(analysis: Analysis) -> str:
    """Whether the oracle separates from random, by the rule of the protocol."""
    found = {(each.a, each.b, each.measure): each for each in analysis.contrasts}
    contrast = found.get(("oracle", "random", "probability"))
    if contrast is None:
        return "Oracle and random are not both measured, so the pilot decides nothing yet."
    clear = [code for code in contrast.counted if contrast.by_language[code].low > 0.0]
    over_languages = contrast.interval is not None and contrast.interval.low > 0.0
    is_go = over_languages or len(clear) >= 4
    numbers = f"{format_value(contrast.mean, 'probability')} points {format_interval(contrast.interval, 'probability')}"
    return (
        f"{'Go' if is_go else 'No go'}: oracle less random in normalised probability is {numbers} over "
        f"{len(contrast.counted)} languages, with an interval over items above 0 in {len(clear)} "
        f"({', '.join(clear) or 'none'})."
    )


def _describe_contrast(contrast: Contrast, corrected: float) -> str:
    share = f", share of the oracle's gain {format_share(contrast.share)}" if contrast.share else ""
    return (
        f"{NAMES[contrast.measure]} {format_value(contrast.mean, contrast.measure)} "
        f"{format_interval(contrast.interval, contrast.measure)}, corrected p = {corrected:.3g}, better in "
        f"{contrast.wins.above} of {len(contrast.counted)} languages{share}"
    )


def _unit(measure: str) -> str:
    return f"points of {NAMES[measure]}" if measure in _IN_POINTS else NAMES[measure]
