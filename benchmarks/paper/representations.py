"""Targeting over true subjects by representation: a sentence encoder, and the hidden states of the base model itself.

The states are those of RDS+ (arXiv 2503.01807): the last layer, weighted by position. Both representations are clustered alike,
on the same rows of the development languages. Nothing is trained (COMPASS, sections 3.2.1 to 3.2.3).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.paper.clusters_on_real_embeddings import (
    DEVELOPMENT,
    GUIDE_OPTIONS,
    RULES,
    Case,
    Embedded,
    Float32,
    cluster_by_product,
    describe,
    embed_sample,
    make_case,
    random_rows,
    round_robin,
    select,
    summarize_bits,
)
from benchmarks.paper.kit_sample import KitSample, SampleSize, Texts, embed_texts, read_atlas, read_kit
from benchmarks.record import Record, Value, parser, without_cache, write_record
from compass_ray.config import EmbedConfig
from compass_ray.core.array_checks import unit_rows

CLUSTERS = 96
DIMENSIONS: Sequence[int] = (15, 30, 50)
"""Whitened dimensions that clusters see; 15 is the presets' choice for sentence encoders."""


def without_language_means(data: Embedded) -> Embedded:
    """The same with the mean of each language's pool rows subtracted, as the states of a language model differ by language."""
    codes = np.array(data.sample.pool.languages)
    means = {code: data.pool[codes == code].mean(0) for code in np.unique(codes)}

    def centre(vectors: Float32, texts: Texts) -> Float32:
        return unit_rows(vectors - np.stack([means[code] for code in texts.languages]))

    guides = data.sample.guides
    centred = replace(data, pool=centre(data.pool, data.sample.pool), guides=centre(data.guides, guides))
    return replace(centred, with_options=centre(data.with_options, guides)) if len(data.with_options) else centred


def measure(data: Embedded, cases: Sequence[Case], clusters: int, dimensions: Sequence[int]) -> dict[str, Value]:
    """Clusters, and bits over true subjects, of one representation; also with options of guide prompts if they are embedded."""
    weights = (0.0, GUIDE_OPTIONS) if len(data.with_options) else (0.0,)
    before, floor = [case.bits(np.zeros(0, np.int64)) for case in cases], [case.floor() for case in cases]
    bits = {"before": before, "random": [case.bits(random_rows(case)) for case in cases], "floor": floor}
    described: dict[str, Value] = {}
    for width in dimensions:
        fitted = cluster_by_product(method="kmeans", n_clusters=(clusters,), pca_dims=width, whiten=True)(data)
        described[f"whitened_{width}"] = describe(fitted.label(data.guides), data)
        for weight in weights:
            shown = data.mix_options(weight) if weight else data
            labels = fitted.label(shown.guides)
            rows = [select(case, shown, labels, RULES["deficit_nearest"]) for case in cases]
            name = f"whitened_{width}, options {weight:g}"
            bits[name] = [case.bits(added) for case, added in zip(cases, rows, strict=True)]
    for weight in weights:
        shown = data.mix_options(weight) if weight else data
        bits[f"round_robin, options {weight:g}"] = [case.bits(round_robin(case, shown)) for case in cases]
    targeting = {name: summarize_bits(cases, values, before, floor) for name, values in bits.items()}
    return {"clusters": described, "targeting": targeting}


def encoders(small: bool) -> dict[str, EmbedConfig]:
    """The representations by name."""
    if small:
        return {"atlas": EmbedConfig(encoder="atlas"), "atlas base model": EmbedConfig(encoder=_base(), pooling="weightedmean")}
    models = Path(os.environ["COMPASS_REAL_MODELS"])
    e5 = EmbedConfig(encoder=str(models / "e5-small"), prompt_prefix="query: ", max_tokens=128, dtype="bfloat16")
    gemma = EmbedConfig(encoder=str(models / "gemma-3-270m"), pooling="weightedmean", max_tokens=128, dtype="bfloat16")
    return {"e5-small": e5, "gemma-3-270m, last layer weighted by position": gemma}


def _embed(sample: KitSample, config: EmbedConfig, cache: Path | None) -> Embedded:
    """The sample with its vectors; those of a language model, which cost more, without options of guide prompts."""
    if config.pooling is None:
        return embed_sample(sample, config, cache)
    return Embedded(sample, *(embed_texts(texts, config, cache) for texts in (sample.pool, sample.guides)))


def _base() -> str:
    from compass_ray.models.model_resolver import resolve_model

    return resolve_model("atlas", "base_model")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--cache", type=Path, help="folder for vectors, so that a repetition embeds nothing")
    options.add_argument("--targets", nargs="+", default=DEVELOPMENT)
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--own-rows", type=int, default=200)
    options.add_argument("--other-rows", type=int, default=1_500)
    options.add_argument("--rows", nargs=2, type=int, default=[300, 20], metavar=("TARGET", "OTHER"))
    return options.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Record:
    """Measure, and write the record."""
    arguments = _arguments(argv)
    clusters, dimensions = (12, DIMENSIONS[:1]) if arguments.small else (CLUSTERS, DIMENSIONS)
    if arguments.small:
        arguments.own_rows, arguments.other_rows, arguments.seeds = 40, 200, [0]
        sample = read_atlas()
    else:
        of_target, of_other = arguments.rows
        sample = read_kit(Path(os.environ["COMPASS_SHARED_DATA"]), arguments.targets, SampleSize(of_target, of_other, 0))
    targets = dict.fromkeys(sample.guides.languages)
    numbers: dict[str, Value] = {}
    for name, config in encoders(arguments.small).items():
        data = _embed(sample, config, arguments.cache)
        cases = [make_case(data, c, seed, arguments.own_rows, arguments.other_rows) for c in targets for seed in arguments.seeds]
        numbers[name] = measure(data, cases, clusters, dimensions)
        numbers[f"{name}, without language means"] = measure(without_language_means(data), cases, clusters, dimensions)
    settings: dict[str, Value] = {
        "pool_rows": len(sample.pool),
        "guide_prompts": len(sample.guides),
        "own_rows": arguments.own_rows,
        "other_rows": arguments.other_rows,
        "clusters": clusters,
        "guide_options": GUIDE_OPTIONS,
    }
    words = without_cache(argv)
    return write_record("paper/representations", arguments, seeds=arguments.seeds, settings=settings, numbers=numbers, argv=words)


if __name__ == "__main__":
    main()
