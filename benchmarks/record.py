"""Shared command line of the benchmarks, and the record that each writes: command, environment, seeds, settings, numbers.

A record has no date, host or path, so a repeated run changes only the numbers. A small run tests that the benchmark works;
its record is printed but not written unless a folder is given. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Union

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "peft", "torch", "transformers")

THREADS = 1
"""Threads of a measurement if it says no other number, see `benchmarks.timing`."""

Value = Union[None, bool, int, float, str, Sequence["Value"], Mapping[str, "Value"]]  # noqa: UP007 (recursive)


@dataclass(frozen=True)
class Environment:
    """The machine and the package versions of a run."""

    cpus: int
    threads: int
    machine: str
    python: str
    packages: Mapping[str, str]
    device: str = "cpu"


@dataclass(frozen=True)
class Record:
    """One run of one benchmark. The names in ``numbers`` contain the unit."""

    benchmark: str
    command: str
    environment: Environment
    seeds: tuple[int, ...]
    settings: Mapping[str, Value]
    numbers: Mapping[str, Value]


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark: ``--small`` and ``--output``."""
    options = argparse.ArgumentParser(description=description.splitlines()[0])
    options.add_argument(
        "--small", action="store_true", help="take a few seconds to test the benchmark; the numbers mean nothing"
    )
    options.add_argument("--output", type=Path, help="folder for the record (default: benchmarks/results; none with --small)")
    return options


def write_record(
    benchmark: str,
    arguments: argparse.Namespace,
    *,
    seeds: Sequence[int],
    settings: Mapping[str, Value],
    numbers: Mapping[str, Value],
    argv: Sequence[str] | None,
    threads: int = THREADS,
    variant: str = "",
) -> Record:
    """Print the record, and write it to ``<output>/<part>_<name>.json`` unless the run is small and has no ``--output``.

    A ``variant``, such as another device, has a file of its own, with its name at the end.
    """
    words = _without_output(sys.argv[1:] if argv is None else argv)
    command = " ".join(["python -m", f"benchmarks.{benchmark.replace('/', '.')}", *words])
    record = Record(benchmark, command, environment(threads), tuple(seeds), settings, _rounded(numbers))
    text = json.dumps(asdict(record), indent=2)
    folder = arguments.output or (None if arguments.small else RESULTS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        name = "_".join([benchmark.replace("/", "_"), *([variant] if variant else [])])
        (folder / f"{name}.json").write_text(text + "\n", "utf-8")
    print(text)
    return record


def environment(threads: int = THREADS) -> Environment:
    """The environment of this process."""
    packages = {name: metadata.version(name) for name in PACKAGES}
    return Environment(os.cpu_count() or 1, threads, platform.machine(), platform.python_version(), packages)


def without_run(words: Sequence[str]) -> list[str]:
    """Remove ``--run`` from the options: the folder of the run does not change the numbers."""
    return _without(words, "--run")


def without_option(argv: Sequence[str] | None, option: str) -> list[str]:
    """The options, by default those of this process, without one that names a path of this machine."""
    return _without(sys.argv[1:] if argv is None else argv, option)


def without_cache(argv: Sequence[str] | None) -> list[str]:
    """The options, by default those of this process, without ``--cache``, which changes no number."""
    return _without(sys.argv[1:] if argv is None else argv, "--cache")


def _without_output(words: Sequence[str]) -> list[str]:
    return _without(words, "--output")


def _without(words: Sequence[str], option: str) -> list[str]:
    remaining = list(words)
    if option in remaining:
        at = remaining.index(option)
        del remaining[at : at + 2]
    return [word for word in remaining if not word.startswith(f"{option}=")]


def _rounded(numbers: Mapping[str, Value]) -> dict[str, Value]:
    return {key: _round(value) for key, value in numbers.items()}


def _round(value: Value) -> Value:
    if isinstance(value, Mapping):
        return _rounded(value)
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_round(each) for each in value]
    return value
