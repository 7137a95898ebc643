"""Check which served languages the language identifier knows.

Key property: the labels are those of the loaded model. A model that is not on this machine is not downloaded.
"""

from __future__ import annotations

from compass_ray.models.errors import ModelError
from compass_ray.models.language_id import LanguageIdentifier, find_in_cache
from compass_ray.models.model_resolver import hub_id
from compass_ray.preflight.check_result import CheckContext, CheckResult

_CHECK = "served languages"


def check_identifier(context: CheckContext) -> list[CheckResult]:
    """List the languages of the run that the identifier does not know, and where their requests go."""
    config, settings = context.config, context.config.identifier
    if hub_id(settings.model):
        if (file := find_in_cache(settings)) is None:
            return [CheckResult(_CHECK, f"not checked: the identifier {settings.model} is not in the cache of the hub yet")]
        settings = settings.model_copy(update={"model": str(file)})
    try:
        identifier = LanguageIdentifier(settings)
    except ModelError as error:
        return [CheckResult(_CHECK, str(error), "set identifier.model to a fastText model", blocking=True, by="settings")]
    unknown = identifier.unknown_languages(config.languages)
    if not unknown:
        return [CheckResult(_CHECK, f"the identifier knows all {len(config.languages)}")]
    known = len(config.languages) - len(unknown)
    return [
        CheckResult(
            _CHECK,
            f"the identifier {config.identifier.model} knows {known} of {len(config.languages)}, but not {', '.join(unknown)}. "
            "It labels their texts as other languages. With model=auto such a request goes to the base model, or to the adapter "
            f"of a language it is mistaken for. A request with model={unknown[0]} gets its adapter. Corrections in these "
            "languages wait for a review",
            "use an identifier that knows them, such as GlotLID (identifier.model=cis-lmu/glotlid, or its file), or let clients "
            "name the language",
        )
    ]
