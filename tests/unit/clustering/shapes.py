"""Rows with known clusters, for the tests of clusterers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Truth = npt.NDArray[np.int64]


def blobs(n: int, k: int = 6, d: int = 24, *, spread: float = 0.1, seed: int = 0) -> tuple[Rows, Truth]:
    """Unit rows around ``k`` directions that are the same for every seed."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    centres = np.random.default_rng(99).normal(size=(k, d))
    rows = centres[truth] / np.linalg.norm(centres[truth], axis=1, keepdims=True) + spread * rng.normal(size=(n, d)) / d**0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), truth


def moons(n: int, *, noise: int, seed: int = 0) -> tuple[Rows, Truth]:
    """Two interleaved half circles, and ``noise`` random rows with truth -1."""
    from sklearn.datasets import make_moons

    rng = np.random.default_rng(seed)
    rows, truth = make_moons(n, noise=0.05, random_state=seed)
    anywhere = rng.uniform((-1.5, -1.0), (2.5, 1.5), size=(noise, 2))
    return np.vstack([rows, anywhere]).astype(np.float32), np.concatenate([truth, np.full(noise, -1)])
