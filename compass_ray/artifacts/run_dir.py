"""The run directory and the names of all files in it; no other module knows these names."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compass_ray.artifacts.artifact import Artifact
from compass_ray.artifacts.cas_file import CompareAndSwapFile
from compass_ray.artifacts.contained_path import require_contained
from compass_ray.artifacts.errors import ArtifactError
from compass_ray.artifacts.files import Files
from compass_ray.artifacts.filesystem import open_filesystem
from compass_ray.artifacts.manifest import MANIFEST, content_hash
from compass_ray.artifacts.object_store import ConditionalObjectStore, supports_conditional_put, wrap_store_errors
from compass_ray.artifacts.private_files import make_private_folder
from compass_ray.artifacts.write_errors import explain_write_errors
from compass_ray.config import ConfigError, RunConfig
from compass_ray.config.base import FORMER_NAMES_ARE_SILENT
from compass_ray.config.paths import with_absolute_paths
from compass_ray.redaction import redact, redact_uris

FIRST_VERSION = "v0001"
ALL_LANGUAGES = "all"
"""The method that trains one adapter for all languages on the complete pool."""
FULL_FINETUNING = "compass_fft"
"""The method that fine-tunes all base model weights of each language on the rows that COMPASS selects; it has no adapter."""
SHARED = "shared"
"""Replaces the language in paths of artifacts that all languages share."""
CORRECTIONS_FILE = "labelled.parquet"
"""Texts of the users' corrections that joined a selection (schemas.CORRECTIONS)."""
_CONFIG_FILE = "run.json"
_PINS_FILE = "pins.json"


def version_of(config: RunConfig, method: str) -> str:
    """Version of a method's first adapters: ``v0001`` for the served method, the method's name for others."""
    return FIRST_VERSION if method == config.serve.method else method


def owner(method: str, language: str) -> str:
    """Owner of a language's selection and adapter under a method: the language itself, or `SHARED`."""
    return SHARED if method == ALL_LANGUAGES else language


def selection_method(method: str) -> str:
    """The method that made the selection that a method trains on: COMPASS for full fine-tuning, otherwise the method itself."""
    return "compass" if method == FULL_FINETUNING else method


def selection_owners(config: RunConfig) -> list[tuple[str, str]]:
    """Method and owner of every selection of a run, each once, language by language."""
    methods = [selection_method(method) for method in config.select.methods]
    return list(dict.fromkeys((m, owner(m, code)) for code in config.languages for m in methods))


def adapter_owners(config: RunConfig) -> list[tuple[str, str]]:
    """Method and owner of every first adapter of a run, each once, language by language."""
    return [(method, code) for method, code in selection_owners(config) if method in config.select.methods]


def full_finetuning_languages(config: RunConfig) -> tuple[str, ...]:
    """Languages that get a fully fine-tuned model."""
    return config.languages if FULL_FINETUNING in config.select.methods else ()


def clustering_key(config: RunConfig, language: str) -> str:
    """Key of a language's clustering: the language under `cluster.scope: per_language`, otherwise `SHARED`."""
    return language if config.cluster.scope == "per_language" else SHARED


def clustering_keys(config: RunConfig) -> list[str]:
    """Keys of all clusterings of a run."""
    return list(dict.fromkeys(clustering_key(config, language) for language in config.languages))


