"""Manifest of a complete artifact, and the fingerprint of its settings and inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from compass_ray.artifacts.contained_path import is_contained
from compass_ray.redaction import redact

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"


def _check_contained(path: str) -> str:
    if not is_contained(path):
        raise ValueError(f"the output {path!r} leads out of the artifact")
    return path


class Output(BaseModel):
    """One file of an artifact: relative path, size in bytes, SHA-256, and number of rows if it is a table."""

    model_config = ConfigDict(frozen=True)
    path: Annotated[str, AfterValidator(_check_contained)]
    bytes: int
    sha256: str
    rows: int | None = None


class Manifest(BaseModel):
    """Commit marker of an artifact, and the record of how it was made."""

    model_config = ConfigDict(frozen=True)
    schema_version: int = SCHEMA_VERSION
    stage: str
    fingerprint: str
    config: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    metrics: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)
    digest: str = ""
    """Hash of all other fields; empty in manifests of earlier versions."""

    def sealed(self) -> Manifest:
        """The manifest with the digest of its content."""
        return self.model_copy(update={"digest": _digest(self.model_dump_json())})

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Parse a manifest file.

        Raises:
            ValueError: it is no manifest, or its content differs from its digest.
        """
        manifest = cls.model_validate_json(data)
        if manifest.digest and manifest.digest != _digest(data):
            raise ValueError("its content differs from its digest")
        return manifest


@dataclass(frozen=True)
class Identity:
    """Identity of an artifact: its stage, the settings that shape it and the fingerprints of its inputs."""

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of the three parts, 16 hexadecimal digits."""
        return content_hash(self.stage, canonical_json(dict(self.config)), canonical_json(dict(self.inputs)))


def _digest(text: str | bytes) -> str:
    return content_hash(canonical_json({name: value for name, value in json.loads(text).items() if name != "digest"}))


def content_hash(*parts: str) -> str:
    """A 16-digit hexadecimal hash of texts; the boundaries between texts count.

    >>> content_hash("ab", "c") == content_hash("a", "bc")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def canonical_json(value: Any) -> str:
    """JSON text that is equal for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)


def describe_fingerprint_diff(found: Manifest, identity: Identity) -> str:
    """Describe for users how settings and inputs of a manifest differ from an identity."""
    old, new = _flatten({**found.config, **found.inputs}), _flatten({**identity.config, **identity.inputs})
    keys = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    shown = [f"{key} was {old.get(key, 'unset')}, is {new.get(key, 'unset')}" for key in keys[:5]]
    return redact("; ".join(shown)) or f"it has schema version {found.schema_version}, expected {SCHEMA_VERSION}"


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in json.loads(canonical_json(dict(tree))).items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = canonical_json(value)
    return flat
