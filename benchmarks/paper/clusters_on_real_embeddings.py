"""Clusters and targeting on the embeddings of a toy and of a real encoder, where true subjects are known.

For each clusterer: sizes, noise, agreement with kinds of subject and with languages, and whether translations of one item meet.
For each rule of selection: the divergence of training rows from guide prompts over the *true* subjects, which no rule sees, and
its share of the way from before to the floor. Nothing is trained (COMPASS, sections 3.2.1 to 3.2.3).
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.paper.kit_sample import KitSample, SampleSize, Texts, embed_texts, read_atlas, read_kit
from benchmarks.record import Record, Value, parser, without_cache, write_record
from compass_ray.clustering import fit_clusters
from compass_ray.clustering.centroid_clusterer import assign_nearest, prepare_points
from compass_ray.clustering.centroids import spherical_means
from compass_ray.clustering.pca import fit_pca
from compass_ray.config import ClusterConfig, EmbedConfig
from compass_ray.core.array_checks import IntArray
from compass_ray.core.bias_simulation import simulate_bias
from compass_ray.core.cluster_weights import Weighting
from compass_ray.core.degeneracy import effective_clusters, largest_share
from compass_ray.core.distribution import cluster_counts, js_divergence
from compass_ray.core.guide_vectors import add_options
from compass_ray.core.instance_scores import pool_scores
from compass_ray.core.quotas import allocate_quotas, budget_rows
from compass_ray.core.sampling import SamplingMode
from compass_ray.core.seeds import generator
from compass_ray.core.selection import Candidates, SelectionRule, select_rows
from compass_ray.languages import GLOBAL_MMLU

Float32 = npt.NDArray[np.float32]

DEVELOPMENT = ("de", "id", "ha", "ja", "te")
EVALUATION = ("ru", "zh", "tr", "hi", "ko", "el", "uk", "he", "sw", "yo", "am", "ky")
BUDGET = 0.8
P_LOW, KEEP = 0.3, 0.2
DIMENSIONS = 30
CHOICE = "kmeans_96_whitened"
GUIDE_OPTIONS = 0.5
"""Weight of the options of guide prompts in the presets with real encoders."""
WEIGHTS = (0.25, GUIDE_OPTIONS, 0.75, 1.0)
RULES = {
    "ratio_stochastic": SelectionRule(budget=BUDGET),
    "deficit_stochastic": SelectionRule(budget=BUDGET, weights=Weighting.DEFICIT),
    "deficit_nearest": SelectionRule(budget=BUDGET, weights=Weighting.DEFICIT, mode=SamplingMode.NEAREST),
}
"""The paper's rule, the rule with its gaps filled as far as the budget allows, and the default of presets with real encoders."""


@dataclass(frozen=True)
class Labels:
    """Clusters of pool rows int[n] and guide prompts int[m], -1 for noise, and centroids float32[K, d]."""

    pool: IntArray
    guides: IntArray
    centroids: Float32


@dataclass(frozen=True)
class Fitted:
    """Clusters of pool rows int[n], centroids float32[K, d], and what assigns guide prompts float32[m, d] to clusters."""

    pool: IntArray
    centroids: Float32
    assign: Callable[[Float32], npt.NDArray[np.signedinteger[Any]]]

    def label(self, guides: Float32) -> Labels:
        """The clusters with those of guide prompts float32[m, d]."""
        return Labels(self.pool, self.assign(guides).astype(np.int64), self.centroids)


@dataclass(frozen=True)
class Embedded:
    """The sample, with vectors of its pool float32[n, d], of its guides float32[m, d], and of its guides with options."""

    sample: KitSample
    pool: Float32
    guides: Float32
    with_options: Float32 = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """Empty where no option is used."""

    def mix_options(self, weight: float) -> Embedded:
        """The same with guide vectors that count options."""
        every = np.ones(len(self.guides), np.bool_)
        return replace(self, guides=add_options(self.guides, self.with_options, every, weight))


Clustering = Callable[[Embedded], Fitted]


