"""Question templates: two paraphrases of every relation in every language, read from `templates.yaml`.

Key property: names follow a colon or a dash, so no language has to inflect them. Answers are names without a template.
"""

from functools import cache
from importlib import resources

import yaml

PARAPHRASES = 2


@cache
def _templates() -> dict[str, dict[str, list[str]]]:
    text = resources.files(__package__).joinpath("templates.yaml").read_text(encoding="utf-8")
    loaded: dict[str, dict[str, list[str]]] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return loaded


def render_question(code: str, template: str, name: str, paraphrase: int) -> str:
    """Render a question about `name`; paraphrase 0 is a full question, 1 its keyword form.

    >>> render_question("en", "currency", "Kenya", 1)
    'Kenya – currency?'
    """
    full, keyword = _templates()[code][template]
    if paraphrase == 0:
        return full.replace("{x}", name)
    return f"{name} – {keyword}{full.rsplit('{x}', 1)[1]}"


@cache
def template_names() -> tuple[str, ...]:
    """Names of all templates: those of the relations, and `code` and `name`, which ask for no fact."""
    return tuple(_templates()["en"])
