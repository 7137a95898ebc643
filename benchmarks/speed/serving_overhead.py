"""Cost of HTTP and Ray Serve: time to first token against the engine and a no-op app, throughput, and the monitor.

The time to first token is measured on a small model, whose own time does not hide the overhead. Throughput is measured on a
model with a step of tens of milliseconds. Both have random weights. Wall time; run it on an idle machine.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.speed import serving_noop_app
from benchmarks.speed.serving_client import LoadRequest
from benchmarks.speed.serving_first_token import UNMONITORED, first_tokens, monitor_cost
from benchmarks.speed.serving_fixture import SEED, Shape, make_run, prompts, serving
from benchmarks.speed.serving_throughput import throughput
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig

ROWS = 32


@dataclass(frozen=True)
class Size:
    """Sizes of both models and of the work."""

    small: Shape
    large: Shape
    requests: int
    """Number of first tokens of each target."""
    pairs: int
    """Number of replies with the monitor, and as many without."""
    new_tokens: int
    turns: int


LANGUAGES = ("sw", "hi", "ru", "am")
FULL = Size(Shape(64, 2, LANGUAGES, 1), Shape(512, 8, LANGUAGES, 2, rank=16), 200, 400, 64, 3)
SMALL = Size(Shape(32, 1, LANGUAGES[:2], 1), Shape(64, 1, LANGUAGES[:2], 2), 8, 20, 4, 1)


def one_client(folder: Path, size: Size) -> dict[str, Value]:
    """Measure first tokens, and replies with and without the monitor."""
    run, config = make_run(folder, size.small)
    unmonitored = RunDir(shutil.copytree(run.path, folder / "unmonitored", ignore=shutil.ignore_patterns("clusters")).as_posix())
    texts = [(code, text) for code in LANGUAGES[:2] for text in prompts(code, 50)]
    streams = [LoadRequest("auto", text, code, 4, stream=True) for code, text in texts]
    with serving(run, config) as url, _engine(run, config, size.small) as engine:
        serving_noop_app.start(config)
        _start_unmonitored(unmonitored, config)
        first = asyncio.run(first_tokens(url, engine, list(itertools.islice(itertools.cycle(streams), size.requests))))
        complete = [LoadRequest("auto", text, code, 4) for code, text in itertools.islice(itertools.cycle(texts), size.pairs)]
        return {"first_token": first, "monitor": asyncio.run(monitor_cost(url, complete))}


def many_clients(folder: Path, size: Size) -> dict[str, Value]:
    """Measure throughput with `ROWS` concurrent requests, some to the base."""
    run, config = make_run(folder, size.large)
    models = ["base", *(f"{code}@{version}" for code, version in size.large.names())]
    texts = prompts(LANGUAGES[0], ROWS)
    requests = [LoadRequest(model, text, LANGUAGES[0], size.new_tokens) for model, text in zip(itertools.cycle(models), texts)]
    with serving(run, config) as url, _engine(run, config, size.large) as engine:
        return throughput(url, engine, requests, size.turns)


@contextmanager
def _engine(run: RunDir, config: RunConfig, shape: Shape) -> Iterator[Any]:
    """The engine of a replica in this process, with every adapter."""
    from compass_ray.serving.adapter_server import open_engine

    engine = open_engine(config)
    for language, version in shape.names():
        with run.adapter(language, version).local_folder() as folder:
            engine.load_adapter(f"{language}@{version}", folder)
    try:
        yield engine
    finally:
        engine.close()


def _start_unmonitored(run: RunDir, config: RunConfig) -> None:
    from ray import serve

    from compass_ray.serving import app

    quiet = {"log_level": "WARNING", "enable_access_log": False}
    serve.run(app.build_app(run.uri, config), name="unmonitored", route_prefix=UNMONITORED, logging_config=quiet)


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--only", choices=["one_client", "many_clients"], help="run only one of the two parts")
    arguments = options.parse_args(argv)
    size = SMALL if arguments.small else FULL
    numbers: dict[str, Value] = {}
    with tempfile.TemporaryDirectory() as name:
        for part in (one_client, many_clients):
            if arguments.only in (None, part.__name__):
                (folder := Path(name, part.__name__)).mkdir()
                numbers[part.__name__] = part(folder, size)
    settings: dict[str, Value] = {
        "first_token_hidden": size.small.hidden,
        "first_token_layers": size.small.layers,
        "throughput_hidden": size.large.hidden,
        "throughput_layers": size.large.layers,
        "throughput_rank": size.large.rank,
        "throughput_adapters": len(size.large.names()),
        "at_once": ROWS,
        "new_tokens": size.new_tokens,
        "turns": size.turns,
    }
    return write_record("speed/serving_overhead", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
