"""The run directory and the names of everything in it; no other module knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compass_ray.artifacts.artifact import Artifact
from compass_ray.artifacts.cas_file import CompareAndSwapFile
from compass_ray.artifacts.errors import ArtifactError
from compass_ray.artifacts.files import Files
from compass_ray.artifacts.filesystem import open_filesystem
from compass_ray.artifacts.manifest import MANIFEST
from compass_ray.artifacts.object_store import ConditionalObjectStore, supports_conditional_put, wrap_store_errors
from compass_ray.config import ConfigError, RunConfig
from compass_ray.config.base import FORMER_NAMES_ARE_SILENT

FIRST_VERSION = "v0001"
ALL_LANGUAGES = "all"
"""The method that trains one adapter for all languages on the whole pool."""
FULL_FINETUNING = "compass_fft"
"""The method that trains the whole base model of each language on what COMPASS selects; it has no adapter."""
SHARED = "shared"
"""Stands in paths where a language does, for what all languages share."""
CORRECTIONS_FILE = "labelled.parquet"
"""Of a selection that users' corrections joined: their texts (tables.LABELLED)."""
_CONFIG_FILE = "run.json"
_PINS_FILE = "pins.json"


def version_of(config: RunConfig, method: str) -> str:
    """The served method's adapters start the line of versions; the others are named after their method."""
    return FIRST_VERSION if method == config.serve.method else method


def owner(method: str, language: str) -> str:
    """Whose selection and adapter a language has under a method: its own, or what all languages share."""
    return SHARED if method == ALL_LANGUAGES else language


def selection_method(method: str) -> str:
    """The method whose selection another one trains on: its own, or that of COMPASS under full fine-tuning."""
    return "compass" if method == FULL_FINETUNING else method


def selection_owners(config: RunConfig) -> list[tuple[str, str]]:
    """Method and home of every selection of a run, each once, language by language."""
    methods = [selection_method(method) for method in config.select.methods]
    return list(dict.fromkeys((m, owner(m, code)) for code in config.languages for m in methods))


def adapter_owners(config: RunConfig) -> list[tuple[str, str]]:
    """Method and home of every first adapter of a run, each once, language by language."""
    return [(method, whose) for method, whose in selection_owners(config) if method in config.select.methods]


def full_finetuning_languages(config: RunConfig) -> tuple[str, ...]:
    """The languages that get a whole model of their own."""
    return config.languages if FULL_FINETUNING in config.select.methods else ()


def clustering_key(config: RunConfig, language: str) -> str:
    """Whose clusters a language's rows are put in: its own under `cluster.scope: per_language`, else what all share."""
    return language if config.cluster.scope == "per_language" else SHARED


def clustering_keys(config: RunConfig) -> list[str]:
    """Whose clusters a run has."""
    return list(dict.fromkeys(clustering_key(config, language) for language in config.languages))


