"""Adapters in one process: loads what is live, keeps what was, says what can be answered with.

Key property: a version is loaded before it is offered, and one that cannot be loaded never displaces the
version that answers. Plain Python over whatever holds the adapters. It knows no Ray, no HTTP, and generates
nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from compass_ray.artifacts import RunDir
from compass_ray.registry import AdapterName, Catalogue, RegistryError, verify_servable
from compass_ray.serving.inference.backend import AdapterUnavailableError

logger = logging.getLogger(__name__)

IDLE_SECONDS = 120.0
"""How long a version that is no longer live stays loaded after its last order."""
RETRY_SECONDS = 30.0
"""How long a version that could not be loaded is left alone."""
MAX_UNSERVED_VERSIONS = 16
"""Versions that are kept loaded without being live, a canary or a shadow."""


class AdapterLoader(Protocol):
    """A base model with adapters resident; see `generating.GenerationLoop`."""

    @property
    def names(self) -> Sequence[str]:
        """Adapters that are loaded."""
        ...

    def load(self, name: str, folder: Path) -> None:
        """Make an adapter resident; ValueError where it does not fit the base."""
        ...

    def unload(self, name: str) -> None:
        """Forget an adapter."""
        ...


@dataclass(frozen=True)
class LoadFailure:
    """Why a version cannot be loaded, and when that was found."""

    reason: str
    time: float


@dataclass(frozen=True)
class HostState:
    """What a host answers with, the adapters that cannot be loaded and why, and its steps and orders so far."""

    catalogue: Catalogue
    problems: Mapping[str, str]
    steps: int = 0
    requests: int = 0
    desired_live: Mapping[str, str] = field(default_factory=dict)
    """What the pointers call live, whether it could be loaded or not."""


class AdapterHost:
    """Keeps the resident adapters in step with a run's live pointers. Any thread may call it."""

    def __init__(self, resident: AdapterLoader, run: RunDir, *, clock: Callable[[], float]) -> None:
        """Start with no adapter loaded; `follow` brings the live ones."""
        self.loader = resident
        self.run = run
        self.clock = clock
        self.catalogue = Catalogue(live={}, versions={})
        self.problems: dict[str, LoadFailure] = {}
        self._last_used: dict[str, float] = {}
        self.desired_live: Mapping[str, str] = {}
        self._served: set[str] = set()
        self._load_lock, self._sync_lock = threading.Lock(), threading.Lock()

    def sync(self, found: Catalogue) -> Catalogue:
        """Load what became live, a canary or a shadow, and drop what is idle.

        Returns:
            What can be answered with now: a language whose new version cannot be loaded keeps the one before.
        """
        with self._sync_lock:
            self._served = _served_names(found) | _served_names(self.catalogue)
            live = {code: self._usable_version(code, version) for code, version in found.live.items()}
            self.desired_live = found.live
            self.catalogue = replace(
                found,
                live={code: version for code, version in live.items() if version is not None},
                canaries={code: each for code, each in found.canaries.items() if self._try_load(AdapterName(code, each.version))},
                shadows={code: version for code, version in found.shadows.items() if self._try_load(AdapterName(code, version))},
            )
            self._served = _served_names(self.catalogue)
            self._unload(self._idle())
            return self.catalogue

    def state(self, steps: int, orders: int) -> HostState:
        """What can be answered with as of the last look, and what cannot; any thread may ask while others load."""
        problems = {name: problem.reason for name, problem in list(self.problems.items())}
        return HostState(self.catalogue, problems, steps, orders, self.desired_live)

    def is_loaded(self, names: Iterable[str]) -> bool:
        """Whether all of these are loaded, and thus `ensure` would not wait."""
        now, there = self.clock(), self.loader.names
        for name in names:
            if name not in there:
                return False
            self._last_used[name] = now
        return True

    def ensure_loaded(self, name: str) -> None:
        """Load an adapter unless it is loaded.

        Raises:
            AdapterUnavailableError: it is missing, damaged, or not made for the base model.
        """
        self._last_used[name] = self.clock()  # before, since what was loaded and not used is dropped
        with self._load_lock:
            if name not in self.loader.names:
                self._unload(self._to_evict())
                self._load(AdapterName.parse(name))

    def _usable_version(self, language: str, version: str) -> str | None:
        if self._try_load(AdapterName(language, version)):
            return version
        before = self.catalogue.live.get(language)
        return before if before and str(AdapterName(language, before)) in self.loader.names else None

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
        except Exception as error:  # whatever one adapter does, the others are followed
            reason = str(error) if isinstance(error, RegistryError) else f"{name} cannot be loaded: {error}"
            logger.warning("%s", reason)
            self.problems[text] = LoadFailure(reason, now)
            raise AdapterUnavailableError(reason) from None
        self.problems.pop(text, None)

    def _idle(self) -> list[str]:
        """What nothing offers and nobody asked for lately."""
        oldest = self.clock() - IDLE_SECONDS
        return [name for name in self._unserved() if self._last_used.get(name, 0.0) < oldest]

    def _to_evict(self) -> list[str]:
        """What to drop before one more is loaded: versions asked for by name must not fill the memory."""
        beside = self._unserved()
        return beside[: max(len(beside) - MAX_UNSERVED_VERSIONS + 1, 0)]

    def _unserved(self) -> list[str]:
        """Adapters that are loaded and not offered, the one used longest ago first."""
        return sorted(set(self.loader.names) - self._served, key=lambda name: self._last_used.get(name, 0.0))

    def _unload(self, names: Iterable[str]) -> None:
        for name in names:
            self.loader.unload(name)
            self._last_used.pop(name, None)


def merge_host_state(before: Catalogue, state: HostState) -> Catalogue:
    """What the service can answer with, after one replica has said what it can.

    A replica that could not load what is live, or not yet, takes nothing from the others: what the pointers call live stays as
    long as it was known to answer somewhere.
    """
    known = {code: before.live[code] for code, version in state.desired_live.items() if before.live.get(code) == version}
    return replace(state.catalogue, live={**state.catalogue.live, **known})


def _served_names(catalogue: Catalogue) -> set[str]:
    """Names of all that is live, a canary or a shadow."""
    canaries = {code: canary.version for code, canary in catalogue.canaries.items()}
    return {str(AdapterName(*each)) for by in (catalogue.live, catalogue.shadows, canaries) for each in by.items()}
