"""What the keeper remembers of each language, as one file of the monitor's folder.

Key property: it is replaced in one step, after what it is about was done, so a keeper that was killed in between decides the same
once more. A file that cannot be read counts as none: trials begin anew then. It decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError

from compass_ray.artifacts import RunDir
from compass_ray.continual.keeping.situation import Memory

logger = logging.getLogger(__name__)

FILE = "keeping.json"
_FORM = TypeAdapter(dict[str, Memory])


class Memories:
    """The memory of each language of a run. One owner calls it."""

    def __init__(self, run: RunDir) -> None:
        """Read what was remembered before."""
        self.run = run
        self._kept = _read(run)

    def of(self, language: str) -> Memory:
        """What is remembered of a language."""
        return self._kept.get(language, Memory())

    def keep(self, language: str, memory: Memory) -> None:
        """Remember; it is on disk on return.

        Raises:
            ArtifactError, OSError: it could not be written, and is not remembered then.
        """
        if memory == self.of(language):
            return
        kept = {**self._kept, language: memory}
        self.run.write_monitor(FILE, _FORM.dump_json(kept))
        self._kept = kept


def _read(run: RunDir) -> Mapping[str, Memory]:
    found = run.read_monitor(FILE)
    try:
        return {} if found is None else _FORM.validate_json(found)
    except ValidationError as error:
        logger.warning("%s/monitor/%s cannot be read and is begun anew (%d problems)", run.uri, FILE, error.error_count())
        return {}
