"""Base of every configuration section: strict keys, former names, number ranges and the error class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
AtLeastTwo = Annotated[int, Field(ge=2)]


class ConfigError(ValueError):
    """A configuration is invalid; the message gives the value, what was expected and what to do next."""


FORMER_NAMES_ARE_SILENT = "former_names_are_silent"
"""Key of the validation context under which former names are accepted without a warning, as for a recorded run."""


class DeprecatedSettingWarning(FutureWarning):
    """A setting or one of its values is given by its former name."""


class ConfigSection(BaseModel):
    """Base of every section: frozen, without unknown keys or infinite numbers.

    A renamed setting gives its former name as ``serialization_alias``. The former name is still read, with a warning.
    Fingerprints (`fingerprint_settings`) and the recorded configuration of a run use former names and values, so renaming a
    setting invalidates no artifact and changes no file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    former_values: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Renamed values by setting: former value to present value."""

    @model_serializer(mode="wrap")
    def _write_former_values(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        settings: dict[str, Any] = handler(self)
        if info.by_alias:
            for name in self.former_values.keys() & settings.keys():
                former = {present: value for value, present in self.former_values[name].items()}
                settings[name] = former.get(settings[name], settings[name])
        return settings

    @model_validator(mode="before")
    @classmethod
    def _read_former_names(cls, tree: Any, info: ValidationInfo) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        silent = bool(info.context and info.context.get(FORMER_NAMES_ARE_SILENT))
        return cls.with_present_names(tree, silent)

    @classmethod
    def with_present_names(cls, tree: Mapping[str, Any], silent: bool = False, prefix: str = "") -> dict[str, Any]:
        """Settings of this section under their present names and values; a former one warns unless ``silent``.

        ``prefix`` is the path of the section in messages, for example ``drift.``.

        Raises:
            ValueError: a setting is given under both names.
        """
        read: dict[str, Any] = {}
        for key, value in tree.items():
            name = cls.present_name(key)
            if name != key:
                if name in tree:
                    raise ValueError(
                        f"{prefix}{key} is the former name of {prefix}{name}, and both are set; remove {prefix}{key}"
                    )
                _warn(f"setting '{prefix}{key}' is deprecated; use '{prefix}{name}'", silent)
            read[name] = cls._present_value(name, value, silent, prefix)
        return read

    @classmethod
    def former_names(cls) -> dict[str, str]:
        """Present name of each renamed setting by its former name."""
        return {field.serialization_alias: name for name, field in cls.model_fields.items() if field.serialization_alias}

    @classmethod
    def present_name(cls, key: str) -> str:
        """The present name of a setting, given its present or former name."""
        return cls.former_names().get(key, key)

    @classmethod
    def _present_value(cls, name: str, value: Any, silent: bool, prefix: str) -> Any:
        present = cls.former_values.get(name, {}).get(value) if isinstance(value, str) else None
        if present is None:
            return value
        _warn(f"value {value!r} of setting '{prefix}{name}' is deprecated; use {present!r}", silent)
        return present

    def fingerprint_settings(self, *, include: set[str] | None = None, exclude: set[str] | None = None) -> dict[str, Any]:
        """Settings as they enter a fingerprint: under their former names if they were renamed."""
        return self.model_dump(include=include, exclude=exclude, by_alias=True)


def _warn(message: str, silent: bool) -> None:
    if not silent:
        warnings.warn(message, DeprecatedSettingWarning, stacklevel=2)
