"""A decoding step of 32 rows over 8, 12 and 42 DoRA adapters: the engine's mixed batch, the base alone, and PEFT.

``bound`` is a lower bound for any implementation of adapters on this base and machine: the step of the base, plus the longer of
reading every active adapter once and of its operations,

    base + max(bytes / bandwidth, operations / rate)

with the bytes of the adapters (the base's weights are read between two uses, so no cache holds them), 2 operations per
parameter and row, and the bandwidth and rate of one large sum and one large product in the same run. It is added to the time
of the base and does not overlap it, because the base's products keep every core busy.

PEFT cannot mix DoRA adapters. ``peft`` runs the requests of one adapter together and switches to the next; ``peft_by_request``
runs one request after another. ``peft_cached`` caches DoRA's norms and products, a PEFT option that needs the memory of a model
for each adapter. A merged model is as fast as the base and serves one adapter, so ``merged`` is the base's step with the rows
of one adapter, once for each adapter. These steps are equal for every adapter: each is timed for one and multiplied.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.speed.tiny_models import LlamaShape, random_adapter, random_llama
from benchmarks.timing import single_thread, time_interleaved
from compass_ray.config import AdapterConfig
from compass_ray.engine.engine import Engine, EngineConfig
from compass_ray.engine.requests import GenerationRequest
from compass_ray.models.base_model import BaseModel

SEED = 0
ROWS = 32
ADAPTERS = (8, 12, 42)
PROMPT = tuple(range(5, 13))


@dataclass(frozen=True)
class Size:
    """Size of the random base model and its adapters, and numbers of timed steps of fast and slow implementations."""

    shape: LlamaShape
    rank: int
    steps: int
    slow_steps: int
    probe: int
    """Side of the matrices that bandwidth and rate are measured with."""


FULL = Size(LlamaShape(hidden=2048, layers=2, heads=16, kv_heads=4, mlp=8192), rank=16, steps=25, slow_steps=2, probe=4096)
SMALL = Size(LlamaShape(hidden=32, layers=1, heads=4, kv_heads=2, mlp=64), rank=4, steps=2, slow_steps=1, probe=64)


def measure(
    base: BaseModel, folders: Mapping[str, Path], alone: Mapping[str, Mapping[int, float]], size: Size
) -> dict[str, Value]:
    """Seconds of a step of each implementation, and ratios; ``alone`` comes from `one_adapter`."""
    names = list(folders)
    used, together = _used(len(names))
    mixed = Engine(_sharing(base), _limits(ROWS, size))
    for name, folder in folders.items():
        mixed.load_adapter(name, folder)
    plain = decoding(Engine(_sharing(base), _limits(ROWS, size)), [None] * ROWS)
    found = time_interleaved({"base": plain, "compass": decoding(mixed, [names[i % used] for i in range(ROWS)])}, size.steps)
    found |= {name: used * seconds[together] for name, seconds in alone.items()}
    found |= {f"{name}_by_request": ROWS * seconds[1] for name, seconds in alone.items() if name != "merged"}
    adapters = mixed.adapter_manager.nbytes / len(names)
    found["bound"] = found["base"] + _least_seconds(used * adapters, 2 * ROWS * adapters / 4, size.probe)
    mixed.close()
    return {
        **{f"{name}_seconds": value for name, value in found.items()},
        **{f"{name}_share_of_base": found["base"] / value for name, value in found.items() if name != "base"},
        "compass_share_of_bound": found["bound"] / found["compass"],
        **{f"{name}_over_compass": found[name] / found["compass"] for name in found if name.startswith(("peft", "merged"))},
        "adapter_mib": adapters / 2**20,
        "adapter_bytes_over_parameters": adapters / _stored_bytes(next(iter(folders.values()))),
    }


def decoding(engine: Engine, adapters: Sequence[str | None]) -> Callable[[], object]:
    """A step of the engine that decodes one token for each row; ``adapters`` has one entry per row."""
    for name in adapters:
        engine.add_request(
            GenerationRequest(prompt_token_ids=PROMPT, adapter=name, max_tokens=engine.max_model_len - len(PROMPT))
        )
    while engine.model_runner.prefilling or not engine.model_runner.num_requests:
        engine.step()
    return engine.step


def one_adapter(base: BaseModel, folder: Path, counts: Sequence[int], size: Size) -> dict[str, dict[int, float]]:
    """Seconds of a step with the rows of one adapter, for implementations that cannot mix, by number of rows."""
    found: dict[str, dict[int, float]] = {"merged": {}, "peft": {}, "peft_cached": {}}
    for rows in sorted({1, *(_used(count)[1] for count in counts)}):
        ways = {
            "merged": _alone(_sharing(base), rows, size),
            "peft": _peft(base, folder, rows, size, cached=False),
            "peft_cached": _peft(base, folder, rows, size, cached=True),
        }
        for name, seconds in time_interleaved(ways, size.slow_steps).items():
            found[name][rows] = seconds
    return found


def _used(adapters: int) -> tuple[int, int]:
    """Number of adapters with a row in the batch, and maximum rows of one."""
    used = min(adapters, ROWS)
    return used, -(-ROWS // used)


def _alone(base: BaseModel, rows: int, size: Size) -> Callable[[], object]:
    return decoding(Engine(base, _limits(rows, size)), [None] * rows)


def _peft(base: BaseModel, folder: Path, rows: int, size: Size, *, cached: bool) -> Callable[[], object]:
    """A step of ``rows`` rows with PEFT, including the switch to their adapter."""
    from peft import PeftModel
    from peft.helpers import DoraCaching

    model: Any = PeftModel.from_pretrained(_sharing(base).model, str(folder), adapter_name="one").eval()
    step = _alone(replace(base, model=model), rows, size)

    def work() -> None:
        model.set_adapter("one")
        with DoraCaching(enabled=cached):
            step()

    return work


def _least_seconds(read: float, operations: float, side: int) -> float:
    import torch

    numbers, square = torch.rand(2 * side, 2 * side), torch.rand(side, side)
    taken = time_interleaved({"sum": lambda: numbers.sum(), "product": lambda: square @ square}, 3)
    return max(read * taken["sum"] / numbers.nbytes, operations * taken["product"] / (2 * side**3))


def _limits(rows: int, size: Size) -> EngineConfig:
    return EngineConfig(max_num_seqs=rows, max_model_len=len(PROMPT) + size.steps + 8)


def _sharing(base: BaseModel) -> BaseModel:
    """A copy of the model that shares its weights, so that each copy can wrap its layers."""
    shared = {id(tensor): tensor for tensor in base.model.parameters()}
    return replace(base, model=copy.deepcopy(base.model, shared))


def _stored_bytes(folder: Path) -> int:
    from safetensors.torch import load_file

    return sum(tensor.nbytes for tensor in load_file(folder / "adapter_model.safetensors").values())


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--adapters", type=int, nargs="+", help=f"how many adapters are resident (default: {ADAPTERS})")
    arguments = options.parse_args(argv)
    size = SMALL if arguments.small else FULL
    counts = arguments.adapters or ((2, 3) if arguments.small else ADAPTERS)
    config = AdapterConfig(kind="dora", r=size.rank, alpha=2 * size.rank)
    numbers: dict[str, Value] = {}
    with tempfile.TemporaryDirectory() as folder, single_thread():
        base = random_llama(size.shape, seed=SEED)
        made = {f"a{i}": random_adapter(base, Path(folder, f"a{i}"), config, seed=SEED + i) for i in range(max(counts))}
        alone = one_adapter(base, made["a0"], counts, size)
        for count in counts:
            numbers[f"{count}_adapters"] = measure(base, dict(list(made.items())[:count]), alone, size)
    settings: dict[str, Value] = {
        "architecture": "llama",
        "parameters": sum(each.numel() for each in base.model.parameters()),
        "output_layer_parameters": base.model.lm_head.weight.numel(),
        **vars(size.shape),
        "rank": size.rank,
        "rows": ROWS,
        "steps": size.steps,
        "slow_steps": size.slow_steps,
    }
    return write_record("speed/mixed_batch", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
