"""Statistics of a try by the protocol: contrasts of methods, claims with corrected p-values, controls, and equality of cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmarks.paper.evidence.item_scores import (
    Array,
    GroupScores,
    ItemGroup,
    LanguageItems,
    TryScores,
    difference,
    method_scores,
    read_try,
    text_difference,
)
from benchmarks.paper.evidence.measurements import MeasurementStore
from benchmarks.paper.evidence.protocol import SMALL_TOKENS, ZERO_SHOT, Protocol, ProtocolFile
from compass_ray.core.bootstrap import Interval
from compass_ray.core.crossed_interval import RESAMPLES, crossed_bootstrap, crossed_interval, language_means
from compass_ray.core.effect_size import Wins, count_wins, least_detectable_difference, share_of_gain, signal_to_noise
from compass_ray.core.holm import holm
from compass_ray.core.seeds import generator
from compass_ray.core.sign_flip import sign_flip_test

TARGET, ORACLE = "target", "oracle"
TEXT = "text"
"""Name of the bits per byte of the plain text, among the measures."""
_Z = 1.959963984540054


@dataclass(frozen=True)
class Contrast:
    """Method a less method b in one measure and group of items; positive if a is better."""

    a: str
    b: str
    measure: str
    group: ItemGroup
    mean: float
    interval: Interval | None
    """Over languages, seeds and shared items; None with one language."""
    bootstrap: Interval | None
    """Percentiles over languages, seeds and items, in primary measures of all families."""
    p_value: float
    wins: Wins
    by_language: Mapping[str, Interval]
    """With an interval over items, families weighing alike; also of languages that are left out of everything else here."""
    counted: tuple[str, ...]
    """Languages that the mean, the intervals and the p-value are of."""
    deviation: float
    """Standard deviation between languages; NaN with one."""
    seeds: int
    share: Interval | None = None
    """Of (oracle - target), for contrasts with target; None if either was not measured."""


@dataclass(frozen=True)
class Claim:
    """One claim of the protocol: a contrast in both primary measures, with p-values corrected over all claims."""

    method: str
    against: str
    contrasts: Mapping[str, Contrast]
    corrected: Mapping[str, float]

    def verdict(self, level: float) -> str:
        """``better`` or ``worse`` if both measures agree and are significant; else what stands against it.

        ``not established``: both intervals are on one side of 0, but a corrected p-value is above the level. ``one measure``:
        only one interval excludes 0. ``no agreement``: they are on different sides. ``no difference``: both include 0.
        ``one language``: there is no interval over languages.
        """
        if any(each.interval is None for each in self.contrasts.values()):
            return "one language"
        sides = {_side(each) for each in self.contrasts.values()}
        if sides == {0}:
            return "no difference"
        if len(sides) > 1:
            return "one measure" if 0 in sides else "no agreement"
        if any(p > level for p in self.corrected.values()):
            return "not established"
        return "better" if sides == {1} else "worse"


@dataclass(frozen=True)
class Harm:
    """Change on subjects that were not thinned, against its margin."""

    contrast: Contrast
    margin: float

    @property
    def is_excluded(self) -> bool:
        """Whether a loss above the margin is excluded by the interval."""
        return self.contrast.interval is not None and self.contrast.interval.low > -self.margin


@dataclass(frozen=True)
class CostCheck:
    """Tokens and steps of all trained adapters of the try."""

    tokens: tuple[int, ...]
    steps: tuple[int, ...]
    adapters: int
    wanted: tuple[int, ...]
    """``train.tokens`` of their settings."""
    unknown: tuple[str, ...]
    """Adapters whose tokens or steps are not recorded."""

    @property
    def is_equal(self) -> bool:
        """Whether all adapters saw the tokens of the protocol, in as many steps, and all of this is recorded."""
        return not self.unknown and len(self.tokens) == len(self.steps) == 1 and self.tokens == self.wanted


@dataclass(frozen=True)
class Analysis:
    """Everything that the page shows."""

    scores: TryScores
    excluded: Mapping[str, str]
    """Languages left out of all means, with the reason; their own differences are in ``Contrast.by_language``."""
    at_chance: Mapping[str, str]
    """Languages that the rule names, with the reason. If it names all, none is left out."""
    means: Mapping[tuple[str, str], float]
    """By method and measure, in the unit of the measure."""
    chance: float
    """Mean probability of a uniform choice, over the items and weights of ``means``."""
    least_p: float
    """Least corrected p-value that a claim over the languages of this try can have."""
    claims: tuple[Claim, ...]
    contrasts: tuple[Contrast, ...]
    families: tuple[Contrast, ...]
    elsewhere: tuple[Contrast, ...]
    harms: tuple[Harm, ...]
    texts: tuple[Contrast, ...]
    noise: Mapping[str, float]
    """Signal-to-noise of each measure, if two seeds are measured."""
    detectable: Mapping[tuple[str, str, str], tuple[float, float]]
    """By a, b and measure: least detectable difference in as many languages as the evaluation has, uncorrected and corrected."""
    cost: CostCheck


def _side(contrast: Contrast) -> int:
    """1 or -1 if the interval is above or below 0, and 0 if it includes 0 or there is none."""
    found = contrast.interval
    return 0 if found is None or found.low <= 0.0 <= found.high else int(np.sign(contrast.mean))


def analyse(file: ProtocolFile, store: MeasurementStore, attempt: str, resamples: int = RESAMPLES) -> Analysis:
    """Analyse what is measured of a try; ``resamples`` are those of the bootstrap in the primary measures.

    Raises:
        ProtocolError: nothing is measured, or an evaluation deviates from the frozen protocol.
    """
    protocol, scores = file.protocol, read_try(file, store, attempt)
    at_chance = {code: reason for code in scores.languages if (reason := _reason_to_exclude(scores, code))}
    excluded = at_chance if len(at_chance) < len(scores.languages) else {}
    languages = tuple(code for code in scores.languages if code not in excluded)
    pairs = _pairs(protocol, scores)
    contrasts = _contrasts(scores, pairs, tuple(protocol.measures), ItemGroup(), languages, resamples)
    shown = [pair for pair in pairs if pair in _family_pairs(protocol, scores)]
    families = [
        each
        for family in protocol.families
        for each in _contrasts(scores, shown, protocol.primary, ItemGroup(family=family), languages)
    ]
    elsewhere = [
        each
        for present in (True, False)
        for each in _contrasts(scores, shown, protocol.primary, ItemGroup(elsewhere=present), languages)
    ]
    return Analysis(
        scores=scores,
        excluded=excluded,
        at_chance=at_chance,
        means=_means(scores, languages),
        chance=float(np.mean([_chance(scores.languages[code]) for code in languages])),
        least_p=min(1.0, 2 * len(protocol.claims.methods) * len(protocol.claims.against) / 2 ** len(languages)),
        claims=_claims(protocol, contrasts),
        contrasts=tuple(contrasts),
        families=tuple(families),
        elsewhere=tuple(elsewhere),
        harms=_harms(protocol, scores, languages),
        texts=tuple(_text_contrasts(scores, pairs, languages)),
        noise=_noise(scores, languages),
        detectable=_detectable(protocol, contrasts),
        cost=_cost(scores),
    )


def _pairs(protocol: Protocol, scores: TryScores) -> list[tuple[str, str]]:
    """Every method against target and random, and the claims of the protocol."""
    measured = scores.methods
    wanted = [*product(protocol.claims.methods, protocol.claims.against)]
    wanted += [(a, b) for b in (TARGET, "random", ZERO_SHOT) for a in measured if a != b]
    wanted += [(a, "placebo") for a in (*protocol.claims.methods, ORACLE)]
    wanted += [(ORACLE, a) for a in protocol.claims.methods]
    found = [(a, b) for a, b in dict.fromkeys(wanted) if a in measured and b in measured]
    return [(a, b) for a, b in found if b not in (TARGET,) or a != ZERO_SHOT]


def _family_pairs(protocol: Protocol, scores: TryScores) -> set[tuple[str, str]]:
    a = {*protocol.claims.methods, ORACLE, "placebo"}
    return set(product(a, (TARGET, "random")))


def _contrasts(
    scores: TryScores,
    pairs: Sequence[tuple[str, str]],
    measures: Sequence[str],
    group: ItemGroup,
    languages: Sequence[str],
    resamples: int = 0,
) -> list[Contrast]:
    """Contrasts of all pairs in all measures; those in primary measures have a bootstrap too."""
    found = []
    for (a, b), measure in product(pairs, measures):
        values = difference(scores, a, b, measure, group, languages)
        if not values.is_empty:
            times = resamples if measure in scores.protocol.primary else 0
            others = difference(scores, a, b, measure, group, [code for code in scores.languages if code not in languages])
            found.append(_contrast(scores, (a, b), measure, group, values, others, times))
    return found


def _contrast(
    scores: TryScores,
    pair: tuple[str, str],
    measure: str,
    group: ItemGroup,
    found: GroupScores,
    others: GroupScores,
    resamples: int = 0,
) -> Contrast:
    """The contrast in the languages of ``found``; ``others`` are those that are shown alone."""
    a, b = pair
    means, several = language_means(found.values, found.family), len(found.languages) > 1
    rng = generator(0, "evidence", a, b, measure, str(group))
    return Contrast(
        a=a,
        b=b,
        measure=measure,
        group=group,
        mean=float(means.mean()),
        interval=crossed_interval(found.values, found.family) if several else None,
        bootstrap=crossed_bootstrap(found.values, found.family, resamples=resamples, rng=rng) if several and resamples else None,
        p_value=sign_flip_test(means, rng=rng).p_value,
        wins=count_wins(means),
        by_language={code: _item_interval(each, row) for each in (found, others) for row, code in enumerate(each.languages)},
        counted=found.languages,
        deviation=float(means.std(ddof=1)) if several else float("nan"),
        seeds=len(found.seeds),
        share=_share(scores, a, measure, group, found.languages) if b == TARGET and several else None,
    )


def _share(scores: TryScores, method: str, measure: str, group: ItemGroup, languages: Sequence[str]) -> Interval | None:
    """The gain over target as a share of the oracle's, on languages and seeds that have all three.

    The share is NaN if the oracle gains nothing.
    """
    if measure == TEXT or method in (ORACLE, ZERO_SHOT) or not {ORACLE, TARGET} <= set(scores.methods):
        return None
    seeds = tuple(seed for seed in scores.seeds(method, TARGET) if seed in scores.seeds(ORACLE, TARGET))
    own, oracle, target = (method_scores(scores, each, measure, group, languages, seeds) for each in (method, ORACLE, TARGET))
    gain, possible = own.values - target.values, oracle.values - target.values
    missing = np.isnan(gain) | np.isnan(possible)
    gain, possible = np.where(missing, np.nan, gain), np.where(missing, np.nan, possible)
    kept = ~missing.all(axis=(1, 2))
    if kept.sum() < 2:
        return None
    if language_means(possible[kept], own.family).mean() <= 0.0:
        return Interval(float("nan"), -float("inf"), float("inf"))
    return share_of_gain(gain[kept], possible[kept], own.family)


def _item_interval(found: GroupScores, row: int) -> Interval:
    """Mean of one language over families, with a normal interval over items and its seeds as they are."""
    values = np.nanmean(found.values[row][~np.isnan(found.values[row]).all(axis=1)], axis=0)
    mean, error = _stratified(values, found.family)
    return Interval(mean, mean - _Z * error, mean + _Z * error)


def _stratified(values: Array, family: np.ndarray) -> tuple[float, float]:
    """Mean over families of the means over items, and its standard error over items."""
    groups = [values[(family == each) & ~np.isnan(values)] for each in np.unique(family[~np.isnan(values)])]
    variance = sum(group.var(ddof=1) / len(group) for group in groups if len(group) > 1) / len(groups) ** 2
    return float(np.mean([group.mean() for group in groups])), float(np.sqrt(variance))


def _reason_to_exclude(scores: TryScores, language: str) -> str:
    """The exclusion rule of the protocol; empty if the language counts."""
    items, seed = scores.languages[language], scores.protocol.seeds[0]
    lows = [low for method in (ZERO_SHOT, TARGET) if (low := _low_over_chance(items, method, seed)) is not None]
    if len(lows) < 2 or any(low > 0.0 for low in lows):
        return ""
    return "neither the base model nor target is above chance in normalised probability"


def _low_over_chance(items: LanguageItems, method: str, seed: int) -> float | None:
    found = items.measures.get((method, seed))
    if found is None:
        return None
    above = np.where(items.thinned, found.probability - 1.0 / np.array(items.options), np.nan)
    mean, error = _stratified(above, np.unique(items.families, return_inverse=True)[1])
    return mean - _Z * error


def _chance(items: LanguageItems) -> float:
    """Mean probability of a uniform choice over the items of thinned subjects, families weighing alike."""
    uniform = np.where(items.thinned, 1.0 / np.array(items.options), np.nan)
    return _stratified(uniform, np.unique(items.families, return_inverse=True)[1])[0]


def _means(scores: TryScores, languages: Sequence[str]) -> dict[tuple[str, str], float]:
    """Means of each method over the languages that have it."""
    found = {}
    for method, (measure, kind) in product(scores.methods, scores.protocol.measures.items()):
        seeds = scores.seeds(method)
        own = [
            code for code in languages if any((method, seed) in scores.languages[code].measures for seed in scores.protocol.seeds)
        ]
        if own:
            values = method_scores(scores, method, measure, ItemGroup(), own, seeds)
            found[method, measure] = kind.sign * float(language_means(values.values, values.family).mean())
    return found


def _claims(protocol: Protocol, contrasts: Sequence[Contrast]) -> tuple[Claim, ...]:
    """The claims of the protocol; what is not measured yet counts as p = 1 in the correction."""
    wanted = list(product(protocol.claims.methods, protocol.claims.against))
    known = {(each.a, each.b, each.measure): each for each in contrasts}
    corrected = {
        measure: holm([known[a, b, measure].p_value if (a, b, measure) in known else 1.0 for a, b in wanted])
        for measure in protocol.primary
    }
    return tuple(
        Claim(
            a,
            b,
            {measure: known[a, b, measure] for measure in protocol.primary},
            {measure: float(corrected[measure][number]) for measure in protocol.primary},
        )
        for number, (a, b) in enumerate(wanted)
        if all((a, b, measure) in known for measure in protocol.primary)
    )


def _harms(protocol: Protocol, scores: TryScores, languages: Sequence[str]) -> tuple[Harm, ...]:
    measured = [name for name in protocol.claims.methods if name in scores.methods]
    pairs = [(name, TARGET) for name in measured if TARGET in scores.methods]
    margins = protocol.controls.no_harm
    found = _contrasts(scores, pairs, tuple(margins), ItemGroup(thinned=False), languages)
    return tuple(Harm(each, margins[each.measure]) for each in found)


def _text_contrasts(scores: TryScores, pairs: Sequence[tuple[str, str]], languages: Sequence[str]) -> list[Contrast]:
    shown = [code for code in scores.languages if code not in languages]
    found = [(pair, text_difference(scores, *pair, languages), text_difference(scores, *pair, shown)) for pair in pairs]
    return [_contrast(scores, pair, TEXT, ItemGroup(), values, others) for pair, values, others in found if not values.is_empty]


def _noise(scores: TryScores, languages: Sequence[str]) -> dict[str, float]:
    """Signal-to-noise over methods and seeds that all languages have."""
    trained = [
        (method, seed) for method in scores.methods for seed in scores.protocol.seeds
        if method != ZERO_SHOT and all((method, seed) in scores.languages[code].measures for code in languages)
    ]  # fmt: skip
    seeds = [seed for seed in scores.protocol.seeds if sum(each == seed for _, each in trained) > 1]
    methods = [method for method in scores.methods if all((method, seed) in trained for seed in seeds)]
    if len(seeds) < 2 or len(methods) < 2:
        return {}
    found = {}
    for measure in scores.protocol.measures:
        table = []
        for method in methods:
            each = [method_scores(scores, method, measure, ItemGroup(), languages, [seed]) for seed in seeds]
            table.append([float(language_means(one.values, one.family).mean()) for one in each])
        found[measure] = signal_to_noise(table)
    return found


def _detectable(protocol: Protocol, contrasts: Sequence[Contrast]) -> dict[tuple[str, str, str], tuple[float, float]]:
    languages, tests = len(protocol.languages.evaluation), len(protocol.claims.methods) * len(protocol.claims.against)
    found = {}
    for each in contrasts:
        if each.measure in protocol.primary and np.isfinite(each.deviation) and each.b in protocol.claims.against:
            one, corrected = (
                least_detectable_difference(each.deviation, languages, level=protocol.claims.level, tests=n) for n in (1, tests)
            )
            found[each.a, each.b, each.measure] = (one, corrected)
    return found


def _cost(scores: TryScores) -> CostCheck:
    trained = {cell: footer for cell, footer in scores.footers.items() if cell.method != ZERO_SHOT}
    tokens, steps = (
        tuple(sorted({int(each[name]) for each in trained.values() if each.get(name) is not None}))
        for name in ("tokens", "steps")
    )
    wanted = {
        SMALL_TOKENS if footer.get("small") else int(scores.protocol.settings_of(cell.attempt, cell.method)["train"]["tokens"])
        for cell, footer in trained.items()
    }
    unknown = [
        f"{cell.language}/{cell.method}-s{cell.seed}"
        for cell, footer in trained.items()
        if footer.get("tokens") is None or footer.get("steps") is None
    ]
    return CostCheck(tokens, steps, len(trained), tuple(sorted(wanted)), tuple(unknown))