class RunDir:
    """A run directory, local or on an object store, and the names of everything in it."""

    def __init__(self, uri: str) -> None:
        """Open the filesystem of the directory, which need not exist.

        Args:
            uri: a local path, or a URI such as ``s3://bucket/run``.

        Raises:
            ConfigError: the URI is empty, a file, the root of a storage, or not supported by pyarrow.
        """
        if not uri.strip():
            raise ConfigError(f"--run {uri!r} is empty, perhaps from an unset variable; give a folder or a URI")
        self.uri = uri if "://" in uri else str(Path(uri).expanduser().resolve())
        if "://" not in uri and Path(self.uri).is_file():
            raise ConfigError(f"--run {redact(uri)!r} is a file; give a folder, which need not exist, or a URI")
        self.filesystem, self.path = open_filesystem(self.uri)
        if not self.path:
            raise ConfigError(f"--run {redact(uri)!r} is the root of a storage; give a folder in it, for example s3://bucket/run")

    def __reduce__(self) -> tuple[type[RunDir], tuple[str]]:
        """Pickle as the URI only."""
        return (RunDir, (self.uri,))

    @property
    def shown_uri(self) -> str:
        """The URI without credentials, for texts and records."""
        return redact(self.uri)

    @property
    def public_id(self) -> str:
        """A hash of the URI: a service names its run by it to clients without an API key."""
        return content_hash("run", self.shown_uri)

    def list_files(self) -> dict[str, int]:
        """Size in bytes of every file of the run, by path relative to it."""
        return self._files.list_recursive(self.path)

    def artifact(self, *parts: str) -> Artifact:
        """The artifact at a path below the run.

        Raises:
            ArtifactError: the path leads out of the run.
        """
        name = require_contained("/".join(parts), self.shown_uri)
        return Artifact(self.filesystem, f"{self.path}/{name}", name)

    @property
    def pool(self) -> Artifact:
        """``rows.parquet`` (schemas.POOL) and ``rejected.parquet`` (schemas.REJECTED)."""
        return self.artifact("pool")

    def guide(self, language: str) -> Artifact:
        """``guide.parquet`` (schemas.GUIDES) and ``test.parquet`` (schemas.ITEMS)."""
        return self.artifact("guides", language)

    @property
    def embeddings(self) -> Artifact:
        """``part-*.parquet`` (schemas.embeddings_schema) of the pool."""
        return self.artifact("embeddings", "pool")

    def guide_embeddings(self, language: str) -> Artifact:
        """``part-00000.parquet`` (schemas.embeddings_schema) of one guide set."""
        return self.artifact("embeddings", "guides", language)

    @property
    def clusters(self) -> Artifact:
        """The fitted clusterer, ``assignments.arrow`` (schemas.ASSIGNMENTS), ``vectors.npy``, centroids and sweep."""
        return self.clustering(SHARED)

    def clustering(self, key: str) -> Artifact:
        """The clustering of all languages, or of one (see `clustering_key`)."""
        return self.artifact("clusters") if key == SHARED else self.artifact("language_clusters", key)

    def reclustering(self, name: str) -> Artifact:
        """A clustering re-fitted with traffic, ``c0002`` and so on, with the files of ``clusters``; or ``clusters`` itself."""
        return self.clusters if name == self.clusters.name else self.artifact("clusterings", name)

    def reclusterings(self) -> list[str]:
        """Names of the complete re-fitted clusterings, sorted."""
        return [name for name in self._folders("clusterings") if self.reclustering(name).manifest()]

    def active_clustering_pointer(self) -> CompareAndSwapFile:
        """Pointer to the active clustering, which traffic is counted in; the file is missing while that is ``clusters``."""
        return CompareAndSwapFile(self._files, f"{self.path}/serving/clusters.json", self.uri)

    def reference(self, clusters: str, language: str, version: str) -> Artifact:
        """``reference.json`` of an adapter version in a clustering other than the one that it was trained with."""
        return self.artifact("references", clusters, language, version)

    def budget(self, language: str) -> Artifact:
        """``budget.json``: the budget of a language and how it was found; ``held.parquet``: the rows that evaluated trials."""
        return self.artifact("budgets", language)

    def selection(self, method: str, language: str) -> Artifact:
        """``rows.parquet`` (schemas.SELECTED) and ``allocation.json``; methods that train on the same rows share it.

        With corrections also ``labelled.parquet`` (schemas.CORRECTIONS), ``quarantine.parquet`` (schemas.WITHHELD_CORRECTIONS).
        """
        return self.artifact("selections", selection_method(method), owner(method, language))

    def selections_with_corrections(self) -> list[Artifact]:
        """Complete selections that users' corrections joined, by one listing."""
        found = self._files.list_recursive(f"{self.path}/selections")
        folders = [path.removesuffix(f"/{CORRECTIONS_FILE}") for path in sorted(found) if path.endswith(f"/{CORRECTIONS_FILE}")]
        return [self.artifact("selections", folder) for folder in folders if f"{folder}/{MANIFEST}" in found]

    def selection_names(self, language: str) -> list[str]:
        """Methods and versions with a complete selection of a language, sorted."""
        return [name for name in self._folders("selections") if self.selection(name, language).manifest()]

    def adapter(self, language: str, version: str) -> Artifact:
        """A PEFT directory, ``history.json``, ``reference.json`` and, for the served method, anchors and Fisher information."""
        return self.artifact("adapters", owner(version, language), version)

    def full_model(self, language: str, method: str) -> Artifact:
        """A Hugging Face directory with the complete model, and ``history.json``."""
        return self.artifact("models", language, method)

    def update(self, language: str, version: str) -> Artifact:
        """``gate.json``: measurements and verdict of the promotion gate for an update."""
        return self.artifact("updates", language, version)

    def change(self, language: str, version: str) -> Artifact:
        """``results.json``: accuracy on old and new subjects before and after an update, if it was measured."""
        return self.artifact("changes", language, version)

    def simulation(self, language: str, part: str) -> Artifact:
        """``prompts``: clusters of the simulated users' prompts; ``detection``: ``results.json`` and plots of the drift alarm.

        ``learning``, of all languages together: results and plots of learning and forgetting; ``lines``: the versions made there.
        """
        return self.artifact("simulations", language, part)

    def evaluation(self, method: str, language: str) -> Artifact:
        """``items.parquet`` (schemas.SCORED) and ``results.json``."""
        return self.artifact("evaluations", method, language)

    def harness(self, method: str, language: str, task: str) -> Artifact:
        """``items.parquet`` (schemas.HARNESS_ITEMS), ``results.json``, the harness's ``lm_eval.json`` and its task files."""
        return self.artifact("harness", method, language, task)

    def harness_results(self, languages: Collection[str]) -> list[Artifact]:
        """Complete artifacts of `harness` in some languages, sorted, by one listing."""
        found = sorted(self._files.list_recursive(f"{self.path}/harness"))
        folders = [path.removesuffix(f"/{MANIFEST}") for path in found if path.endswith(f"/{MANIFEST}")]
        return [self.artifact("harness", folder) for folder in folders if folder.split("/")[1] in languages]

    @property
    def report(self) -> Artifact:
        """``index.html`` and its plots as PNG."""
        return self.artifact("report")

    def adapter_versions(self, language: str) -> list[str]:
        """Complete adapter versions of a language, sorted."""
        return [v for v in self._folders("adapters", language) if self.adapter(language, v).manifest()]

    def complete_adapters(self) -> dict[str, tuple[str, ...]]:
        """Complete adapter versions of every language, sorted, by one listing; no manifest is read."""
        found: dict[str, list[str]] = {}
        for path in sorted(self._files.list_recursive(f"{self.path}/adapters")):
            language, _, rest = path.partition("/")
            version, _, file = rest.partition("/")
            if file == MANIFEST:
                found.setdefault(language, []).append(version)
        return {language: tuple(sorted(versions)) for language, versions in found.items()}

    def live_pointer_etags(self) -> dict[str, tuple[int, int]]:
        """A value per language that changes with its live pointer (see `Files.etags`), by one listing."""
        etags = self._files.etags(f"{self.path}/serving/live")
        return {name.removesuffix(".json"): etag for name, etag in etags.items() if name.endswith(".json")}

    def live(self, language: str) -> dict[str, Any] | None:
        """The live pointer of a language: ``version`` and ``fingerprint`` of the served adapter.

        Raises:
            ArtifactError: the pointer is damaged.
        """
        return self._live_pointer(language).read()

    def set_live(self, language: str, pointer: Mapping[str, Any]) -> None:
        """Replace the live pointer in one step, unconditionally."""
        self._live_pointer(language).write(pointer)

    def replace_live(self, language: str, pointer: Mapping[str, Any], expected: Mapping[str, Any] | None) -> None:
        """Replace the live pointer if it is still ``expected``, the value that `live` returned.

        Raises:
            ConflictError: another process has changed it since.
        """
        self._live_pointer(language).compare_and_swap(pointer, expected)

    def clear_live(self, language: str) -> None:
        """Remove the live pointer if it exists; the router then falls back."""
        self._files.delete(self._live_pointer(language).path)

    def _live_pointer(self, language: str) -> CompareAndSwapFile:
        return CompareAndSwapFile(self._files, self._file_path(f"serving/live/{language}.json"), self.uri)

    @property
    def _files(self) -> Files:
        return Files(self.filesystem)

    def read_monitor(self, file: str) -> bytes | None:
        """A file of the monitor's state; None if it does not exist."""
        return self._read(f"monitor/{file}")

    def write_monitor(self, file: str, data: bytes) -> None:
        """Replace a file of the monitor's state in one step."""
        self.make_monitor_folder(file)
        self._files.put(self._file_path(f"monitor/{file}"), data, private=True)

    def make_monitor_folder(self, file: str) -> None:
        """Create the folder of a monitor's file on a local disk. Only the owner can open it (mode 0700)."""
        if self._files.local:
            monitor, parent = Path(self.path, "monitor"), Path(self._file_path(f"monitor/{file}")).parent
            for folder in dict.fromkeys((monitor, parent)):
                with explain_write_errors(folder):
                    make_private_folder(folder)

    def monitor_files(self) -> list[str]:
        """All files of the monitor's state, relative to the monitor's folder, sorted."""
        return sorted(self._files.list_recursive(f"{self.path}/monitor"))

    def delete_monitor(self, file: str) -> None:
        """Delete a file of the monitor's state if it exists."""
        self._files.delete(self._file_path(f"monitor/{file}"))

    def extend_monitor(self, file: str, extended: Callable[[bytes], bytes]) -> None:
        """Replace a file of the monitor's state by ``extended`` of its content, without losing other writers' additions.

        That holds on S3 and Cloud Storage. On other stores an addition between the read and the put is lost.
        """
        path = self._file_path(f"monitor/{file}")
        if not supports_conditional_put(self.uri):
            self.write_monitor(file, extended(self.read_monitor(file) or b""))
            return
        with wrap_store_errors(path):
            ConditionalObjectStore(self.uri, self._files).extend_object(path, extended)

    def write_config(self, config: RunConfig) -> None:
        """Write the configuration of the run, under the first name of each setting."""
        settings = redact_uris(json.loads(config.model_dump_json(by_alias=True)))
        self.write_config_bytes(json.dumps(settings, indent=2, ensure_ascii=False).encode())

    def read_config_bytes(self) -> bytes | None:
        """The configuration file as bytes; None if there is no run."""
        return self._read(_CONFIG_FILE)

    def write_config_bytes(self, data: bytes) -> None:
        """Write back a configuration from `read_config_bytes`."""
        self._write(_CONFIG_FILE, data)

    def read_pins(self) -> bytes | None:
        """The pinned commits of hub repositories; None if the run is not pinned."""
        return self._read(_PINS_FILE)

    def write_pins(self, data: bytes) -> None:
        """Replace the pins in one step."""
        self._write(_PINS_FILE, data)

    def read_config(self) -> RunConfig:
        """The latest configuration of the run. Relative paths of an older run are taken from the working directory.

        Raises:
            ArtifactError: there is no run, or its configuration is damaged.
        """
        data = self.read_config_bytes()
        if data is None:
            raise ArtifactError(
                f"there is no run in {self.shown_uri}; create one with 'compass-ray adapt --preset NAME --run {self.shown_uri}'"
            )
        try:
            return with_absolute_paths(RunConfig.model_validate_json(data, context={FORMER_NAMES_ARE_SILENT: True}))
        except ValidationError as error:
            raise ArtifactError(
                f"{self.shown_uri}/run.json is damaged or of another version ({error.error_count()} problems); "
                f"run 'compass-ray adapt --run {self.shown_uri}' with the run's --preset or --config to write it again"
            ) from None

    def _folders(self, *parts: str) -> list[str]:
        return self._files.list_folders("/".join((self.path, *parts)))

    def _read(self, file: str) -> bytes | None:
        try:
            return self._files.read(self._file_path(file))
        except FileNotFoundError:
            return None

    def _write(self, file: str, data: bytes) -> None:
        self._files.put(self._file_path(file), data)

    def _file_path(self, file: str) -> str:
        return f"{self.path}/{require_contained(file, self.shown_uri)}"
