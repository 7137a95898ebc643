"""Seeded random generators by name, so that random numbers of one purpose do not depend on earlier draws.

The key is hashed with SHA-256, because `hash()` differs between processes.
"""

import hashlib

import numpy as np


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A generator that depends only on `seed` and `names`: equal on every worker and in every order of calls.

    >>> bool(generator(0, "select", "sw", 3).random() == generator(0, "select", "sw", 3).random())
    True
    >>> round(generator(0, "select", "sw", 3).random(), 5)
    0.70709
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or more.")
    key = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.default_rng(np.random.SeedSequence([seed, *np.frombuffer(digest, "<u4").tolist()]))
