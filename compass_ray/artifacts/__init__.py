"""The run directory: artefacts, their manifests and fingerprints, and atomic publication.

Key property: an artefact is whole if and only if its ``manifest.json`` is there. The manifest is written last, by
rename on a local disk and by one put on an object store, so a process killed at any moment leaves either the whole
artefact or something that no reader takes for one. A fingerprint is a check on a human-readable path, never the path.
This is the only module that knows file names; it holds no algorithm and starts nothing.
"""

from compass_ray.artifacts.artifact import Artifact
from compass_ray.artifacts.attempts import Attempt, StageTime, attempts
from compass_ray.artifacts.attempts import begin as begin_attempt
from compass_ray.artifacts.failures import LanguagesFailedError
from compass_ray.artifacts.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    ArtifactError,
    FingerprintMismatchError,
    Identity,
    Manifest,
    Output,
    content_hash,
)
from compass_ray.artifacts.pointer import LostRaceError
from compass_ray.artifacts.run_dir import (
    FIRST_VERSION,
    FULL_TUNING,
    LABELLED,
    SHARED,
    WHOLE_POOL,
    RunDir,
    adapter_homes,
    clustered,
    clusterings,
    fully_tuned,
    home,
    homes,
    selected_by,
    version_of,
)
from compass_ray.artifacts.writer import Writer

__all__ = [
    "FIRST_VERSION",
    "FULL_TUNING",
    "LABELLED",
    "MANIFEST",
    "SCHEMA_VERSION",
    "SHARED",
    "WHOLE_POOL",
    "Artifact",
    "ArtifactError",
    "Attempt",
    "FingerprintMismatchError",
    "Identity",
    "LanguagesFailedError",
    "LostRaceError",
    "Manifest",
    "Output",
    "RunDir",
    "StageTime",
    "Writer",
    "adapter_homes",
    "attempts",
    "begin_attempt",
    "clustered",
    "clusterings",
    "content_hash",
    "fully_tuned",
    "home",
    "homes",
    "selected_by",
    "version_of",
]
