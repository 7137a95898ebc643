"""Generators by name: equal in every process, different for every name."""

import subprocess
import sys

import pytest

from compass_ray.core.seeds import generator


def test_another_process_draws_the_same() -> None:
    code = "from compass_ray.core.seeds import generator; print(generator(3, 'sample', 'sw', 7).integers(1 << 60))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == generator(3, "sample", "sw", 7).integers(1 << 60)


def test_each_name_has_its_own_numbers() -> None:
    keys = [(0, "a"), (1, "a"), (0, "b"), (0, "a", "b"), (0, "ab"), (0, "a", 1), (0, "a", "1"), (0,), (2**40, "a")]
    assert len({generator(*key).integers(1 << 60) for key in keys}) == len(keys)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        generator(-1)
