"""A batch of 32 rows over 1, 8 and 32 adapters, side by side: this engine, vLLM, vLLM with this project's plugin, and PEFT.

Each engine runs in a process of its own, so that memory is its own and vLLM can have another interpreter: give it with
``--vllm-python`` or ``COMPASS_VLLM_PYTHON``. Engines that are not installed, or refuse a batch, are skipped and listed. A round
times every engine once, one after another: ``prefill`` is from the queued prompts to the first token of every row, ``decode``
the median of the steps after it. On a CPU these are CPU seconds of one thread, on a GPU wall time.

``bound`` is a lower bound for any implementation of adapters on this base and machine: bare products of the models of the base
model's layers, with torch's fastest layout of the weights, plus the longer of reading every active adapter once and of its
operations,

    products + max(bytes / bandwidth, operations / rate)

with the bandwidth and rate of one large sum and one large product in the same run. ``merged`` is one merged model for each
adapter: the step of the base with the rows of one adapter, once for each adapter.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
import torch

from benchmarks.record import Record, Value, parser, without_option, write_record
from benchmarks.speed.batch_worker import Worker, WorkerError, WorkerOptions
from benchmarks.speed.tiny_models import LlamaShape, random_adapter, random_llama
from benchmarks.timing import cpu_seconds_of, single_thread
from compass_ray.config import AdapterConfig
from compass_ray.engine.packed_linear import pack_linear_layers
from compass_ray.models.devices import choose_device

SEED = 0
KINDS: tuple[Literal["dora", "lora"], ...] = ("dora", "lora")
PHASES = ("prefill", "decode")
OURS = "benchmarks.speed.batch_engines"
VLLM = "benchmarks.speed.vllm_engine"
ENGINES = {
    "compass": (OURS, ("base", "lora", "dora")),
    "compass_unfused": (OURS, ("lora", "dora")),
    "vllm": (VLLM, ("base",)),
    "vllm_lora": (VLLM, ("base", "lora")),
    "vllm_plugin": (VLLM, ("base", "lora", "dora")),
    "peft": (OURS, ("base", "lora", "dora")),
    "peft_cached": (OURS, ("dora",)),
    "products": (OURS, ("base",)),
}
"""Module of each engine, and the batches that it can run."""
SLOW = ("peft", "peft_cached")
"""Engines that are timed in the first round only, because PEFT computes DoRA's norms in every step."""


@dataclass(frozen=True)
class Size:
    """Shapes and types of the random base models, the batch and its adapters, and the number of rounds."""

    models: Mapping[str, tuple[LlamaShape, str]]
    counts: tuple[int, ...]
    rank: int
    rows: int
    prompt_tokens: int
    steps: int
    rounds: int
    probe: int
    """Side of the matrices that bandwidth and rate are measured with."""


CPU = Size(
    {
        "1024x4_float32": (LlamaShape(hidden=1024, layers=4, heads=16, kv_heads=4, mlp=4096), "float32"),
        "1024x4_bfloat16": (LlamaShape(hidden=1024, layers=4, heads=16, kv_heads=4, mlp=4096), "bfloat16"),
        "2048x2_float32": (LlamaShape(hidden=2048, layers=2, heads=16, kv_heads=4, mlp=8192), "float32"),
    },
    counts=(1, 8, 32),
    rank=16,
    rows=32,
    prompt_tokens=16,
    steps=5,
    rounds=3,
    probe=4096,
)
CUDA = Size(
    {"4096x32_bfloat16": (LlamaShape(hidden=4096, layers=32, heads=32, kv_heads=8, mlp=14336), "bfloat16")},
    counts=(1, 8, 32),
    rank=16,
    rows=32,
    prompt_tokens=16,
    steps=25,
    rounds=5,
    probe=8192,
)
SMALL = Size(
    {"64x1_float32": (LlamaShape(hidden=64, layers=1, heads=2, kv_heads=1, mlp=128), "float32")},
    counts=(1, 2),
    rank=8,
    rows=2,
    prompt_tokens=4,
    steps=2,
    rounds=1,
    probe=64,
)


@dataclass(frozen=True)
class Batch:
    """Rows over ``count`` adapters of a kind; ``base`` has none."""

    kind: str
    count: int

    @property
    def name(self) -> str:
        """Its name in the record."""
        return f"{self.kind}_{self.count}" if self.count else self.kind

    def adapters(self, rows: int) -> list[str | None]:
        """The adapter of each row."""
        return [f"{self.kind}{i % self.count}" if self.count else None for i in range(rows)]


