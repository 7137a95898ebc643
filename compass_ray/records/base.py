"""The base of every record, and the files that hold one record each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, Self, cast

from pydantic import BaseModel, ConfigDict


class JsonSource(Protocol):
    """Anything that holds JSON files, such as an artifact."""

    def read_json(self, file: str, parse: Callable[[Any], Any]) -> Any:
        """The content of a file, parsed."""
        ...


class JsonSink(Protocol):
    """Anything that JSON files are written to, such as the writer of an artifact."""

    def write_json(self, file: str, value: Any) -> None:
        """Write a file."""
        ...


class Record(BaseModel):
    """Frozen. Unknown keys are ignored, and only what has no meaning without a key requires it.

    A record of an earlier or a later version therefore still reads.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """What is written: the fields that were set, in order of definition. A field that was not set is omitted."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class FileRecord(Record):
    """The content of one JSON file of an artifact."""

    FILE: ClassVar[str]

    @classmethod
    def read(cls, artifact: JsonSource) -> Self:
        """The record in an artifact.

        Raises:
            FileNotFoundError: the artifact has no such file.
            ValueError: the file is damaged.
        """
        return cast(Self, artifact.read_json(cls.FILE, cls.model_validate))

    def write(self, writer: JsonSink) -> None:
        """Write the record to an artifact."""
        writer.write_json(self.FILE, self.to_json())


def is_none(value: object) -> bool:
    """Whether a field is omitted from what is written because it is None."""
    return value is None
