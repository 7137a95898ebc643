"""Update the catalogues: ``python -m compass_ray.translations`` adds new messages without a text, and removes unused ones."""

from __future__ import annotations

from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

from compass_ray.translations.extraction import extract_messages

FOLDER = Path(__file__).parent


def main() -> None:
    """Update every ``.po`` file in this folder, and print how many messages have no translation."""
    template = Catalog()
    for message in extract_messages():
        template.add(message)
    for file in sorted(FOLDER.glob("*.po")):
        with file.open("rb") as stream:
            catalogue = read_po(stream, locale=file.stem)
        catalogue.update(template, no_fuzzy_matching=True)
        catalogue.obsolete.clear()
        with file.open("wb") as stream:
            write_po(stream, catalogue, sort_output=True, omit_header=True, width=130, ignore_obsolete=True, no_location=True)
        missing = [str(message.id) for message in catalogue if message.id and not message.string]
        print(f"{file.name}: {len(template)} messages, {len(missing)} without a translation")


if __name__ == "__main__":
    main()
