"""Identify the language of a text with a fastText model such as GlotLID or lid.176 (COMPASS, sections 3.2.5 and 4.2).

Labels may be those of GlotLID, NLLB and FLORES, or ISO 639 codes (`languages.from_label`).
Confidence is the model's own probability. ``restrict`` neither rescales it nor removes labels. So a text in a language that is
not served never becomes the nearest served language. The router applies the confidence threshold.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compass_ray.config import IdentifierConfig
from compass_ray.languages import LABEL_PREFIX, from_label
from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import resolve_model
from compass_ray.texts import is_blank

_MIN_PROBABILITY = 1e-4
"""Less likely labels are dropped: summing as many labels as GlotLID has takes 1.7 to 3.7 ms per text, against 0.5 ms."""
_HUB_FILES = ("model_v3.bin", "model.bin", "model.ftz")


@dataclass(frozen=True)
class LanguagePrediction:
    """A language code, or None for an unknown language; the model's label; confidence in [0, 1].

    ``alternatives`` are the next known languages with their confidence, most likely first.
    """

    language: str | None
    label: str
    confidence: float
    alternatives: tuple[tuple[str, float], ...] = ()


MAX_ALTERNATIVES = 3
UNKNOWN_LANGUAGE = LanguagePrediction(None, "", 0.0)
"""The prediction for a blank text."""


class LanguageIdentifier:
    """Identifies the language of texts."""

    def __init__(self, config: IdentifierConfig) -> None:
        """Load the configured fastText model.

        Raises:
            ModelError: it is missing or damaged, or none of its labels is a known language.
        """
        self.config = config
        self.model = _load(_file(config), config.model)
        self._codes = {label: _code(label) for label in self.model.get_labels()}
        self.languages = frozenset(code for code in self._codes.values() if code)
        """The languages that it can identify."""
        if not self.languages:
            some = ", ".join(list(self._codes)[:3])
            raise ModelError(
                f"identifier {config.model!r}: none of its {len(self._codes)} labels ({some}, ...) is a known language; "
                f"use a model with labels such as {LABEL_PREFIX}swh_Latn or {LABEL_PREFIX}sw"
            )

    def unknown_languages(self, served: Sequence[str]) -> tuple[str, ...]:
        """The served languages that it never identifies, in their order."""
        return tuple(code for code in served if code not in self.languages)

    def identify(self, texts: Sequence[str], restrict: Collection[str] | None = None) -> list[LanguagePrediction]:
        """The most probable language of each text. With ``restrict``, any language outside it counts as unknown.

        Probabilities of several labels of one language, such as the Arabic dialects, are added.
        """
        known = self.languages if restrict is None else self.languages.intersection(restrict)
        return [self._identify_one(text, known) for text in texts]

    def _identify_one(self, text: str, known: Collection[str]) -> LanguagePrediction:
        # fastText reads one line, so the text must not contain a newline.
        line = " ".join(text.split())
        if is_blank(line):
            return UNKNOWN_LANGUAGE
        predictions = [
            (max(p, 0.0), label.strip()) for p, label in self.model.f.predict(f"{line}\n", -1, _MIN_PROBABILITY, "strict")
        ]
        totals: dict[str, float] = {}
        names: dict[str, str] = {}
        for probability, label in predictions:
            key = self._codes.get(label) or label
            totals[key] = totals.get(key, 0.0) + probability
            names.setdefault(key, label)
        if not totals:
            return UNKNOWN_LANGUAGE
        best, *others = sorted(totals, key=lambda key: (-totals[key], key))
        alternatives = tuple((key, min(totals[key], 1.0)) for key in others if key in known)[:MAX_ALTERNATIVES]
        label = names[best].removeprefix(LABEL_PREFIX)
        return LanguagePrediction(best if best in known else None, label, min(totals[best], 1.0), alternatives)


def _code(label: str) -> str | None:
    known = from_label(label)
    return known.code if known else None


def find_in_cache(config: IdentifierConfig) -> Path | None:
    """The file of an identifier of the hub in the hub's cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(config.model, name, revision=config.revision) for name in _HUB_FILES)
    return next((Path(file) for file in found if isinstance(file, str)), None)


def _file(config: IdentifierConfig) -> Path:
    path = Path(resolve_model(config.model, "language_id"))
    if path.is_file():
        return path
    if path.is_dir():
        models = sorted(p for p in path.iterdir() if p.suffix in (".bin", ".ftz"))
        if models:
            return models[-1]
        raise ModelError(f"identifier {config.model!r}: {path} has no .bin or .ftz file; use a fastText model")
    return _download(config)


def _download(config: IdentifierConfig) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for name in _HUB_FILES:
        try:
            return Path(hf_hub_download(config.model, name, revision=config.revision))
        except LocalEntryNotFoundError as error:
            raise ModelError(f"identifier {config.model!r} cannot be downloaded ({error}); use a local file") from error
        except HfHubHTTPError:
            continue
    raise ModelError(f"identifier {config.model!r} on the hub has none of {', '.join(_HUB_FILES)}; use a local file")


def _load(file: Path, name: str) -> Any:
    import fasttext

    try:
        return fasttext.load_model(str(file))
    except (ValueError, RuntimeError, MemoryError) as error:
        raise ModelError(f"identifier {name!r}: {file} is not a fastText model ({error}); use GlotLID's model_v3.bin") from None