def cluster_by_product(**settings: object) -> Clustering:
    """A clustering by the package."""
    config = ClusterConfig.model_validate({"backend": "cpu", "n_init": 1, "sweep_rows": 6_000, **settings})

    def fit(data: Embedded) -> Fitted:
        fitted = fit_clusters(config, data.pool, seed=0, strata=data.sample.pool.languages)
        clusterer = fitted.clusterer
        return Fitted(fitted.labels.astype(np.int64), clusterer.centroids, clusterer.assign)

    return fit


def _without_language_means(fit: Clustering) -> Clustering:
    """Subtract the mean of each language's pool rows before the fit."""

    def centred(data: Embedded) -> Fitted:
        codes = np.array(data.sample.pool.languages)
        means = {code: data.pool[codes == code].mean(0) for code in np.unique(codes)}

        def centre(vectors: Float32, texts: Texts) -> Float32:
            return prepare_points(vectors - np.stack([means[code] for code in texts.languages]), "cosine")

        found = fit(replace(data, pool=centre(data.pool, data.sample.pool)))
        centroids = spherical_means(data.pool, found.pool.astype(np.int32), np.ones(len(codes), np.float32))
        return Fitted(found.pool, centroids, lambda guides: found.assign(centre(guides, data.sample.guides)))

    return centred


def _hdbscan_leaf(data: Embedded) -> Fitted:
    """Leaves of HDBSCAN's tree; noise and guide prompts join the nearest centre in the reduced space."""
    from sklearn.cluster import HDBSCAN

    reduction = fit_pca(data.pool, DIMENSIONS)
    points = reduction(data.pool)
    leaves = HDBSCAN(min_cluster_size=5, min_samples=1, cluster_selection_method="leaf", copy=True).fit_predict(points)
    centres = np.stack([points[leaves == k].mean(0) for k in range(leaves.max() + 1)])
    labels = assign_nearest(points, centres)
    centroids = spherical_means(data.pool, labels, np.ones(len(points), np.float32))
    return Fitted(labels.astype(np.int64), centroids, lambda guides: assign_nearest(reduction(guides), centres))


def clusterings(small: bool) -> dict[str, Clustering]:
    """All clusterings by name."""
    if small:
        return {CHOICE: cluster_by_product(method="kmeans", n_clusters=(12,), pca_dims=16)}
    return {
        "hdbscan": cluster_by_product(method="hdbscan"),
        "hdbscan_5_1": cluster_by_product(method="hdbscan", min_cluster_size=(5,), min_samples=(1,)),
        "hdbscan_15_5": cluster_by_product(method="hdbscan", min_cluster_size=(15,), min_samples=(5,)),
        "hdbscan_leaf_nearest_centre": _hdbscan_leaf,
        "kmeans_by_silhouette": cluster_by_product(method="kmeans"),
        **{f"kmeans_{k}": cluster_by_product(method="kmeans", n_clusters=(k,)) for k in (48, 96, 192)},
        "kmeans_192_without_language_means": _without_language_means(cluster_by_product(method="kmeans", n_clusters=(192,))),
        CHOICE: cluster_by_product(method="kmeans", n_clusters=(96,), pca_dims=15, whiten=True),
        "kmeans_192_whitened": cluster_by_product(method="kmeans", n_clusters=(192,), pca_dims=15, whiten=True),
        "hdbscan_whitened": cluster_by_product(method="hdbscan", pca_dims=15, whiten=True),
    }


def describe(labels: Labels, data: Embedded) -> dict[str, Value]:
    """Sizes, noise and agreement of one clustering. Noise counts as a cluster of its own in mutual information."""
    from sklearn.metrics import adjusted_mutual_info_score

    pool, sizes = data.sample.pool, np.bincount(labels.pool[labels.pool >= 0], minlength=len(labels.centroids))
    kinds = [subject.split("_")[0] for subject in pool.subjects]
    found: dict[str, Value] = {
        "clusters": len(labels.centroids),
        "noise": float(np.mean(labels.pool < 0)),
        "noise_of_guides": float(np.mean(labels.guides < 0)),
        "largest_share": largest_share(sizes),
        "effective_clusters": effective_clusters(sizes),
        "ami_kind": float(adjusted_mutual_info_score(kinds, labels.pool)),
        "ami_subject": float(adjusted_mutual_info_score(pool.subjects, labels.pool)),
        "ami_language": float(adjusted_mutual_info_score(pool.languages, labels.pool)),
    }
    pairs = parallel_pairs_together(pool, labels.pool)
    return found if pairs is None else found | {"parallel_pairs_together": pairs}


