"""The adapters of one process: load live versions, unload idle ones, and report what can be served.

A version is loaded before it is offered. A version that cannot be loaded never replaces the one that is served. Knows no Ray and
no HTTP, and generates nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from compass_ray.artifacts import RunDir
from compass_ray.engine.protocol import EngineStoppedError
from compass_ray.registry import AdapterName, Catalogue, RegistryError, verify_servable
from compass_ray.serving.inference.backend import AdapterUnavailableError

logger = logging.getLogger(__name__)

IDLE_SECONDS = 120.0
"""How long a version that is no longer served stays loaded after its last request."""
RETRY_SECONDS = 30.0
"""Delay before another attempt to load a version that could not be loaded."""
MAX_UNSERVED_VERSIONS = 16
"""Maximum number of loaded versions that are not live, a canary or a shadow."""


class AdapterLoader(Protocol):
    """A base model with loaded adapters; see `engine.protocol.GenerationEngine`."""

    @property
    def names(self) -> Sequence[str]:
        """Loaded adapters."""
        ...

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter. ValueError if it does not fit the base model."""
        ...

    def unload(self, name: str) -> None:
        """Unload an adapter."""
        ...


@dataclass(frozen=True)
class LoadFailure:
    """Why a version cannot be loaded, and the time of the attempt."""

    reason: str
    time: float


@dataclass(frozen=True)
class HostState:
    """The servable versions of a host, its load failures, and its numbers of steps and requests."""

    catalogue: Catalogue
    problems: Mapping[str, str]
    steps: int = 0
    requests: int = 0
    desired_live: Mapping[str, str] = field(default_factory=dict)
    """The live versions by the pointers, loaded or not."""


class AdapterHost:
    """Keeps the loaded adapters in sync with a run's live pointers. Thread-safe."""

    def __init__(self, loader: AdapterLoader, run: RunDir, *, clock: Callable[[], float]) -> None:
        """Start with no adapter; `sync` loads the live ones."""
        self.loader = loader
        self.run = run
        self.clock = clock
        self.catalogue = Catalogue(live={}, versions={})
        self.problems: dict[str, LoadFailure] = {}
        self._last_used: dict[str, float] = {}
        self.desired_live: Mapping[str, str] = {}
        self._served: set[str] = set()
        self._load_lock, self._sync_lock = threading.Lock(), threading.Lock()

    def sync(self, desired: Catalogue) -> Catalogue:
        """Load new live, canary and shadow versions, and unload idle versions.

        Returns:
            The servable versions. A language whose new version cannot be loaded keeps the previous one.
        """
        with self._sync_lock:
            self._served = _served_names(desired) | _served_names(self.catalogue)
            live = {code: self._usable_version(code, version) for code, version in desired.live.items()}
            self.desired_live = desired.live
            self.catalogue = replace(
                desired,
                live={code: version for code, version in live.items() if version is not None},
                canaries={
                    code: canary for code, canary in desired.canaries.items() if self._try_load(AdapterName(code, canary.version))
                },
                shadows={
                    code: version for code, version in desired.shadows.items() if self._try_load(AdapterName(code, version))
                },
            )
            self._served = _served_names(self.catalogue)
            self._unload(self._idle())
            return self.catalogue

    def state(self, steps: int, requests: int) -> HostState:
        """The state as of the last sync. Does not wait for a load in progress."""
        problems = {name: problem.reason for name, problem in list(self.problems.items())}
        return HostState(self.catalogue, problems, steps, requests, self.desired_live)

    def is_loaded(self, names: Iterable[str]) -> bool:
        """Whether all of these are loaded, so that `ensure_loaded` would not wait."""
        now, loaded = self.clock(), self.loader.names
        for name in names:
            if name not in loaded:
                return False
            self._last_used[name] = now
        return True

    def ensure_loaded(self, name: str) -> None:
        """Load an adapter unless it is loaded.

        Raises:
            AdapterUnavailableError: it is missing, damaged, or trained on another base model.
            EngineStoppedError: the engine has stopped. That is no fault of the adapter.
        """
        self._last_used[name] = self.clock()  # before loading, because unused adapters are unloaded
        with self._load_lock:
            if name not in self.loader.names:
                self._unload(self._to_evict())
                self._load(AdapterName.parse(name))

    def _usable_version(self, language: str, version: str) -> str | None:
        if self._try_load(AdapterName(language, version)):
            return version
        previous = self.catalogue.live.get(language)
        return previous if previous and str(AdapterName(language, previous)) in self.loader.names else None

    def _try_load(self, name: AdapterName) -> bool:
        try:
            self.ensure_loaded(str(name))
        except AdapterUnavailableError:
            return False
        return True

    def _load(self, name: AdapterName) -> None:
        text, now = str(name), self.clock()
        problem = self.problems.get(text)
        if problem and now - problem.time < RETRY_SECONDS:
            raise AdapterUnavailableError(problem.reason)
        try:
            verify_servable(self.run, name)
            with self.run.adapter(name.language, name.version).local_folder() as folder:
                self.loader.load(text, folder)
        except EngineStoppedError:
            raise
        except Exception as error:  # a failure of one adapter must not affect the others
            reason = str(error) if isinstance(error, RegistryError) else f"{name} cannot be loaded: {error}"
            logger.warning("engine: cannot load adapter language=%s version=%s: %s", name.language, name.version, reason)
            self.problems[text] = LoadFailure(reason, now)
            raise AdapterUnavailableError(reason) from None
        self.problems.pop(text, None)

    def _idle(self) -> list[str]:
        """Adapters that are not served and were not requested recently."""
        oldest = self.clock() - IDLE_SECONDS
        return [name for name in self._unserved() if self._last_used.get(name, 0.0) < oldest]

    def _to_evict(self) -> list[str]:
        """Adapters to unload before another load, so that requests by version name cannot fill the memory."""
        unserved = self._unserved()
        return unserved[: max(len(unserved) - MAX_UNSERVED_VERSIONS + 1, 0)]

    def _unserved(self) -> list[str]:
        """Loaded adapters that are not served, least recently used first."""
        return sorted(set(self.loader.names) - self._served, key=lambda name: self._last_used.get(name, 0.0))

    def _unload(self, names: Iterable[str]) -> None:
        for name in names:
            self.loader.unload(name)
            self._last_used.pop(name, None)


def merge_host_state(previous: Catalogue, state: HostState) -> Catalogue:
    """The catalogue of the service, after one replica reported its state.

    A replica that cannot load a live version, or not yet, does not remove it: a live version stays as long as some replica could
    serve it.
    """
    retained = {code: previous.live[code] for code, version in state.desired_live.items() if previous.live.get(code) == version}
    return replace(state.catalogue, live={**state.catalogue.live, **retained})


def _served_names(catalogue: Catalogue) -> set[str]:
    """Names of all live, canary and shadow versions."""
    canaries = {code: canary.version for code, canary in catalogue.canaries.items()}
    return {str(AdapterName(*each)) for by in (catalogue.live, catalogue.shadows, canaries) for each in by.items()}
