"""vLLM as a `engine.protocol.GenerationEngine`: one thread with an event loop, in which everything of vLLM's front end runs.

vLLM computes in processes of its own. Tokenization, adapter checks, texts and log-probabilities are those of
`compass_ray.engine`. An adapter is loaded into vLLM before it is offered: one that vLLM cannot read fails there alone, and
during a step it would end the engine for all requests. Its files are copied, so they last as long as it is resident.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import shutil
import tempfile
import threading
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from compass_ray.adapters.peft_io import CONFIG_NAME, WEIGHTS_NAME, read_adapter
from compass_ray.engine.fold_adapter import check_adapter
from compass_ray.engine.input_processor import InputProcessor
from compass_ray.engine.protocol import EngineStoppedError, OutputSink
from compass_ray.engine.request_state import RequestState
from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta
from compass_ray.engine.vllm_backend.adapter_leases import AdapterLeases, ResidentAdapter
from compass_ray.engine.vllm_backend.errors import BLEND_REFUSED, ECHO_REFUSED, AdapterRefusedError, GenerationFailedError
from compass_ray.engine.vllm_backend.orphan_guard import end_guard, start_guard
from compass_ray.engine.vllm_backend.output_reader import read_output, sampling_arguments
from compass_ray.engine.vllm_backend.process_end import describe_end, has_ended
from compass_ray.models.base_model import BaseModel, count_embeddings, find_end_token_ids
from compass_ray.models.errors import ModelError

logger = logging.getLogger(__name__)
T = TypeVar("T")
_STOPPED = "The engine vLLM is stopped."
_DEAD = "engine: vLLM is dead, %s; requests and health checks of this replica fail, so Serve replaces it"
_STOP_SECONDS = 30.0
_WARM_UP_SECONDS = 600.0
_POLL_SECONDS = 0.5
"""How often a call of vLLM's checks whether its process lives."""
_EXIT_POLLS = 10
"""How often the exit status of a dead process is asked for. A process that reports an error ends soon after."""


