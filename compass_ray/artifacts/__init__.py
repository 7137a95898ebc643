"""The run directory: artifacts, their manifests and fingerprints, and atomic publication.

An artifact is complete if and only if its ``manifest.json`` exists. The manifest is written last, by a rename on a local disk
and by one put on an object store. A process killed at any moment therefore leaves a complete artifact or one that readers
ignore. Paths are human-readable; a fingerprint checks a path and is never part of it. Only this package knows file names.
"""

from compass_ray.artifacts.artifact import Artifact
from compass_ray.artifacts.cas_file import ConflictError
from compass_ray.artifacts.errors import ArtifactError, FingerprintMismatchError, LanguagesFailedError
from compass_ray.artifacts.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    Identity,
    Manifest,
    Output,
    content_hash,
)
from compass_ray.artifacts.run_dir import (
    ALL_LANGUAGES,
    CORRECTIONS_FILE,
    FIRST_VERSION,
    FULL_FINETUNING,
    SHARED,
    RunDir,
    adapter_owners,
    clustering_key,
    clustering_keys,
    full_finetuning_languages,
    owner,
    selection_method,
    selection_owners,
    version_of,
)
from compass_ray.artifacts.stage_timing import Attempt, StageTime, read_attempts
from compass_ray.artifacts.stage_timing import begin_attempt as begin_attempt
from compass_ray.artifacts.writer import Writer

__all__ = [
    "ALL_LANGUAGES",
    "CORRECTIONS_FILE",
    "FIRST_VERSION",
    "FULL_FINETUNING",
    "MANIFEST",
    "SCHEMA_VERSION",
    "SHARED",
    "Artifact",
    "ArtifactError",
    "Attempt",
    "ConflictError",
    "FingerprintMismatchError",
    "Identity",
    "LanguagesFailedError",
    "Manifest",
    "Output",
    "RunDir",
    "StageTime",
    "Writer",
    "adapter_owners",
    "begin_attempt",
    "clustering_key",
    "clustering_keys",
    "content_hash",
    "full_finetuning_languages",
    "owner",
    "read_attempts",
    "selection_method",
    "selection_owners",
    "version_of",
]
