"""Settings of the report."""

from __future__ import annotations

from pydantic import field_validator

from compass_ray.config.base import ConfigSection
from compass_ray.translations import ENGLISH, translated_languages


class ReportConfig(ConfigSection):
    """The report page of a run."""

    language: str = ENGLISH
    """Language of the page: ``en`` or ``ar``. Prompts, responses and recorded reasons stay as they are."""

    @field_validator("language")
    @classmethod
    def _is_translated(cls, code: str) -> str:
        if code != ENGLISH and code not in translated_languages():
            raise ValueError(f"the report has no translation into {code!r}; use one of {', '.join(translated_languages())}")
        return code
