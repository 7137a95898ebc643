"""What a run has to answer with, and a reader that follows it every second at the price of one request.

Key property: pointers are read only when a listing shows that they changed, and no manifest is read at all, since whole
versions never change. A language whose pointer is damaged keeps what it had. It judges no adapter and loads none.
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
"""How often versions are listed while no pointer changes."""
_CLOCK_TICK_SECONDS = 2.0
"""A store's clock may tick in seconds, and two changes within a tick leave the same mark; so a pointer that changed is read
again until this is past."""


@dataclass(frozen=True)
class Catalogue:
    """What a run has to answer with: the live version of each language, and every whole version.

    ``shadows`` answer a copy of each request of their language, which no client sees.
    """

    live: Mapping[str, str]
    versions: Mapping[str, tuple[str, ...]]
    canaries: Mapping[str, Canary] = field(default_factory=dict)
    shadows: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    """Why the pointer of a language cannot be read; the language stands as it was read last."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """Why a language's live version may not change, of those that are pinned."""

    def has_version(self, name: AdapterName) -> bool:
        """Whether the version is whole."""
        return name.version in self.versions.get(name.language, ())


@dataclass
class _CachedPointer:
    """What was read of one pointer, under which mark, and since when it has had that mark."""

    etag: tuple[int, int]
    etag_since: float
    read_at: float
    live: LivePointer | None

    def is_current(self, mark: tuple[int, int]) -> bool:
        """Whether a pointer with this mark need not be read again."""
        return self.etag == mark and self.read_at - self.etag_since >= _CLOCK_TICK_SECONDS


class CatalogueReader:
    """Reads a run's catalogue again and again; any thread may."""

    def __init__(self, run: RunDir, languages: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is read yet; ``clock`` gives seconds."""
        self.run = run
        self.languages = tuple(languages)
        self.clock = clock
        self._pointers: dict[str, _CachedPointer] = {}
        self._problems: dict[str, str] = {}
        self._versions: dict[str, tuple[str, ...]] = {}
        self._listed: float | None = None
        self._lock = threading.Lock()

    def read(self) -> Catalogue:
        """What the run can answer with now.

        Raises:
            ArtifactError: the store is out of reach.
        """
        with self._lock:
            return self._read()

    def _read(self) -> Catalogue:
        marks = self.run.live_pointer_etags()
        before = {code: pointer.live for code, pointer in self._pointers.items()}
        for code in self.languages:
            self._refresh_pointer(code, marks.get(code))
        lives = {code: pointer.live for code, pointer in self._pointers.items()}
        self._list_versions(anew=lives != before)
        return self._catalogue({code: live for code, live in lives.items() if live})

    def _refresh_pointer(self, language: str, mark: tuple[int, int] | None) -> None:
        known = self._pointers.get(language)
        if mark is None:
            self._pointers.pop(language, None)
            self._problems.pop(language, None)
        elif known is None or language in self._problems or not known.is_current(mark):
            now = self.clock()
            marked = known.etag_since if known and known.etag == mark else now
            self._pointers[language] = _CachedPointer(mark, marked, now, self._read_pointer(language, known))

    def _read_pointer(self, language: str, known: _CachedPointer | None) -> LivePointer | None:
        try:
            live = read_pointer(self.run, language).live
        except RegistryError as error:
            self._problems[language] = str(error)
            return known.live if known else None
        self._problems.pop(language, None)
        return live

    def _list_versions(self, *, anew: bool) -> None:
        now = self.clock()
        if anew or self._listed is None or now - self._listed >= LIST_INTERVAL_SECONDS:
            self._versions, self._listed = self.run.complete_adapters(), now

    def _catalogue(self, lives: Mapping[str, LivePointer]) -> Catalogue:
        ordered = {code: lives[code] for code in self.languages if code in lives}
        return Catalogue(
            live={code: live.version for code, live in ordered.items()},
            versions={code: self._versions[code] for code in self.languages if code in self._versions},
            canaries={code: live.canary for code, live in ordered.items() if live.canary},
            shadows={code: live.shadow for code, live in ordered.items() if live.shadow},
            problems=dict(self._problems),
            pins={code: live.pinned.reason for code, live in ordered.items() if live.pinned},
        )


def read_catalogue(run: RunDir, languages: Sequence[str]) -> Catalogue:
    """What the run can answer with for the languages, read once."""
    return CatalogueReader(run, languages).read()


def live_versions(run: RunDir, languages: Sequence[str] | None = None) -> dict[str, str]:
    """The live version of each language that has one; of all the run's languages when none are given."""
    codes = run.read_config().languages if languages is None else languages
    return dict(read_catalogue(run, codes).live)