def parallel_pairs_together(texts: Texts, labels: IntArray) -> float | None:
    """Share of the pairs of rows of one item in two languages that are in one cluster; None without such pairs."""
    items: dict[str, dict[str, int]] = defaultdict(dict)
    for item, code, label in zip(texts.items, texts.languages, labels.tolist(), strict=True):
        if item:
            items[item].setdefault(code, label)
    together = total = 0
    for members in items.values():
        counts = np.unique([label for label in members.values() if label >= 0], return_counts=True)[1]
        together += int((counts * (counts - 1) // 2).sum())
        total += len(members) * (len(members) - 1) // 2
    return together / total if total else None


@dataclass(frozen=True)
class Case:
    """One target language and seed: rows of the pool int[], guide prompts int[], and true subjects as numbers."""

    language: str
    seed: int
    own: IntArray
    others: IntArray
    guide: IntArray
    subjects: IntArray
    guide_subjects: IntArray

    @property
    def budget(self) -> int:
        """Rows to add."""
        return budget_rows(BUDGET, len(self.own))

    def bits(self, added: IntArray) -> float:
        """Divergence over true subjects of guide prompts from own rows and added rows of the pool."""
        return js_divergence(self._counts(self.guide_subjects), self._counts(self.subjects[np.r_[self.own, added]]))

    def floor(self) -> float:
        """The divergence with quotas by deficit over the true subjects."""
        own, others = self._counts(self.subjects[self.own]), self._counts(self.subjects[self.others])
        guide, rng = self._counts(self.guide_subjects), generator(self.seed, "floor", self.language)
        quota = allocate_quotas(own, others, guide, self.budget, weights=Weighting.DEFICIT, rng=rng)
        return js_divergence(guide, own + quota)

    def _counts(self, subjects: IntArray) -> IntArray:
        return np.bincount(subjects, minlength=int(max(self.subjects.max(), self.guide_subjects.max())) + 1).astype(np.int64)


def make_case(data: Embedded, language: str, seed: int, own_rows: int, other_rows: int) -> Case:
    """Thin some subjects of a language, and draw its own rows and the candidates of other languages."""
    pool, guides, rng = data.sample.pool, data.sample.guides, generator(seed, "case", language)
    codes = np.array(pool.languages)
    own, others = np.flatnonzero(codes == language), np.flatnonzero(codes != language)
    own = own[simulate_bias([pool.subjects[i] for i in own], p_low=P_LOW, keep=KEEP, rng=rng).kept]
    guide = np.flatnonzero(np.array(guides.languages) == language)
    names = {name: number for number, name in enumerate(sorted({*pool.subjects, *guides.subjects}))}
    return Case(
        language,
        seed,
        np.sort(rng.permutation(own)[:own_rows]),
        np.sort(rng.permutation(others)[:other_rows]),
        guide,
        np.array([names[each] for each in pool.subjects]),
        np.array([names[guides.subjects[i]] for i in guide]),
    )


def select(case: Case, data: Embedded, labels: Labels, rule: SelectionRule) -> IntArray:
    """Pool rows that a rule adds by the product's own selection."""
    scores = pool_scores(data.pool[case.others], labels.pool[case.others], labels.centroids)
    candidates = Candidates(
        labels.pool[case.others],
        scores.proto,
        scores.margin_raw,
        lambda at: data.pool[case.others[at]],
        data.guides[case.guide],
    )
    chosen = select_rows(
        labels.pool[case.own],
        labels.guides[case.guide],
        candidates,
        len(labels.centroids),
        rule,
        seed=case.seed,
        language=case.language,
    )
    return case.others[chosen.rows.index]


def round_robin(case: Case, data: Embedded) -> IntArray:
    """Without clusters: the guide prompt with the fewest rows, own ones included, takes its nearest unused row."""
    prompts = data.guides[case.guide]
    covered = np.bincount((data.pool[case.own] @ prompts.T).argmax(1), minlength=len(prompts))
    similarity, taken = data.pool[case.others] @ prompts.T, []
    for _ in range(case.budget):
        prompt = int(covered.argmin())
        taken.append(int(similarity[:, prompt].argmax()))
        similarity[taken[-1]] = -np.inf
        covered[prompt] += 1
    added: IntArray = case.others[np.array(taken)]
    return added


def random_rows(case: Case) -> IntArray:
    """Rows drawn uniformly."""
    drawn: IntArray = generator(case.seed, "random", case.language).choice(case.others, case.budget, replace=False)
    return drawn


def measure_targeting(
    cases: Sequence[Case], data: Embedded, found: Mapping[str, Fitted], weights: Sequence[float] = (GUIDE_OPTIONS,)
) -> dict[str, dict[str, Value]]:
    """Bits over true subjects and share of the way to the floor for each clustering and rule: mean, and by language.

    The clustering `CHOICE` and round robin are also measured with the options of guide prompts, for each of ``weights``.
    """
    before, floor = [case.bits(np.zeros(0, np.int64)) for case in cases], [case.floor() for case in cases]
    bits = {"before": before, "random": [case.bits(random_rows(case)) for case in cases]}
    bits |= _select_with_each(cases, data, found, RULES, "")
    for weight in weights:
        of_weight = {name: RULES[name] for name in RULES if weight == GUIDE_OPTIONS or name == "deficit_nearest"}
        bits |= _select_with_each(cases, data.mix_options(weight), {CHOICE: found[CHOICE]}, of_weight, f", options {weight:g}")
    bits["floor"] = floor
    return {name: summarize_bits(cases, values, before, floor) for name, values in bits.items()}


def _select_with_each(
    cases: Sequence[Case], data: Embedded, found: Mapping[str, Fitted], rules: Mapping[str, SelectionRule], suffix: str
) -> dict[str, list[float]]:
    """Bits of round robin, and of each clustering with each rule, for the guide vectors of ``data``."""
    bits = {f"round_robin_over_guide_prompts{suffix}": [case.bits(round_robin(case, data)) for case in cases]}
    for name, fitted in found.items():
        labels = fitted.label(data.guides)
        for rule in rules:
            bits[f"{name}, {rule}{suffix}"] = [case.bits(select(case, data, labels, rules[rule])) for case in cases]
    return bits


def measure_reference(cases: Sequence[Case], data: Embedded, fitted: Fitted) -> dict[str, Value]:
    """What a drift reference would be if it counted options: guide prompts in another cluster, and the divergence in bits."""
    alone, mixed = fitted.label(data.guides).guides, fitted.label(data.mix_options(GUIDE_OPTIONS).guides).guides
    languages, k = {case.language: case.guide for case in cases}, len(fitted.centroids)
    bits = [js_divergence(cluster_counts(alone[rows], k), cluster_counts(mixed[rows], k)) for rows in languages.values()]
    return {"moved_share": float(np.mean(alone != mixed)), "bits": float(np.mean(bits)), "highest_bits": float(np.max(bits))}


def summarize_bits(cases: Sequence[Case], bits: list[float], before: list[float], floor: list[float]) -> dict[str, Value]:
    """Mean bits of the cases, share of the way from ``before`` to ``floor``, and bits by language."""
    by_language: dict[str, list[float]] = defaultdict(list)
    for case, value in zip(cases, bits, strict=True):
        by_language[case.language].append(value)
    share = (np.mean(before) - np.mean(bits)) / max(float(np.mean(before) - np.mean(floor)), 1e-9)
    return {
        "bits": float(np.mean(bits)),
        "way_to_floor": float(share),
        "bits_by_language": {code: float(np.mean(values)) for code, values in by_language.items()},
    }


def measure_gaps(cases: Sequence[Case], data: Embedded, labels: Labels) -> dict[str, Value]:
    """Divergence in bits over the clusters of the default, as in a run's report: before, random, COMPASS."""

    def bits(case: Case, added: IntArray) -> float:
        guide, rows = (cluster_counts(each, k) for each in (labels.guides[case.guide], labels.pool[np.r_[case.own, added]]))
        return js_divergence(guide, rows)

    k, none = len(labels.centroids), np.zeros(0, np.int64)
    methods: dict[str, Callable[[Case], IntArray]] = {
        "before": lambda case: none,
        "random": random_rows,
        "compass": lambda case: select(case, data, labels, RULES["deficit_nearest"]),
    }
    return {
        name: {
            code: float(np.mean([bits(case, take(case)) for case in cases if case.language == code])) for code in _codes(cases)
        }
        for name, take in methods.items()
    }


def _codes(cases: Sequence[Case]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(case.language for case in cases))


def embed_sample(sample: KitSample, config: EmbedConfig, cache: Path | None) -> Embedded:
    """The sample with its vectors."""
    with_options = replace(sample.guides, prompts=sample.guides.with_options)
    return Embedded(sample, *(embed_texts(texts, config, cache) for texts in (sample.pool, sample.guides, with_options)))


def measure(data: Embedded, arguments: argparse.Namespace) -> dict[str, Value]:
    """All numbers of one encoder."""
    found = {name: fit(data) for name, fit in clusterings(arguments.small).items()}
    described = {name: describe(fitted.label(data.guides), data) for name, fitted in found.items()}
    numbers: dict[str, Value] = {"clusters": described}
    targets = tuple(dict.fromkeys(data.sample.guides.languages))
    groups = {
        "development": tuple(code for code in targets if code in DEVELOPMENT),
        "evaluation": tuple(code for code in targets if code in EVALUATION),
        "other": tuple(code for code in targets if code not in (*DEVELOPMENT, *EVALUATION)),
    }
    every: list[Case] = []
    for name, codes in groups.items():
        cases = [
            make_case(data, code, seed, arguments.own_rows, arguments.other_rows) for code in codes for seed in arguments.seeds
        ]
        chosen = {key: found[key] for key in found if name == "development" or key in (CHOICE, "hdbscan")}
        weights = WEIGHTS if name == "development" else (GUIDE_OPTIONS,)
        numbers |= {f"targeting_{name}": measure_targeting(cases, data, chosen, weights)} if cases else {}
        every += cases
    mixed = data.mix_options(GUIDE_OPTIONS)
    return numbers | {
        "gap_in_clusters": measure_gaps(every, mixed, found[CHOICE].label(mixed.guides)),
        "reference_if_options_counted": measure_reference(every, data, found[CHOICE]),
    }


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--cache", type=Path, help="folder for vectors, so that a repetition embeds nothing")
    options.add_argument("--targets", nargs="+", default=GLOBAL_MMLU, help="languages with guide sets (default: all 42)")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    options.add_argument("--own-rows", type=int, default=300)
    options.add_argument("--other-rows", type=int, default=9_000)
    options.add_argument("--rows", nargs=3, type=int, default=[430, 230, 100], metavar=("TARGET", "OTHER", "AUXILIARY"))
    return options.parse_args(argv)


def _encoders(small: bool) -> dict[str, EmbedConfig]:
    toy = {"atlas": EmbedConfig(encoder="atlas")}
    if small:
        return toy
    path = str(Path(os.environ["COMPASS_REAL_MODELS"]) / "e5-small")
    return toy | {"e5-small": EmbedConfig(encoder=path, prompt_prefix="query: ", max_tokens=128, dtype="bfloat16")}


def main(argv: Sequence[str] | None = None) -> Record:
    """Measure, and write the record."""
    arguments = _arguments(argv)
    if arguments.small:
        arguments.own_rows, arguments.other_rows, arguments.seeds, sample = 40, 200, [0], read_atlas()
    else:
        sample = read_kit(Path(os.environ["COMPASS_SHARED_DATA"]), arguments.targets, SampleSize(*arguments.rows))
    numbers: dict[str, Value] = {}
    for name, config in _encoders(arguments.small).items():
        numbers[name] = measure(embed_sample(sample, config, arguments.cache), arguments)
    settings: dict[str, Value] = {
        "pool_rows": len(sample.pool),
        "guide_prompts": len(sample.guides),
        "own_rows": arguments.own_rows,
        "other_rows": arguments.other_rows,
        "budget": BUDGET,
        "p_low": P_LOW,
        "keep": KEEP,
        "guide_options": GUIDE_OPTIONS,
    }
    name = "paper/clusters_on_real_embeddings"
    return write_record(name, arguments, seeds=arguments.seeds, settings=settings, numbers=numbers, argv=without_cache(argv))


if __name__ == "__main__":
    main()