class VLLMEngine:
    """vLLM's asynchronous engine and its thread-safe interface."""

    def __init__(self, base: BaseModel, arguments: Mapping[str, Any]) -> None:
        """Start vLLM, which takes 10 seconds or more. ``base`` has no weights (`models.base_model.load_base_without_weights`).

        Raises:
            ModelError: vLLM does not start with these arguments, or does not generate.
        """
        self.steps = self.requests = 0
        self._is_stopped = False
        self._base = base
        self._end_token_ids = find_end_token_ids(base)
        self._input_processor = InputProcessor(base.tokenizer, arguments["max_model_len"], count_embeddings(base))
        self._leases = AdapterLeases(arguments["max_cpu_loras"])
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._loads: set[asyncio.Task[None]] = set()
        self._removals: set[asyncio.Task[None]] = set()
        self._stepped: set[int] = set()
        self._folder = Path(tempfile.mkdtemp(prefix="compass-vllm-"))
        self._guard = start_guard(uuid.uuid4().hex, self._folder)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()
        try:
            self._run(self._open(arguments)).result()
        except BaseException:
            self._close()
            raise
        try:
            self._warm_up()
        except BaseException:
            self.stop()
            raise

    @property
    def is_healthy(self) -> bool:
        """Whether vLLM's processes live and the thread runs."""
        return self._thread.is_alive() and not self._is_stopped and not self._llm.errored

    @property
    def names(self) -> Sequence[str]:
        """Loaded adapters."""
        return self._leases.names

    def tokenize(self, request: GenerationRequest) -> list[int]:
        """Token ids of a request, in any single thread. ModelError if the request is invalid."""
        return self._input_processor.tokenize(request)

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter.

        Raises:
            ModelError: it does not fit the base model, or vLLM refuses it; then nothing changes.
            EngineStoppedError: vLLM is stopped, or its process ended.
        """
        try:
            check_adapter(self._base.model, read_adapter(folder))
        except ModelError as error:
            raise ModelError(str(error) if str(folder) in str(error) else f"{folder}: {error}") from None
        self._run(self._track_load(name, folder)).result()

    def unload(self, name: str) -> None:
        """Unload an adapter. Active requests continue to use it."""
        self._run(self._unload(name)).result()

    def submit(self, request: GenerationRequest, sink: OutputSink) -> Future[int]:
        """Add a request. The future has the request id, or ModelError if the request is invalid."""
        return self._run(self._submit(request, sink))

    def cancel(self, request_id: int) -> None:
        """Remove a request. Its sink gets no further output."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel, request_id)

    def stop(self) -> None:
        """Stop vLLM's processes. Active requests and loads fail."""
        if self._loop.is_closed():
            return
        try:
            self._run(self._stop()).result(_STOP_SECONDS)
        except Exception as error:
            logger.warning("engine: vLLM does not stop by itself, ending its processes: %s", _first_line(error))
        finally:
            self._close()

    async def _open(self, arguments: Mapping[str, Any]) -> None:
        others = multiprocessing.active_children()
        self._llm = await _open_llm(arguments)
        self._processes = [process for process in multiprocessing.active_children() if process not in others]
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Log once how vLLM ended, unless `stop` ended it."""
        while not self._llm.errored:
            await asyncio.sleep(_POLL_SECONDS)
        for _ in range(_EXIT_POLLS):
            if has_ended(self._processes):
                break
            await asyncio.sleep(_POLL_SECONDS)
        logger.error(_DEAD, describe_end(self._processes))

    def _warm_up(self) -> None:
        """Generate once, greedily and sampled, so that what vLLM compiles at its first token delays no reply."""
        try:
            for temperature in (0.0, 1.0):
                self._reply(GenerationRequest(prompt_token_ids=[0, 1], max_tokens=2, temperature=temperature, top_p=0.9))
        except Exception as error:
            raise ModelError(f"vLLM does not generate: {_first_line(error)}; its log has the details") from error
        self.steps = self.requests = 0

    def _reply(self, request: GenerationRequest) -> GenerationOutput:
        done: Future[GenerationOutput] = Future()
        self.submit(request, partial(_resolve, done)).result(_WARM_UP_SECONDS)
        return done.result(_WARM_UP_SECONDS)

    def _run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the engine thread."""
        if self._loop.is_closed():
            work.close()
            stopped: Future[T] = Future()
            stopped.set_exception(EngineStoppedError(_STOPPED))
            return stopped
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _track_load(self, name: str, folder: Path) -> None:
        """Load in a task that `stop` can cancel."""
        self._raise_if_stopped()
        task = asyncio.create_task(self._load(name, folder))
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)
        try:
            await task
        except asyncio.CancelledError:
            raise EngineStoppedError(_STOPPED) from None

    async def _load(self, name: str, folder: Path) -> None:
        if self._removals:  # they make room
            await asyncio.wait(self._removals)
        number = self._leases.reserve()
        adapter = ResidentAdapter(number, name, str(self._folder / str(number)))
        try:
            await asyncio.to_thread(_copy_adapter, folder, Path(adapter.folder))
            if not await self._call(self._llm.add_lora(_lora_request(adapter))):
                raise AdapterRefusedError("vLLM does not load it")
        except Exception as error:
            await self._remove(adapter)
            self._raise_if_stopped()
            raise AdapterRefusedError(f"{folder}: {_first_line(error)}") from None
        self._remove_later(self._leases.add(adapter))

    async def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Await a call of vLLM's. The call itself never ends if vLLM's process ends first."""
        call = asyncio.ensure_future(work)
        try:
            while not call.done():
                self._raise_if_stopped()
                await asyncio.wait([call], timeout=_POLL_SECONDS)
            return call.result()
        finally:
            call.cancel()

    def _raise_if_stopped(self) -> None:
        if not self.is_healthy:
            raise EngineStoppedError(_STOPPED)

    async def _unload(self, name: str) -> None:
        self._remove_later(self._leases.unload(name))

    async def _submit(self, request: GenerationRequest, sink: OutputSink) -> int:
        self._raise_if_stopped()
        if request.blend is not None:
            raise ModelError(BLEND_REFUSED)
        if request.echo and request.logprobs is not None:
            raise ModelError(ECHO_REFUSED)
        adapter = self._leases.acquire(request.adapter)
        try:
            state = self._input_processor.make_state(request, ())
            arguments = sampling_arguments(request, self._end_token_ids)
        except BaseException:
            self._remove_later(self._leases.release(adapter))
            raise
        self._tasks[state.request_id] = asyncio.create_task(self._answer(state, arguments, adapter, sink))
        self.requests += 1
        return state.request_id

    async def _answer(
        self, state: RequestState, arguments: Mapping[str, Any], adapter: ResidentAdapter | None, sink: OutputSink
    ) -> None:
        try:
            await self._generate(state, arguments, adapter, sink)
        except asyncio.CancelledError:
            if self._is_stopped:
                sink(EngineStoppedError(_STOPPED))
            raise
        except Exception as error:
            sink(self._translate(error))
        finally:
            self._tasks.pop(state.request_id, None)
            self._remove_later(self._leases.release(adapter))

    async def _generate(
        self, state: RequestState, arguments: Mapping[str, Any], adapter: ResidentAdapter | None, sink: OutputSink
    ) -> None:
        outputs = self._llm.generate(
            {"prompt_token_ids": state.prompt_token_ids},
            _sampling_params(arguments),
            str(state.request_id),
            lora_request=_lora_request(adapter) if adapter else None,
        )
        async with aclosing(outputs):  # a reply that a stop string ends is aborted in vLLM
            async for output in outputs:
                self._count_step(state.request_id)
                completion = output.outputs[0]
                delta = read_output(state, completion, self._end_token_ids)
                if delta.text or delta.logprobs:
                    sink(delta)
                if state.is_finished and completion.finish_reason is None:
                    break
        sink(state.make_output())

    def _translate(self, error: Exception) -> Exception:
        """An error that a process without vLLM can read."""
        if not self.is_healthy:
            return EngineStoppedError(_STOPPED)
        logger.error("engine: vLLM failed a request", exc_info=error)
        return error if isinstance(error, GenerationFailedError) else GenerationFailedError(_first_line(error))

    def _count_step(self, request_id: int) -> None:
        """Count a step when a request gets its second output since the last one. A step gives a request at most one."""
        if not self._stepped or request_id in self._stepped:
            self._stepped.clear()
            self.steps += 1
        self._stepped.add(request_id)

    def _cancel(self, request_id: int) -> None:
        if task := self._tasks.get(request_id):
            task.cancel()

    def _remove_later(self, adapter: ResidentAdapter | None) -> None:
        """Remove an adapter that nothing uses. vLLM handles it after the abort of its last request, as both are sent in order."""
        if adapter:
            task = asyncio.create_task(self._remove(adapter))
            self._removals.add(task)
            task.add_done_callback(self._removals.discard)

    async def _remove(self, adapter: ResidentAdapter) -> None:
        try:
            await self._call(self._llm.remove_lora(adapter.number))
            self._leases.forget(adapter.number)
        except EngineStoppedError:  # its memory is free
            pass
        except Exception as error:
            logger.warning("engine: vLLM cannot remove adapter %s: %s", adapter.name, _first_line(error))
        shutil.rmtree(adapter.folder, ignore_errors=True)

    async def _stop(self) -> None:
        self._is_stopped = True
        await asyncio.sleep(0)  # a task that is cancelled before its first step never tells its client
        tasks = [*self._tasks.values(), *self._loads, *self._removals, self._watcher]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._llm.shutdown()

    def _close(self) -> None:
        """End the thread and, by the guard, every process of vLLM. A thread that vLLM blocks is left."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)
        end_guard(self._guard)
        if not self._thread.is_alive():
            self._loop.close()