class RunDir:
    """A run directory, local or on an object store, and the names of everything in it."""

    def __init__(self, uri: str) -> None:
        """Reach the directory.

        Args:
            uri: a local path, or a URI such as ``s3://bucket/run``.

        Raises:
            ConfigError: nothing, a file, the root of a storage, or a URI that pyarrow cannot reach.
        """
        if not uri.strip():
            raise ConfigError(f"--run {uri!r} is empty, as from a variable that is not set; name a folder or a URI")
        self.uri = uri if "://" in uri else str(Path(uri).expanduser().resolve())
        if "://" not in uri and Path(self.uri).is_file():
            raise ConfigError(f"--run {uri!r} is a file; give a folder, which need not be there yet, or a URI")
        self.filesystem, self.path = open_filesystem(self.uri)
        if not self.path:
            raise ConfigError(f"--run {uri!r} is the root of a storage; name a folder on it, as in s3://bucket/run")

    def __reduce__(self) -> tuple[type[RunDir], tuple[str]]:
        """Travel to workers as the URI alone."""
        return (RunDir, (self.uri,))

    def artifact(self, *parts: str) -> Artifact:
        """The artefact at a path below the run."""
        name = "/".join(parts)
        return Artifact(self.filesystem, f"{self.path}/{name}", name)

    @property
    def pool(self) -> Artifact:
        """``rows.parquet`` (tables.POOL) and ``rejected.parquet`` (tables.REJECTED)."""
        return self.artifact("pool")

    def guide(self, language: str) -> Artifact:
        """``guide.parquet`` (tables.GUIDES) and ``test.parquet`` (tables.ITEMS)."""
        return self.artifact("guides", language)

    @property
    def embeddings(self) -> Artifact:
        """``part-*.parquet`` (tables.embeddings) of the pool."""
        return self.artifact("embeddings", "pool")

    def guide_embeddings(self, language: str) -> Artifact:
        """``part-00000.parquet`` (tables.embeddings) of one guide set."""
        return self.artifact("embeddings", "guides", language)

    @property
    def clusters(self) -> Artifact:
        """The fitted clusterer, ``assignments.arrow`` (tables.ASSIGNMENTS), ``vectors.npy``, centroids and sweep."""
        return self.clustering(SHARED)

    def clustering(self, whose: str) -> Artifact:
        """The clusters of all languages, or of one (see `clustered`)."""
        return self.artifact("clusters") if whose == SHARED else self.artifact("language_clusters", whose)

    def reclustering(self, name: str) -> Artifact:
        """The very files of ``clusters``, fitted anew with traffic: ``c0002`` and so on, and ``clusters`` itself by its name."""
        return self.clusters if name == self.clusters.name else self.artifact("clusterings", name)

    def reclusterings(self) -> list[str]:
        """Names of the clusterings that were fitted anew, whole ones only, sorted."""
        return [name for name in self._folders("clusterings") if self.reclustering(name).manifest()]

    def active_clustering_pointer(self) -> CompareAndSwapFile:
        """Which clustering traffic is counted in; not there while it is ``clusters``."""
        return CompareAndSwapFile(self._files, f"{self.path}/serving/clusters.json", self.uri)

    def reference(self, clusters: str, language: str, version: str) -> Artifact:
        """``reference.json`` of an adapter version in clusters that are not those it was made in."""
        return self.artifact("references", clusters, language, version)

    def budget(self, language: str) -> Artifact:
        """``budget.json``: the budget found for a language and how; ``held.parquet``, by which its trials were judged."""
        return self.artifact("budgets", language)

    def selection(self, method: str, language: str) -> Artifact:
        """``rows.parquet`` (tables.SELECTED) and ``allocation.json``; one for methods that train on the same.

        Where corrections may join: ``labelled.parquet`` (tables.LABELLED) and ``quarantine.parquet`` (tables.WITHHELD).
        """
        return self.artifact("selections", selection_method(method), owner(method, language))

    def selections_with_corrections(self) -> list[Artifact]:
        """Whole selections that users' corrections joined, by one listing."""
        found = self._files.list_recursive(f"{self.path}/selections")
        folders = [path.removesuffix(f"/{CORRECTIONS_FILE}") for path in sorted(found) if path.endswith(f"/{CORRECTIONS_FILE}")]
        return [self.artifact("selections", folder) for folder in folders if f"{folder}/{MANIFEST}" in found]

    def selection_names(self, language: str) -> list[str]:
        """Methods and versions that a language has a whole selection of, sorted."""
        return [name for name in self._folders("selections") if self.selection(name, language).manifest()]

    def adapter(self, language: str, version: str) -> Artifact:
        """A PEFT directory, ``history.json``, ``reference.json`` and, where served, anchors and Fisher."""
        return self.artifact("adapters", owner(version, language), version)

    def full_model(self, language: str, method: str) -> Artifact:
        """A Hugging Face directory with the whole model, and ``history.json``."""
        return self.artifact("models", language, method)

    def update(self, language: str, version: str) -> Artifact:
        """``gate.json``: what the promotion gate measured of an update, and its verdict."""
        return self.artifact("updates", language, version)

    def change(self, language: str, version: str) -> Artifact:
        """``results.json``: accuracy on old and new subjects before and after an update, where it was measured."""
        return self.artifact("changes", language, version)

    def simulation(self, language: str, part: str) -> Artifact:
        """``prompts``: where simulated users' prompts lie; ``detection``: ``results.json`` and pictures of the drift alarm.

        ``learning``, of all languages together: the same of what updates learn and forget; ``lines``: the versions that it made.
        """
        return self.artifact("simulations", language, part)

    def evaluation(self, method: str, language: str) -> Artifact:
        """``items.parquet`` (tables.SCORED) and ``results.json``."""
        return self.artifact("evaluations", method, language)

    @property
    def report(self) -> Artifact:
        """``index.html`` and its pictures as PNG."""
        return self.artifact("report")

    def adapter_versions(self, language: str) -> list[str]:
        """Versions of a language's adapters, whole ones only, sorted."""
        return [v for v in self._folders("adapters", language) if self.adapter(language, v).manifest()]

    def complete_adapters(self) -> dict[str, tuple[str, ...]]:
        """Whole versions of every language's adapters, sorted, by one listing; no manifest is read."""
        found: dict[str, list[str]] = {}
        for path in sorted(self._files.list_recursive(f"{self.path}/adapters")):
            language, _, rest = path.partition("/")
            version, _, file = rest.partition("/")
            if file == MANIFEST:
                found.setdefault(language, []).append(version)
        return {language: tuple(sorted(versions)) for language, versions in found.items()}

    def live_pointer_etags(self) -> dict[str, tuple[int, int]]:
        """A mark of each language's live pointer that changes with it (see `Files.marks`), by one listing."""
        marks = self._files.etags(f"{self.path}/serving/live")
        return {name.removesuffix(".json"): mark for name, mark in marks.items() if name.endswith(".json")}

    def live(self, language: str) -> dict[str, Any] | None:
        """The live pointer of a language: ``version`` and ``fingerprint`` of the adapter that is served.

        Raises:
            ArtifactError: it is damaged.
        """
        return self._live_pointer(language).read()

    def set_live(self, language: str, pointer: Mapping[str, Any]) -> None:
        """Replace the live pointer in one step, whatever it says."""
        self._live_pointer(language).write(pointer)

    def replace_live(self, language: str, pointer: Mapping[str, Any], found: Mapping[str, Any] | None) -> None:
        """Replace the live pointer while it still says what `live` had given.

        Raises:
            LostRaceError: another process has changed it since.
        """
        self._live_pointer(language).compare_and_swap(pointer, found)

    def clear_live(self, language: str) -> None:
        """Remove the live pointer, if there is one; the router falls back."""
        self._files.delete(self._live_pointer(language).path)

    def _live_pointer(self, language: str) -> CompareAndSwapFile:
        return CompareAndSwapFile(self._files, f"{self.path}/serving/live/{language}.json", self.uri)

    @property
    def _files(self) -> Files:
        return Files(self.filesystem)

    def read_monitor(self, file: str) -> bytes | None:
        """A file of the monitor's state, None before it was first written."""
        return self._read(f"monitor/{file}")

    def write_monitor(self, file: str, data: bytes) -> None:
        """Replace a file of the monitor's state in one step."""
        self._write(f"monitor/{file}", data)

    def monitor_files(self) -> list[str]:
        """Every file of the monitor's state, by its path below the monitor's folder, sorted."""
        return sorted(self._files.list_recursive(f"{self.path}/monitor"))

    def delete_monitor(self, file: str) -> None:
        """Delete a file of the monitor's state, which need not be there."""
        self._files.delete(f"{self.path}/monitor/{file}")

    def extend_monitor(self, file: str, extended: Callable[[bytes], bytes]) -> None:
        """Replace a file of the monitor's state on a store by what is made of it; no other writer's addition is lost.

        On S3 and Cloud Storage; elsewhere the file is read and put, which leaves the moment between the two.
        """
        path = f"{self.path}/monitor/{file}"
        if not supports_conditional_put(self.uri):
            self._files.put(path, extended(self.read_monitor(file) or b""))
            return
        with wrap_store_errors(path):
            ConditionalObjectStore(self.uri, self._files).extend_object(path, extended)

    def write_config(self, config: RunConfig) -> None:
        """Keep the configuration of the run beside its artefacts."""
        self.write_config_bytes(config.model_dump_json(indent=2).encode())

    def read_config_bytes(self) -> bytes | None:
        """The kept configuration as it is written, None where there is no run."""
        return self._read(_CONFIG_FILE)

    def write_config_bytes(self, data: bytes) -> None:
        """Put back a configuration that `read_record` gave."""
        self._write(_CONFIG_FILE, data)

    def read_pins(self) -> bytes | None:
        """The commits of what comes from the hub, None where the run was not pinned."""
        return self._read(_PINS_FILE)

    def write_pins(self, data: bytes) -> None:
        """Replace the pins in one step."""
        self._write(_PINS_FILE, data)

    def read_config(self) -> RunConfig:
        """The configuration that the run was last given.

        Raises:
            ArtifactError: there is no run here.
        """
        found = self.read_config_bytes()
        if found is None:
            raise ArtifactError(f"there is no run in {self.uri}; make one with 'compass-ray adapt --run {self.uri}'")
        try:
            return RunConfig.model_validate_json(found, context={FORMER_NAMES_ARE_SILENT: True})
        except ValidationError as error:
            raise ArtifactError(
                f"{self.uri}/run.json is damaged or of another version ({error.error_count()} problems); "
                f"run 'compass-ray adapt --run {self.uri}' with the run's settings to write it again"
            ) from None

    def _folders(self, *parts: str) -> list[str]:
        return self._files.list_folders("/".join((self.path, *parts)))

    def _read(self, file: str) -> bytes | None:
        try:
            return self._files.read(f"{self.path}/{file}")
        except FileNotFoundError:
            return None

    def _write(self, file: str, data: bytes) -> None:
        self._files.put(f"{self.path}/{file}", data)
