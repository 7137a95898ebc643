"""The catalogue of servable versions, and a reader that polls it every second for one request to the store.

A pointer is read only when its listing entry changes. Manifests are never read, because complete versions never change.
A language with a damaged pointer keeps its previous state. No adapter is verified or loaded here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from compass_ray.artifacts import RunDir
from compass_ray.registry.live_pointer import Canary, LivePointer, read_pointer
from compass_ray.registry.names import AdapterName, RegistryError

LIST_INTERVAL_SECONDS = 5.0
"""Interval between listings of versions while no pointer changes."""
_CLOCK_TICK_SECONDS = 2.0
"""Resolution of a store's clock. Two changes within one tick can leave equal etags, so a changed pointer is read again
until this time has passed.
"""


@dataclass(frozen=True)
class Catalogue:
    """The servable versions of a run: the live version of each language, and every complete version.

    A version in ``shadows`` answers a copy of each request of its language. No client sees the copies.
    """

    live: Mapping[str, str]
    versions: Mapping[str, tuple[str, ...]]
    canaries: Mapping[str, Canary] = field(default_factory=dict)
    shadows: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    """Why a language's pointer cannot be read. The language keeps its previous state."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """Reason of the pin, for each pinned language. The live version of a pinned language does not change."""
    previous: Mapping[str, str] = field(default_factory=dict)
    """The version that a rollback makes live, for each language that has one."""

    def has_version(self, name: AdapterName) -> bool:
        """Whether the version is complete."""
        return name.version in self.versions.get(name.language, ())


@dataclass
class _CachedPointer:
    """A pointer as last read, its etag, and the time since when the etag is unchanged."""

    etag: tuple[int, int]
    etag_since: float
    read_at: float
    live: LivePointer | None

    def is_current(self, etag: tuple[int, int]) -> bool:
        """Whether a pointer with this etag need not be read again."""
        return self.etag == etag and self.read_at - self.etag_since >= _CLOCK_TICK_SECONDS


class CatalogueReader:
    """Reads a run's catalogue repeatedly. Thread-safe."""

    def __init__(self, run: RunDir, languages: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        """Start without reading anything; ``clock`` returns seconds."""
        self.run = run
        self.languages = tuple(languages)
        self.clock = clock
        self._pointers: dict[str, _CachedPointer] = {}
        self._problems: dict[str, str] = {}
        self._versions: dict[str, tuple[str, ...]] = {}
        self._listed: float | None = None
        self._lock = threading.Lock()

    def read(self) -> Catalogue:
        """The current catalogue.

        Raises:
            ArtifactError: the store cannot be reached.
        """
        with self._lock:
            return self._read()

    def _read(self) -> Catalogue:
        etags = self.run.live_pointer_etags()
        previous = {code: pointer.live for code, pointer in self._pointers.items()}
        for code in self.languages:
            self._refresh_pointer(code, etags.get(code))
        current = {code: pointer.live for code, pointer in self._pointers.items()}
        self._list_versions(force=current != previous)
        return self._catalogue({code: live for code, live in current.items() if live})

    def _refresh_pointer(self, language: str, etag: tuple[int, int] | None) -> None:
        cached = self._pointers.get(language)
        if etag is None:
            self._pointers.pop(language, None)
            self._problems.pop(language, None)
        elif cached is None or language in self._problems or not cached.is_current(etag):
            now = self.clock()
            since = cached.etag_since if cached and cached.etag == etag else now
            self._pointers[language] = _CachedPointer(etag, since, now, self._read_pointer(language, cached))

    def _read_pointer(self, language: str, cached: _CachedPointer | None) -> LivePointer | None:
        try:
            live = read_pointer(self.run, language).live
        except RegistryError as error:
            self._problems[language] = str(error)
            return cached.live if cached else None
        self._problems.pop(language, None)
        return live

    def _list_versions(self, *, force: bool) -> None:
        now = self.clock()
        if force or self._listed is None or now - self._listed >= LIST_INTERVAL_SECONDS:
            self._versions, self._listed = self.run.complete_adapters(), now

    def _catalogue(self, pointers: Mapping[str, LivePointer]) -> Catalogue:
        ordered = {code: pointers[code] for code in self.languages if code in pointers}
        return Catalogue(
            live={code: live.version for code, live in ordered.items()},
            versions={code: self._versions[code] for code in self.languages if code in self._versions},
            canaries={code: live.canary for code, live in ordered.items() if live.canary},
            shadows={code: live.shadow for code, live in ordered.items() if live.shadow},
            problems=dict(self._problems),
            pins={code: live.pinned.reason for code, live in ordered.items() if live.pinned},
            previous={code: live.history[-1].version for code, live in ordered.items() if live.history},
        )


def read_catalogue(run: RunDir, languages: Sequence[str]) -> Catalogue:
    """The current catalogue of the languages, read once."""
    return CatalogueReader(run, languages).read()


def live_versions(run: RunDir, languages: Sequence[str] | None = None) -> dict[str, str]:
    """The live version of each language that has one. Defaults to all languages of the run."""
    codes = run.read_config().languages if languages is None else languages
    return dict(read_catalogue(run, codes).live)
