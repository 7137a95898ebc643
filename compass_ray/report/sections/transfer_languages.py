"""Which transfer languages LangRank and LangSim took rows of: a part of the section on what was added.

Key property: it says by which vectors languages were compared, as each selection wrote it. COMPASS, section 4.3.
"""

from __future__ import annotations

from collections.abc import Iterator

from compass_ray.report.blocks import Block, TableBlock
from compass_ray.report.run_reader import METHODS, RunReader, language_name

_METHODS = ("langrank", "langsim")


def blocks(evidence: RunReader, languages: tuple[str, ...]) -> Iterator[Block]:
    """A table of the languages by method and target, the best first; nothing where neither method has run."""
    made = {(code, name): evidence.allocation(name, code) for code in languages for name in _METHODS}
    found = {key: each.transfer for key, each in made.items() if each and each.transfer.languages}
    if found:
        rows = [
            (language_name(code), METHODS[name], ", ".join(map(language_name, each.languages)), each.vectors)
            for (code, name), each in found.items()
        ]
        yield TableBlock(
            "Transfer languages of each language, the best first", ("language", "method", "from", "compared by"), rows, 4
        )
