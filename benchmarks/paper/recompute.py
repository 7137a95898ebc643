"""The main table of the evidence again, from the files of items alone: an independent check of the analysis.

Written apart from the analysis and shares nothing with it: no code of the package, loops instead of arrays, and p-values from all
flips of signs one by one. Prints each claim with its difference, interval, p-value and corrected p-value in both measures. Leaves
out languages by the rule of the protocol, and refuses files of an evaluation that were not made under the protocol's hash.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from scipy.stats import t as student

HERE = Path(__file__).parent
MEASURES = ("bits_per_byte", "probability")


def recompute(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Print the table; returns its rows."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--try", dest="attempt", default="evaluation", help="a try of the protocol (default: evaluation)")
    options.add_argument("--folder", type=Path, default=HERE.parent / "results" / "paper" / "evidence", help="measurements")
    options.add_argument("--protocol", type=Path, default=HERE / "protocol.yaml", help="the protocol (default: %(default)s)")
    arguments = options.parse_args(argv)
    content = arguments.protocol.read_bytes()
    protocol, evaluation = yaml.safe_load(content), arguments.attempt.partition("_")[0] == "evaluation"
    languages = protocol["languages"]["evaluation" if evaluation else "development"]
    languages = protocol["tries"][arguments.attempt].get("languages", languages)
    files = sorted(path for code in languages for path in (arguments.folder / arguments.attempt / code).glob("*-s*.parquet"))
    if evaluation:
        check_footers(files, hashlib.sha256(content).hexdigest())
    values = read_values(files)
    excluded = excluded_languages(values, protocol["seeds"][0])
    values = {key: value for key, value in values.items() if key[0] not in excluded}
    print(f"left out: {', '.join(sorted(excluded)) or 'no language'}")
    rows = []
    for measure in MEASURES:
        claims = list(itertools.product(protocol["claims"]["methods"], protocol["claims"]["against"]))
        found = [claim_row(values, a, b, measure) for a, b in claims]
        for number, corrected in enumerate(holm([row["p"] if row else 1.0 for row in found])):
            if row := found[number]:
                rows.append({**row, "corrected": corrected})
    for row in rows:
        print(
            f"{row['measure']:14} {row['a']} - {row['b']}: {row['mean']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}] "
            f"p {row['p']:.4f} corrected {row['corrected']:.4f} languages {row['languages']}"
        )
    return rows


def check_footers(files: Sequence[Path], protocol: str) -> None:
    """Refuse small tests and measurements under another hash of the protocol."""
    for file in files:
        footer = json.loads(pq.read_schema(file).metadata[b"evidence"])
        if footer["protocol"] != protocol or footer.get("small"):
            raise SystemExit(f"{file} was made under the protocol {footer['protocol']}, small: {footer.get('small')}; remove it")


Items = dict[str, tuple[str, float]]
"""By sample_id: the family and a value."""
Values = dict[tuple[str, str, int], dict[str, Items]]
"""By language, method and seed, then by measure; items of thinned subjects only."""


def read_values(files: Sequence[Path]) -> Values:
    """Both measures, and ``above_chance``: the probability less that of a uniform choice."""
    values: Values = {}
    for file in files:
        method, _, seed = file.stem.rpartition("-s")
        own: dict[str, Items] = {measure: {} for measure in (*MEASURES, "above_chance")}
        items = pq.read_table(file.with_name("items.parquet")).to_pylist()
        for item, score in zip(items, pq.read_table(file).to_pylist(), strict=True):
            if item["thinned"]:
                per_byte = [total / size for total, size in zip(score["sums"], item["bytes"], strict=True)]
                gold, whole = item["answer"], math.fsum(math.exp(each - max(per_byte)) for each in per_byte)
                right = math.exp(per_byte[gold] - max(per_byte)) / whole
                own["bits_per_byte"][item["sample_id"]] = (item["family"], per_byte[gold] / math.log(2))  # more is better
                own["probability"][item["sample_id"]] = (item["family"], right)
                own["above_chance"][item["sample_id"]] = (item["family"], right - 1 / len(per_byte))
        values[file.parent.name, method, int(seed)] = own
    return values


def excluded_languages(values: Values, seed: int) -> set[str]:
    """Languages in which neither zero_shot nor target is above chance; none if that would be all."""
    languages = {key[0] for key in values}
    low = {
        code: [lower_end(values[code, name, seed]["above_chance"]) for name in ("zero_shot", "target")]
        for code in languages
        if all((code, name, seed) in values for name in ("zero_shot", "target"))
    }
    found = {code for code, ends in low.items() if max(ends) <= 0.0}
    return set() if found == languages else found


def lower_end(items: Items) -> float:
    """Lower end of the 95% interval over items of the mean over families."""
    families = defaultdict(list)
    for family, value in items.values():
        families[family].append(value)
    variance = math.fsum(statistics.variance(each) / len(each) for each in families.values() if len(each) > 1)
    return family_mean(items) - statistics.NormalDist().inv_cdf(0.975) * math.sqrt(variance) / len(families)


def claim_row(values: dict[Any, Any], a: str, b: str, measure: str) -> dict[str, Any] | None:
    """The contrast of two methods over the languages that have both; None if there are none."""
    languages: dict[str, dict[str, tuple[str, float]]] = {}
    for language in sorted({key[0] for key in values}):
        seeds = [seed for code, method, seed in values if (code, method) == (language, a) and (language, b, seed) in values]
        if seeds:
            pairs = [(values[language, a, s][measure], values[language, b, s][measure]) for s in seeds]
            languages[language] = {
                item: (family, statistics.fmean(x[item][1] - y[item][1] for x, y in pairs))
                for item, (family, _) in pairs[0][0].items()
            }
    if not languages:
        return None
    means = {language: family_mean(items) for language, items in languages.items()}
    low, high = interval(languages, means)
    return {
        "measure": measure, "a": a, "b": b, "mean": statistics.fmean(means.values()), "low": low, "high": high,
        "p": flip_p(list(means.values())), "languages": len(means),
    }  # fmt: skip


def family_mean(items: dict[str, tuple[str, float]]) -> float:
    """Mean over families of the mean over their items."""
    by_family = defaultdict(list)
    for family, value in items.values():
        by_family[family].append(value)
    return statistics.fmean(statistics.fmean(each) for each in by_family.values())


def interval(languages: dict[str, dict[str, tuple[str, float]]], means: dict[str, float]) -> tuple[float, float]:
    """95% interval: variance between languages, plus what pairs of languages have in common through shared items."""
    n = len(means)
    if n < 2:
        return (math.nan, math.nan)
    between = statistics.variance(means.values()) / n
    influence = defaultdict(list)
    for items in languages.values():
        families = defaultdict(list)
        for family, value in items.values():
            families[family].append(value)
        for item, (family, value) in items.items():
            own = value - statistics.fmean(families[family])
            influence[item].append(own / (len(families[family]) * len(families) * n))
    shared = math.fsum(x * y for each in influence.values() for x, y in itertools.permutations(each, 2)) * n / (n - 1)
    total = between + max(shared, 0.0)
    freedom = (n - 1) * (total / between) ** 2 if between else 1e9
    half = float(student.ppf(0.975, freedom)) * math.sqrt(total)
    mean = statistics.fmean(means.values())
    return (mean - half, mean + half)


def flip_p(differences: list[float]) -> float:
    """Share of all flips of signs whose mean is at least as far from 0."""
    observed = abs(math.fsum(differences)) * (1 - 1e-12)
    flips = list(itertools.product((-1, 1), repeat=len(differences)))
    return sum(abs(math.fsum(s * d for s, d in zip(f, differences, strict=True))) >= observed for f in flips) / len(flips)


def holm(p_values: list[float]) -> list[float]:
    """Corrected by Holm's step-down procedure."""
    order, corrected, largest = sorted(range(len(p_values)), key=lambda i: p_values[i]), [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


if __name__ == "__main__":
    recompute()
