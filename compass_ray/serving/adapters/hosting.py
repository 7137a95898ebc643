"""Adapters in one process: loads what is live, keeps what was, says what can be answered with.

Key property: a version is loaded before it is offered, and one that cannot be loaded never displaces the
version that answers. Plain Python over whatever holds the adapters. It knows no Ray, no HTTP, and generates
nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.serving.answering.backend import AdapterUnavailableError
from compass_ray.serving.registry import AdapterName, Catalogue

logger = logging.getLogger(__name__)

IDLE_SECONDS = 120.0
"""How long a version that is no longer live stays loaded after its last order."""
RETRY_SECONDS = 30.0
"""How long a version that could not be loaded is left alone."""


class Resident(Protocol):
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
class Problem:
    """Why a version cannot be loaded, and when that was found."""

    reason: str
    time: float


@dataclass(frozen=True)
class HostState:
    """What a host answers with, the adapters that cannot be loaded and why, and its steps and orders so far."""

    catalogue: Catalogue
    problems: Mapping[str, str]
    steps: int = 0
    orders: int = 0


class AdapterHost:
    """Keeps the resident adapters in step with a run's live pointers. Any thread may call it."""

    def __init__(self, resident: Resident, run: RunDir, *, clock: Callable[[], float]) -> None:
        """Start with no adapter loaded; `follow` brings the live ones."""
        self.resident = resident
        self.run = run
        self.clock = clock
        self.catalogue = Catalogue(live={}, versions={})
        self.problems: dict[str, Problem] = {}
        self._used: dict[str, float] = {}
        self._one_at_a_time = threading.Lock()

    def follow(self, found: Catalogue) -> Catalogue:
        """Load what became live, a canary or a shadow, and drop what is idle.

        Returns:
            What can be answered with now: a language whose new version cannot be loaded keeps the one before.
        """
        live = {code: self._usable(code, version) for code, version in found.live.items()}
        self.catalogue = replace(
            found,
            live={code: version for code, version in live.items() if version is not None},
            canaries={code: each for code, each in found.canaries.items() if self._loaded(AdapterName(code, each.version))},
            shadows={code: version for code, version in found.shadows.items() if self._loaded(AdapterName(code, version))},
            problems=found.problems,
            pins=found.pins,
        )
        self._drop_idle()
        return self.catalogue

    def ready(self, names: Iterable[str]) -> bool:
        """Whether all of these are loaded, and thus `ensure` would not wait."""
        now, there = self.clock(), self.resident.names
        for name in names:
            if name not in there:
                return False
            self._used[name] = now
        return True

    def ensure(self, name: str) -> None:
        """Load an adapter unless it is loaded.

        Raises:
            AdapterUnavailableError: it is missing, damaged, or not made for the base model.
        """
        self._used[name] = self.clock()  # before, since what was loaded and not used is dropped
        with self._one_at_a_time:
            if name not in self.resident.names:
                self._load(AdapterName.parse(name))

    def _usable(self, language: str, version: str) -> str | None:
        if self._loaded(AdapterName(language, version)):
            return version
        before = self.catalogue.live.get(language)
        return before if before and str(AdapterName(language, before)) in self.resident.names else None

    def _loaded(self, name: AdapterName) -> bool:
        try:
            self.ensure(str(name))
        except AdapterUnavailableError:
            return False
        return True

    def _load(self, name: AdapterName) -> None:
        text, now = str(name), self.clock()
        problem = self.problems.get(text)
        if problem and now - problem.time < RETRY_SECONDS:
            raise AdapterUnavailableError(problem.reason)
        artifact = self.run.adapter(name.language, name.version)
        try:
            artifact.verify()
            with artifact.local() as folder:
                self.resident.load(text, folder)
        except (ArtifactError, ValueError, OSError) as error:
            reason = f"{name} cannot be loaded: {error}"
            logger.warning("%s", reason)
            self.problems[text] = Problem(reason, now)
            raise AdapterUnavailableError(reason) from None
        self.problems.pop(text, None)

    def _drop_idle(self) -> None:
        offered = self.catalogue
        canaries = {code: canary.version for code, canary in offered.canaries.items()}
        kept = {str(AdapterName(*each)) for by in (offered.live, offered.shadows, canaries) for each in by.items()}
        oldest = self.clock() - IDLE_SECONDS
        for name in set(self.resident.names) - kept:
            if self._used.get(name, 0.0) < oldest:
                self.resident.unload(name)
                self._used.pop(name, None)
