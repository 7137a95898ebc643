"""False alarm rate of a drift check without drift: permutation test and fixed threshold, by number of clusters.

Windows and references are drawn from one distribution, so every alarm is false. The p-value is computed by the package. It is
exact over references and windows together (COMPASS, section 3.3.2, has a fixed threshold instead). For a single reference, the
rate depends on how representative that reference is; the record shows this spread. One check is measured, without the
persistence, minimum divergence and cool-down of the trigger.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from benchmarks.record import Record, Value, parser, write_record
from compass_ray.core.array_checks import FloatArray
from compass_ray.core.permutation import RESAMPLES, permutation_test
from compass_ray.core.seeds import generator

THRESHOLD = 0.15
RATE = 0.01


def windows(p: FloatArray, count: int, sizes: tuple[int, int], resamples: int, rng: np.random.Generator) -> dict[str, Value]:
    """Rates over windows, each with its own reference."""
    tests = [
        permutation_test(rng.multinomial(sizes[0], p), rng.multinomial(sizes[1], p), resamples=resamples, rng=rng)
        for _ in range(count)
    ]
    bits = np.array([test.divergence for test in tests])
    return {
        "false_alarm_rate": float(np.mean([test.p_value <= RATE for test in tests])),
        "deviation_by_chance_alone": float(np.sqrt(RATE * (1 - RATE) / count)),
        "above_threshold_rate": float(np.mean(bits > THRESHOLD)),
        "mean_divergence_bits": float(bits.mean()),
    }


def references(
    p: FloatArray, count: int, each: int, sizes: tuple[int, int], resamples: int, rng: np.random.Generator
) -> dict[str, Value]:
    """Spread of the rate over references, each compared with many windows."""
    rates = []
    for _ in range(count):
        reference = rng.multinomial(sizes[0], p)
        tests = (
            permutation_test(reference, rng.multinomial(sizes[1], p), resamples=resamples, rng=rng).p_value for _ in range(each)
        )
        rates.append(float(np.mean([value <= RATE for value in tests])))
    return {
        "mean": float(np.mean(rates)),
        "deviation": float(np.std(rates)),
        "deviation_by_chance_alone": float(np.sqrt(RATE * (1 - RATE) / each)),
        "highest": max(rates),
        "share_above_two_per_cent": float(np.mean(np.array(rates) > 0.02)),
    }


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--bins", nargs="+", type=int, default=[20, 64, 300])
    options.add_argument("--windows", type=int, default=4000, help="windows with their own reference")
    options.add_argument("--references", type=int, default=30, help="fixed references")
    options.add_argument("--each", type=int, default=100, help="windows compared with each fixed reference")
    options.add_argument("--sizes", nargs=2, type=int, default=[285, 300], help="prompts of a reference and of a window")
    options.add_argument("--seeds", nargs=1, type=int, default=[0])
    return options.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = _arguments(argv)
    if arguments.small:
        arguments.bins, arguments.windows, arguments.references, arguments.each = [20], 20, 2, 10
    sizes, resamples = (arguments.sizes[0], arguments.sizes[1]), RESAMPLES
    numbers: dict[str, Value] = {}
    for bins in arguments.bins:
        rng = generator(arguments.seeds[0], "calibration", bins)
        p = rng.dirichlet(np.ones(bins))
        redrawn = windows(p, arguments.windows, sizes, resamples, rng)
        fixed = references(p, arguments.references, arguments.each, sizes, resamples, rng)
        numbers[f"{bins}_bins"] = {"reference_redrawn": redrawn, "reference_fixed": fixed}
    used: dict[str, Value] = {
        "windows": arguments.windows,
        "references": arguments.references,
        "windows_of_each": arguments.each,
        "reference_prompts": sizes[0],
        "window_prompts": sizes[1],
        "resamples": resamples,
        "nominal_rate": RATE,
        "fixed_threshold_bits": THRESHOLD,
    }
    return write_record("paper/drift_calibration", arguments, seeds=arguments.seeds, settings=used, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
