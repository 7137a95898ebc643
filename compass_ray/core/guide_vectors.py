"""Vectors of guide prompts that count the options of a question, because rows of a pool contain theirs.

Key property: the vector of the prompt alone stays available. Traffic is compared with that one.
"""

from compass_ray.core.array_checks import BoolArray, Float32Array, unit_rows


def add_options(prompts: Float32Array, with_options: Float32Array, has_options: BoolArray, weight: float) -> Float32Array:
    """Unit rows float32[n, d]: each prompt plus ``weight`` times the prompt with its options.

    Args:
        prompts: unit rows float32[n, d] of the prompts alone.
        with_options: unit rows float32[m, d] of the prompts that have options, in their order.
        has_options: bool[n] with m true values. Other prompts keep their vector.
        weight: 0 or more.

    >>> import numpy as np
    >>> add_options(np.eye(2, dtype=np.float32), np.array([[0, 1]], np.float32), np.array([True, False]), 1.0).round(2).tolist()
    [[0.7099999785423279, 0.7099999785423279], [0.0, 1.0]]
    """
    mixed = prompts.copy()
    if has_options.any() and weight:
        mixed[has_options] = unit_rows(prompts[has_options] + weight * with_options)
    return mixed
