"""The quantile test: do rows nearer to the guide set give a lower loss on the guide's kind of item?

One adapter for each fifth of the candidates by distance to the nearest guide prompt, and one of the language's own rows alone.
All are ordinary methods of one run, so a killed test continues, and its report is that of a run. Every fifth adds as many rows;
set ``train.tokens`` to train them alike also in tokens. If the loss does not rise with the distance, distances in the space of
the encoder carry no information for a selection. Not in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig, with_overrides
from compass_ray.core.choice_measures import LOWER_IS_BETTER, PRIMARY
from compass_ray.core.quantile_trend import QuantileTrend, measure_trend
from compass_ray.core.selection import QUANTILE_METHODS, Method
from compass_ray.report.measures import measure
from compass_ray.report.run_reader import RunReader, language_name

OWN_ROWS = Method.TARGET.value
METHODS = (OWN_ROWS, *(method.value for method in QUANTILE_METHODS))
MEAN = "mean"
_LABELS = {"bits_per_byte": "Bits per byte of the correct reply", "probability": "Probability of the correct option"}


@dataclass(frozen=True)
class QuantileRow:
    """One fifth, or the own rows alone (``quantile`` 0, without a distance), as means over the languages that were measured."""

    quantile: int
    distance: float | None
    """Mean of 1 - cosine of the selected rows to their nearest guide prompt, over languages."""
    distances: Mapping[str, float]
    """By language."""
    values: Mapping[str, float]
    """The measure by language, and their mean as ``mean``."""


@dataclass(frozen=True)
class QuantileMeasure:
    """One measure in every fifth. A trend of 1 says that the measure gets worse from the nearest fifth to the farthest."""

    measure: str
    rows: tuple[QuantileRow, ...]
    trends: Mapping[str, QuantileTrend]
    """By language, and over languages as ``mean``."""
    chance: Mapping[str, float]
    """The chance level by language, and their mean as ``mean``; empty for a measure without one."""


@dataclass(frozen=True)
class QuantileResults:
    """Results of a quantile test; a language without all rows and evaluations is in ``missing``."""

    languages: tuple[str, ...]
    measures: tuple[QuantileMeasure, ...]
    missing: tuple[str, ...]


def quantile_config(config: RunConfig, run: RunDir) -> RunConfig:
    """The configuration of a quantile test: these settings with its methods. It serves the adapters of the own rows.

    Raises:
        ConfigError: ``run`` has a run of other methods.
    """
    if run.read_config_bytes() is not None and tuple(run.read_config().select.methods) != METHODS:
        raise ConfigError(
            f"{run.shown_uri} is a run of other methods; a quantile test needs a run of its own: give another --run"
        )
    return with_overrides(config, [f"select.methods=[{', '.join(METHODS)}]", f"serve.method={OWN_ROWS}"])


def collect_quantiles(run: RunDir, config: RunConfig) -> QuantileResults:
    """Read the measures and distances of every fifth, in the languages in which all have added rows and were evaluated."""
    reader = RunReader(run)
    rows = [row for row in measure(reader, config).rows_in("all") if row.language in config.languages]
    found = {(row.language, row.method): row.mean for row in rows}
    evaluated = [code for code in config.languages if all((code, method) in found for method in METHODS)]
    means = {code: [_mean_distance(reader, method.value, code) for method in QUANTILE_METHODS] for code in evaluated}
    distances = {code: [each for each in by if each is not None] for code, by in means.items() if None not in by}
    complete = tuple(distances)
    measures = []
    for name in PRIMARY:
        table = {code: [found[code, method].value(name) for method in METHODS] for code in complete}
        usable = {code: np.array(values, np.float64) for code, values in table.items() if None not in values}
        if usable:
            chance = {code: found[code, OWN_ROWS].chance or 0.0 for code in usable} if name == "probability" else {}
            measures.append(build_measure(name, usable, distances, chance))
    return QuantileResults(complete, tuple(measures), tuple(code for code in config.languages if code not in complete))


def _mean_distance(reader: RunReader, method: str, language: str) -> float | None:
    """Mean distance of the added rows of a method; None if it added none."""
    table = reader.selected_table(method, language)
    scores = table["score"].drop_null().to_numpy() if table is not None else np.zeros(0)
    return float(1.0 - scores.mean()) if len(scores) else None


def build_measure(
    name: str, values: Mapping[str, np.ndarray], distances: Mapping[str, Sequence[float]], chance: Mapping[str, float]
) -> QuantileMeasure:
    """One measure by language, float64[6] in the order of `METHODS`, with the trend over the five quantiles.

    ``chance`` has the chance level by language, or is empty.
    """
    table = np.array(list(values.values()), np.float64)
    sign = 1.0 if name in LOWER_IS_BETTER else -1.0
    trends = {code: measure_trend(sign * each[1:]) for code, each in values.items()}
    rows = [_row(quantile, values, table[:, quantile], distances) for quantile in range(len(METHODS))]
    trends = {**trends, MEAN: measure_trend(sign * table[:, 1:])}
    mean = {MEAN: float(np.mean(list(chance.values())))} if chance else {}
    return QuantileMeasure(name, tuple(rows), trends, {**chance, **mean})


def _row(
    quantile: int, values: Mapping[str, np.ndarray], column: np.ndarray, distances: Mapping[str, Sequence[float]]
) -> QuantileRow:
    far = {code: float(distances[code][quantile - 1]) for code in values} if quantile else {}
    by_language = {code: float(value) for code, value in zip(values, column, strict=True)}
    return QuantileRow(
        quantile, float(np.mean(list(far.values()))) if far else None, far, {**by_language, MEAN: float(column.mean())}
    )


def table_of(found: QuantileMeasure) -> tuple[str, list[tuple[str, ...]]]:
    """Title and rows, header first, of a measure: the fifths, and below them rank correlation and p-value."""
    codes = [*(code for code in found.trends if code != MEAN), MEAN]
    better = "lower" if found.measure in LOWER_IS_BETTER else "higher"
    title = f"{_LABELS[found.measure]} by distance of the added rows to the guide set ({better} is better)"
    body = [
        (
            f"quantile {row.quantile}" if row.quantile else "own rows only",
            "–" if row.distance is None else f"{row.distance:.3f}",
            *(f"{row.values[code]:.4f}" for code in codes),
        )
        for row in found.rows
    ]
    return title, [
        ("added rows", "mean distance", *(MEAN if code == MEAN else language_name(code) for code in codes)),
        *body,
        *([("chance", "", *(f"{found.chance[code]:.4f}" for code in codes))] if found.chance else []),
        ("rank correlation", "", *(_format_correlation(found.trends[code]) for code in codes)),
        ("exact p, one-sided", "", *(f"{found.trends[code].p_value:.2g}" for code in codes)),
    ]


def describe(found: QuantileResults) -> list[str]:
    """The outcome in sentences, from the trend over languages of each measure."""
    lines = [_describe_trend(each) for each in found.measures]
    if found.missing:
        lines.append(f"Not measured in all quantiles: {', '.join(found.missing)}.")
    return lines


def _describe_trend(found: QuantileMeasure) -> str:
    trend, languages = found.trends[MEAN], len(found.trends) - 1
    verdict = "it gets worse with distance" if trend.p_value < 0.05 else "no trend with distance at the 5% level"
    places = "1 language" if languages == 1 else f"{languages} languages"
    label = _LABELS[found.measure]
    return f"{label}: {verdict} (mean rank correlation {_format_correlation(trend)} in {places}, p = {trend.p_value:.2g})."


def _format_correlation(trend: QuantileTrend) -> str:
    return "–" if trend.correlation is None else f"{trend.correlation:+.2f}"
