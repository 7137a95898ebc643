"""32 requests at once over 1, 8 and 32 DoRA adapters: the engine's mixed batch, the base alone, and PEFT.

PEFT cannot mix DoRA adapters in a batch, so it takes the requests of one adapter, switches, and takes the next ones. It
runs inside this project's own decoding loop, so that the difference is the adapters' alone; ``peft_cached`` also keeps the
norms of DoRA from call to call, which PEFT leaves off unless asked.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.record import Record, Value, finish, parser
from benchmarks.speed.tiny_models import random_adapter, random_base
from benchmarks.timing import in_turns, one_thread
from compass_ray.config import AdapterConfig
from compass_ray.models.base import BaseModel
from compass_ray.models.engine import Engine, Request

SEED = 0
ROWS = 32
ADAPTERS = (1, 8, 32)
COUNTRIES = ("Kenya", "Peru", "Japan", "Norway", "Egypt", "Chile", "India", "Spain")


@dataclass(frozen=True)
class Size:
    """Of the random base model, its adapters, and the work."""

    hidden: int
    layers: int
    rank: int
    new_tokens: int
    repeats: int


FULL = Size(hidden=256, layers=4, rank=16, new_tokens=12, repeats=2)
SMALL = Size(hidden=32, layers=1, rank=4, new_tokens=2, repeats=1)


def requests(adapters: Sequence[str | None], new_tokens: int) -> list[Request]:
    """`ROWS` requests that take the adapters in turn."""
    asked = [f"What is the capital of {COUNTRIES[i % len(COUNTRIES)]}? ({i})" for i in range(ROWS)]
    return [
        Request([{"role": "user", "content": text}], adapter=adapters[i % len(adapters)], max_tokens=new_tokens)
        for i, text in enumerate(asked)
    ]


def measure(base: BaseModel, folders: dict[str, Path], size: Size) -> dict[str, Value]:
    """Seconds of a batch each way, and the share of the base's throughput that each keeps."""
    plain, mixed = Engine(_copy(base)), Engine(_copy(base))
    for name, folder in folders.items():
        mixed.load(name, folder)
    # A model of its own each: a call without the cache empties it.
    with_peft, with_cache = _peft(base, folders), _peft(base, folders)
    wanted = requests(list(folders), size.new_tokens)
    ways: dict[str, Callable[[], object]] = {
        "base": lambda: plain.generate(requests([None], size.new_tokens)),
        "compass": lambda: mixed.generate(wanted),
        "peft": lambda: switching(with_peft, wanted),
        "peft_cached": lambda: cached(with_cache, wanted),
    }
    taken = in_turns(ways, size.repeats)
    return {
        **{f"{name}_seconds": value for name, value in taken.items()},
        **{f"{name}_share_of_base": taken["base"] / taken[name] for name in ways if name != "base"},
        **{f"{name}_over_compass": taken[name] / taken["compass"] for name in ("peft", "peft_cached")},
    }


def switching(engine: Engine, wanted: Sequence[Request]) -> None:
    """The requests of one adapter after another, under PEFT."""
    for name in dict.fromkeys(each.adapter for each in wanted):
        engine.base.model.set_adapter(name)
        engine.generate([replace(each, adapter=None) for each in wanted if each.adapter == name])


def cached(engine: Engine, wanted: Sequence[Request]) -> None:
    """`switching` with PEFT's cache of DoRA norms."""
    from peft.helpers import DoraCaching

    with DoraCaching():
        switching(engine, wanted)


def _peft(base: BaseModel, folders: dict[str, Path]) -> Engine:
    from peft import PeftModel

    (first, folder), *others = folders.items()
    model: Any = PeftModel.from_pretrained(copy.deepcopy(base.model), str(folder), adapter_name=first)
    for name, each in others:
        model.load_adapter(str(each), adapter_name=name)
    return Engine(replace(base, model=model.eval()))


def _copy(base: BaseModel) -> BaseModel:
    return replace(base, model=copy.deepcopy(base.model))


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = parser(__doc__ or "").parse_args(argv)
    size, counts = (SMALL, (1, 2)) if arguments.small else (FULL, ADAPTERS)
    config = AdapterConfig(kind="dora", r=size.rank, alpha=2 * size.rank)
    numbers: dict[str, Value] = {}
    with tempfile.TemporaryDirectory() as folder, one_thread():
        base = random_base(size.hidden, size.layers, seed=SEED)
        made = {f"a{i}": random_adapter(base, Path(folder, f"a{i}"), config, seed=SEED + i) for i in range(max(counts))}
        for count in counts:
            numbers[f"{count}_adapters"] = measure(base, dict(list(made.items())[:count]), size)
    parameters = sum(each.numel() for each in base.model.parameters())
    settings: dict[str, Value] = {
        "architecture": "qwen2",
        "parameters": parameters,
        "hidden": size.hidden,
        "layers": size.layers,
        "rank": size.rank,
        "rows": ROWS,
        "new_tokens": size.new_tokens,
        "repeats": size.repeats,
    }
    return finish("speed/mixed_batch", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
