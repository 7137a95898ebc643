"""Who may use the endpoint: the API keys of a service and the host names of its requests, as its replicas get them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Access:
    """The access rules of a service."""

    digests: Mapping[str, str] = field(default_factory=dict)
    """The name of each accepted key by its hash; empty if no key is needed."""
    key_file: Path | None = None
    """The file that the keys came from, which replicas re-read."""
    hosts: tuple[str, ...] | None = None
    """Accepted names in the ``Host`` header, as in ``serve.allowed_hosts``; None accepts all."""
