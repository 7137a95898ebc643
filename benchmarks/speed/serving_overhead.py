"""What the way through HTTP and Ray Serve costs: first token against the engine and a bare hop, throughput, and the monitor.

First tokens are measured on a small model, where nothing else drowns them; throughput on one whose step takes tens of
milliseconds. Both have random weights. Wall time: the machine should have nothing else to do.
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
from benchmarks.speed import serving_hop
from benchmarks.speed.serving_client import LoadRequest
from benchmarks.speed.serving_first_token import UNWATCHED, first_tokens, monitors_part
from benchmarks.speed.serving_run import SEED, Shape, make_run, prompts, serving
from benchmarks.speed.serving_throughput import throughput
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig

ROWS = 32


@dataclass(frozen=True)
class Size:
    """Of both models and the work."""

    small: Shape
    large: Shape
    requests: int
    """First tokens of each way."""
    pairs: int
    """Replies with the monitor, and as many without."""
    new_tokens: int
    turns: int


LANGUAGES = ("sw", "hi", "ru", "am")
FULL = Size(Shape(64, 2, LANGUAGES, 1), Shape(512, 8, LANGUAGES, 2, rank=16), 200, 400, 64, 3)
SMALL = Size(Shape(32, 1, LANGUAGES[:2], 1), Shape(64, 1, LANGUAGES[:2], 2), 8, 20, 4, 1)


def one_client(folder: Path, size: Size) -> dict[str, Value]:
    """First tokens, and replies with and without the monitor."""
    run, config = make_run(folder, size.small)
    unwatched = RunDir(shutil.copytree(run.path, folder / "unwatched", ignore=shutil.ignore_patterns("clusters")).as_posix())
    texts = [(code, text) for code in LANGUAGES[:2] for text in prompts(code, 50)]
    streams = [LoadRequest("auto", text, code, 4, stream=True) for code, text in texts]
    with serving(run, config) as url, _engine(run, config, size.small) as engine:
        serving_hop.start(config)
        _start_beside(unwatched, config)
        first = asyncio.run(first_tokens(url, engine, list(itertools.islice(itertools.cycle(streams), size.requests))))
        whole = [LoadRequest("auto", text, code, 4) for code, text in itertools.islice(itertools.cycle(texts), size.pairs)]
        return {"first_token": first, "monitor": asyncio.run(monitors_part(url, whole))}


def many_clients(folder: Path, size: Size) -> dict[str, Value]:
    """Throughput at `ROWS` at once, base rows among them."""
    run, config = make_run(folder, size.large)
    models = ["base", *(f"{code}@{version}" for code, version in size.large.names())]
    texts = prompts(LANGUAGES[0], ROWS)
    asks = [LoadRequest(model, text, LANGUAGES[0], size.new_tokens) for model, text in zip(itertools.cycle(models), texts)]
    with serving(run, config) as url, _engine(run, config, size.large) as engine:
        return throughput(url, engine, asks, size.turns)


@contextmanager
def _engine(run: RunDir, config: RunConfig, shape: Shape) -> Iterator[Any]:
    """The replica's engine in this process, with every adapter."""
    from compass_ray.serving.adapter_server import open_engine

    engine = open_engine(config)
    for language, version in shape.names():
        with run.adapter(language, version).local_folder() as folder:
            engine.load_adapter(f"{language}@{version}", folder)
    try:
        yield engine
    finally:
        engine.close()


def _start_beside(run: RunDir, config: RunConfig) -> None:
    from ray import serve

    from compass_ray.serving import app

    quiet = {"log_level": "WARNING", "enable_access_log": False}
    serve.run(app.build_app(run.uri, config), name="unwatched", route_prefix=UNWATCHED, logging_config=quiet)


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--only", choices=["one_client", "many_clients"], help="one of the two parts, to look at it alone")
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
