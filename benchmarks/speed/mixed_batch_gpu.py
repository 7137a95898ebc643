"""A decoding step of 32 rows over 8, 12 and 42 DoRA adapters on a GPU: the base alone, and adapters with and without kernels.

The shape is that of a 7B Llama with random weights in bfloat16. ``bound`` is the step of the base plus the time to read every
active adapter once at the rate of a large copy on the same device. Times are wall times of complete engine steps with the
device synchronized before and after. ``--small`` runs a tiny shape on any device; without a GPU there are no kernels to compare.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.speed.mixed_batch import decoding
from benchmarks.speed.tiny_models import LlamaShape, random_adapter, random_llama
from compass_ray.config import AdapterConfig
from compass_ray.engine.engine import Engine, EngineConfig
from compass_ray.engine.triton import op
from compass_ray.models.base_model import BaseModel
from compass_ray.models.devices import choose_device

SEED = 0
ROWS = 32
ADAPTERS = (8, 12, 42)


@dataclass(frozen=True)
class Size:
    """Size of the random base model and its adapters, number of timed steps, and bytes of the copy."""

    shape: LlamaShape
    rank: int
    steps: int
    copied: int


FULL = Size(LlamaShape(hidden=4096, layers=32, heads=32, kv_heads=8, mlp=14336), rank=16, steps=50, copied=1 << 30)
SMALL = Size(LlamaShape(hidden=32, layers=1, heads=4, kv_heads=2, mlp=64), rank=4, steps=2, copied=1 << 16)


def seconds(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """Median seconds of a step, after three warm-up steps."""
    taken = []
    for _ in range(steps + 3):
        _wait(device)
        started = time.perf_counter()
        step()
        _wait(device)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken[3:]))


def measure(base: BaseModel, folder: Path, count: int, size: Size) -> dict[str, Value]:
    """Seconds of a step of each implementation, and ratios."""
    limits = EngineConfig(max_num_seqs=ROWS, max_model_len=size.steps * 4 + 32, kv_cache_gib=16)
    plain = Engine(base, limits)
    found = {"base": seconds(decoding(plain, [None] * ROWS), size.steps, base.device)}
    plain.close()
    for name, kernels in _ways(base.device).items():
        engine = Engine(base, limits)
        for i in range(count):
            engine.load_adapter(f"a{i}", folder)
        with patch.object(op, "is_supported", op.is_supported if kernels else lambda y: False):
            step = decoding(engine, [f"a{i % count}" for i in range(ROWS)])
            found[name] = seconds(step, size.steps, base.device)
        adapter = engine.adapter_manager.nbytes / count
        engine.close()
    found["bound"] = found["base"] + min(count, ROWS) * adapter / _bandwidth(base.device, size.copied)
    shares = {f"{name}_share_of_base": found["base"] / value for name, value in found.items() if name != "base"}
    bounds = {f"{name}_share_of_bound": found["bound"] / found[name] for name in _ways(base.device)}
    return {**{f"{name}_seconds": value for name, value in found.items()}, **shares, **bounds, "adapter_mib": adapter / 2**20}


def _ways(device: torch.device) -> dict[str, bool]:
    """Implementations of adapters, and whether they use the kernels."""
    return {"fused": True, "plain": False} if device.type == "cuda" else {"plain": False}


def _bandwidth(device: torch.device, count: int) -> float:
    """Bytes per second that a copy reads and writes."""
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * count / seconds(lambda: target.copy_(source), 10, device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = parser(__doc__ or "").parse_args(argv)
    size, counts = (SMALL, (2,)) if arguments.small else (FULL, ADAPTERS)
    device = choose_device(None)
    if device.type != "cuda" and not arguments.small:
        raise SystemExit("this benchmark needs a CUDA device; test it with --small, or run benchmarks.speed.mixed_batch")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    base = random_llama(size.shape, seed=SEED, device=device, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        made = random_adapter(base, Path(folder, "a"), AdapterConfig(kind="dora", r=size.rank, alpha=2 * size.rank), seed=SEED)
        numbers: dict[str, Value] = {f"{count}_adapters": measure(base, made, count, size) for count in counts}
    settings: dict[str, Value] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "hidden": size.shape.hidden,
        "layers": size.shape.layers,
        "rank": size.rank,
        "rows": ROWS,
        "steps": size.steps,
    }
    return write_record("speed/mixed_batch_gpu", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