class Comparison:
    """All engines on one base model."""

    def __init__(self, size: Size, shape: LlamaShape, dtype: str, device: torch.device, folder: Path) -> None:
        """Write the base model and its adapters into ``folder``."""
        self.size, self.shape, self.dtype, self.device, self.folder = size, shape, dtype, device, folder
        self.skipped: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self._workers: dict[str, Worker] = {}
        base = random_llama(shape, seed=SEED, dtype=getattr(torch, dtype))
        base.model.save_pretrained(folder / "base")
        base.tokenizer.save_pretrained(folder / "base")
        self.adapters = {
            f"{kind}{i}": str(
                random_adapter(
                    base, folder / f"{kind}{i}", AdapterConfig(kind=kind, r=size.rank, alpha=2 * size.rank), seed=SEED + i
                )
            )
            for kind in KINDS
            for i in range(max(size.counts))
        }
        self.layers = [module for module in base.model.model.modules() if isinstance(module, torch.nn.Linear)]

    def measure(self, vllm_python: str | None) -> dict[str, Value]:
        """Seconds, ratios and memory by batch."""
        with ExitStack() as stack:
            for engine in ENGINES:
                self._start(engine, vllm_python, stack)
            adapted = [Batch(kind, count) for kind in KINDS for count in sorted(self.size.counts, reverse=True)]
            batches = [Batch("base", 0), *adapted]
            seconds: dict[str, dict[str, dict[str, float]]] = {}
            memory: dict[str, Value] = {}
            for batch in batches:
                seconds[batch.name] = self._time(batch)
                memory |= self._memory(batch)
            merged = {count: self._time_merged(count) for count in self.size.counts}
        return self._summarize(batches, seconds, merged) | {"memory_mib": memory}

    def _start(self, engine: str, vllm_python: str | None, stack: ExitStack) -> None:
        module, _ = ENGINES[engine]
        if engine == "compass_unfused" and self.device.type != "cuda":
            return
        if module == VLLM and not vllm_python:
            self.skipped[engine] = "no interpreter of vLLM: give --vllm-python or COMPASS_VLLM_PYTHON"
            return
        python = str(vllm_python) if module == VLLM else sys.executable
        try:
            worker = Worker(python, module, self._options(engine), self.folder / f"{engine}.log")
            self._workers[engine] = stack.enter_context(worker)
            self.versions |= worker.versions
        except (OSError, WorkerError) as error:
            self._skip(engine, error)

    def _options(self, engine: str) -> WorkerOptions:
        size, shape = self.size, self.shape
        values = shape.layers * 2 * shape.kv_heads * shape.hidden // shape.heads
        return WorkerOptions(
            engine=engine,
            base=str(self.folder / "base"),
            adapters=self.adapters,
            dtype=self.dtype,
            device=self.device.type,
            rank=size.rank,
            rows=size.rows,
            prompt_tokens=size.prompt_tokens,
            steps=size.steps,
            slots=max(size.counts),
            token_bytes=values * getattr(torch, self.dtype).itemsize,
        )

    def _time(self, batch: Batch) -> dict[str, dict[str, float]]:
        """Median seconds of each engine by phase. The first round warms up."""
        rounds: dict[str, list[dict[str, float]]] = {}
        for i in range(self.size.rounds + 1):
            for engine in [each for each in self._workers if batch.kind in ENGINES[each][1]]:
                if not (engine in SLOW and i):
                    self._time_once(engine, batch, rounds)
        return {engine: _medians(times[1:] or times) for engine, times in rounds.items() if engine in self._workers}

    def _time_once(self, engine: str, batch: Batch, rounds: dict[str, list[dict[str, float]]]) -> None:
        try:
            rounds.setdefault(engine, []).append(self._workers[engine].time_batch(batch.adapters(self.size.rows)))
        except (OSError, WorkerError) as error:
            self._workers.pop(engine).close()
            self._skip(f"{engine} {batch.name}", error)

    def _time_merged(self, count: int) -> dict[str, float]:
        rows = -(-self.size.rows // count)
        found = [self._workers["compass"].time_batch([None] * rows) for _ in range(self.size.rounds + 1)][1:]
        return {phase: count * seconds for phase, seconds in _medians(found).items()}

    def _memory(self, batch: Batch) -> dict[str, Value]:
        """MiB of each engine after its first batches: without adapters, and with the most of a kind."""
        wanted = {
            "base": ("compass", "vllm", "vllm_plugin", "peft"),
            f"dora_{max(self.size.counts)}": ("compass", "vllm_plugin"),
        }
        engines = [engine for engine in wanted.get(batch.name, ()) if engine in self._workers]
        found = {engine: self._workers[engine].memory() for engine in engines}
        in_mib: dict[str, Value] = {e: {kind: value / 2**20 for kind, value in kinds.items()} for e, kinds in found.items()}
        return {batch.name: in_mib} if found else {}

    def _summarize(
        self,
        batches: Sequence[Batch],
        seconds: Mapping[str, Mapping[str, Mapping[str, float]]],
        merged: Mapping[int, Mapping[str, float]],
    ) -> dict[str, Value]:
        bandwidth, rate = _measure_machine(self.device, self.dtype, self.size.probe)
        numbers: dict[str, Value] = {}
        for batch in batches:
            found = {engine: dict(times) for engine, times in seconds[batch.name].items() if engine != "products"}
            if batch.kind == "dora":
                found["merged"] = dict(merged[batch.count])
            rows: dict[str, Value] = {}
            for phase in PHASES:
                tokens = self.size.rows * (self.size.prompt_tokens if phase == "prefill" else 1)
                bound = seconds["base"]["products"][phase] + self._least_seconds(batch, tokens, bandwidth, rate)
                rows[f"{phase}_seconds"] = {"bound": bound, **{engine: times[phase] for engine, times in found.items()}}
                rows[f"{phase}_share_of_bound"] = {engine: bound / times[phase] for engine, times in found.items()}
                rows[f"{phase}_share_of_base"] = {
                    engine: seconds["base"][engine][phase] / times[phase]
                    for engine, times in found.items()
                    if batch.count and engine in seconds["base"]
                }
                rows[f"{phase}_over_compass"] = {
                    engine: times[phase] / found["compass"][phase] for engine, times in found.items() if engine != "compass"
                }
            numbers[batch.name] = {name: each for name, each in rows.items() if each}
        return numbers

    def _least_seconds(self, batch: Batch, tokens: int, bandwidth: float, rate: float) -> float:
        """Least seconds in which the machine reads the active adapters, or does their operations."""
        parameters = sum(self.size.rank * (each.in_features + each.out_features) for each in self.layers)
        gains = sum(each.out_features for each in self.layers) if batch.kind == "dora" else 0
        read = batch.count * (parameters * getattr(torch, self.dtype).itemsize + 4 * gains)
        operations = 2 * tokens * (parameters + gains) if batch.count else 0
        return float(max(read / bandwidth, operations / rate))

    def _skip(self, what: str, error: Exception) -> None:
        lines = str(error).replace(str(self.folder), "FOLDER").splitlines()
        self.skipped[what] = lines[-1] if lines else type(error).__name__
        print(f"skipped {what}:\n{error}", file=sys.stderr)


def _medians(times: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {phase: float(np.median([each[phase] for each in times])) for phase in PHASES}


def _measure_machine(device: torch.device, dtype: str, side: int) -> tuple[float, float]:
    """Bytes per second that a sum reads, and operations per second of a product."""
    numbers = torch.rand(2 * side, 2 * side, device=device)
    square = torch.nn.Linear(side, side, bias=False, device=device, dtype=getattr(torch, dtype)).requires_grad_(False)
    inputs, model = torch.rand(side, side, device=device).to(square.weight.dtype), torch.nn.Sequential(square)
    pack_linear_layers(model)
    read, multiplied = _least_time(device, numbers.sum), _least_time(device, lambda: model(inputs))
    return numbers.nbytes / read, 2 * side**3 / multiplied


def _least_time(device: torch.device, work: Callable[[], object]) -> float:
    """Least seconds of three calls, after one that warms up."""
    if device.type != "cuda":
        return min([cpu_seconds_of(work) for _ in range(4)][1:])
    found = []
    for _ in range(4):
        torch.cuda.synchronize(device)
        started = perf_counter()
        work()
        torch.cuda.synchronize(device)
        found.append(perf_counter() - started)
    return min(found[1:])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--device", choices=("cpu", "cuda"), help="device (default: a GPU if torch sees one)")
    options.add_argument("--vllm-python", help="interpreter that has vLLM (default: the variable COMPASS_VLLM_PYTHON)")
    options.add_argument(
        "--models", nargs="+", help="base models to measure, such as 1024x4_float32 (default: all of the device)"
    )
    return options.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = _parse(argv)
    device = choose_device(arguments.device)
    size = SMALL if arguments.small else CUDA if device.type == "cuda" else CPU
    vllm_python = arguments.vllm_python or os.environ.get("COMPASS_VLLM_PYTHON")
    numbers: dict[str, Value] = {}
    skipped: dict[str, str] = {}
    versions: dict[str, str] = {}
    names = arguments.models or list(size.models)
    for name in names:
        with tempfile.TemporaryDirectory() as folder, single_thread():
            comparison = Comparison(size, *size.models[name], device, Path(folder))
            numbers[name] = comparison.measure(vllm_python)
            skipped |= comparison.skipped
            versions |= comparison.versions
    settings: dict[str, Value] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "models": {name: asdict(size.models[name][0]) for name in names},
        "rank": size.rank,
        "rows": size.rows,
        "prompt_tokens": size.prompt_tokens,
        "steps": size.steps,
        "rounds": size.rounds,
        "slots": max(size.counts),
        "vllm_versions": versions,
        "skipped": skipped,
    }
    return write_record(
        "speed/mixed_batch",
        arguments,
        seeds=[SEED],
        settings=settings,
        numbers=numbers,
        argv=without_option(argv, "--vllm-python"),
        variant="cuda" if device.type == "cuda" else "",
    )


if __name__ == "__main__":
    main()