def _resolve(done: Future[GenerationOutput], output: OutputDelta | GenerationOutput | Exception) -> None:
    """Receive the output of a request whose complete reply is awaited."""
    if isinstance(output, Exception):
        done.set_exception(output)
    elif isinstance(output, GenerationOutput):
        done.set_result(output)


def _copy_adapter(source: Path, target: Path) -> None:
    """Copy the files of an adapter.

    Raises:
        ModelError: they cannot be copied.
    """
    try:
        target.mkdir(parents=True)
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            shutil.copyfile(source / name, target / name)
    except OSError as error:
        raise ModelError(f"it cannot be copied to {target.parent}: {error.strerror or error}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


async def _open_llm(arguments: Mapping[str, Any]) -> Any:
    """Start vLLM in the running event loop.

    Raises:
        ModelError: it does not start.
    """
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    except ModuleNotFoundError as error:
        missing = f"this Python has no module {error.name}"
        raise ModelError(f"vLLM does not start: {missing}; set serve.vllm.python to the Python of its environment") from error
    except Exception as error:
        raise ModelError(f"vLLM does not start: {_first_line(error)}; its log has the details") from error


def _sampling_params(arguments: Mapping[str, Any]) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(**arguments, output_kind=RequestOutputKind.DELTA, skip_clone=True)


def _lora_request(adapter: ResidentAdapter) -> Any:
    """vLLM's name of an adapter. It compares adapters by name, so the number is part of it."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(f"{adapter.name}#{adapter.number}", adapter.number, adapter.folder)
